"""The money that payments bring is counted once, whatever is repeated."""

from __future__ import annotations

from prometheus_client import REGISTRY

from tests.integration.payments.world import Payments


def collected(currency: str) -> float:
    labels = {"gateway": "sslcommerz", "currency": currency}
    return REGISTRY.get_sample_value("payments_succeeded_minor_units_total", labels) or 0.0


async def test_money_is_counted_when_it_is_confirmed_and_no_second_time(payments: Payments) -> None:
    payment = await payments.create()
    amount, currency = payment["amount"], payment["currency"]
    before = collected(currency)
    assert amount > 0

    await payments.paid(payment)
    assert collected(currency) == before + amount

    await payments.paid(payment)
    for validation_id in ("val_1", "val_2"):
        await payments.notify_of(payment, validation_id=validation_id)
    assert collected(currency) == before + amount, "a surplus charge is no revenue"
