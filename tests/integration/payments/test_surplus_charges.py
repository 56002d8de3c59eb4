"""Money that a gateway took more than once: kept, flagged, announced once."""

from __future__ import annotations

from prometheus_client import REGISTRY

from shared.gateways.interface import Unknown
from tests.integration.payments.world import Payments
from tests.support.messages import notice_received


def surplus_charges() -> float:
    labels = {"gateway": "sslcommerz"}
    return REGISTRY.get_sample_value("payments_surplus_charges_total", labels) or 0.0


async def test_a_second_charge_is_flagged_counted_and_announced_once(payments: Payments) -> None:
    before = surplus_charges()
    payment = await payments.create()
    await payments.paid(payment)
    await payments.paid(payment)

    now = await payments.read(payment["id"])
    assert (now["state"], now["reason"]) == ("succeeded", "surplus_charge")
    assert (await payments.story(payment))[-1] == "surplus_charge_found"
    assert surplus_charges() == before + 1
    assert len(await payments.announcements()) == 1

    for validation_id in ("val_1", "val_2"):
        await payments.notify_of(payment, validation_id=validation_id)
    assert surplus_charges() == before + 1, "the same news again is no news"


async def test_a_charge_under_each_of_two_references_is_one_payment_and_one_surplus(
    payments: Payments,
) -> None:
    """The first page was believed lost, a second one opened, and the customer paid on both."""
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key")
    payment = (await payments.post("key")).data
    first, second = (asked.reference for asked in payments.gateway.orders)
    for reference in (second, first):
        charge = payments.gateway.charge(reference)
        await payments.notify(notice_received(reference, validation_id=charge.validation_id))

    now = await payments.read(payment["id"])
    assert (now["state"], now["reason"]) == ("succeeded", "surplus_charge")
    assert len(await payments.announcements()) == 1
