"""Means of payment are known by messages, in whatever order and as often as they come."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.scheduler.store.payment_methods import PaymentMethod, find_methods
from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored
from shared.contracts.scheduler import CancelCharge, ChargeSubscription
from tests.integration.scheduler.world import Scheduler
from tests.support.clocks import START

STORED = PaymentMethodStored(
    payment_method_id="pmt_1",
    customer_id="cus_1",
    gateway="stripe",
    kind="card",
    stored_at=START,
)
REMOVED = PaymentMethodRemoved(
    payment_method_id="pmt_1", customer_id="cus_1", removed_at=START + timedelta(days=1)
)


async def known(service: Scheduler) -> dict[str, PaymentMethod]:
    async with service.core.database.connection() as connection:
        return await find_methods(connection, ["pmt_1", "pmt_2"])


async def test_what_is_stored_can_be_charged(service: Scheduler) -> None:
    other = STORED.model_copy(update={"payment_method_id": "pmt_2", "customer_id": "cus_2"})

    await service.hear(STORED, other, STORED)
    await service.hear(STORED)

    assert await known(service) == {
        "pmt_1": PaymentMethod("pmt_1", "cus_1", "stripe", "card"),
        "pmt_2": PaymentMethod("pmt_2", "cus_2", "stripe", "card"),
    }


@pytest.mark.parametrize(
    "messages",
    [(STORED, REMOVED), (REMOVED, STORED), (STORED, REMOVED, STORED), (REMOVED, REMOVED, STORED)],
)
async def test_what_is_removed_stays_removed(
    service: Scheduler, messages: tuple[PaymentMethodStored | PaymentMethodRemoved, ...]
) -> None:
    for message in messages:
        await service.hear(message)

    assert await known(service) == {}
    row = (await service.rows("SELECT * FROM payment_method"))[0]
    assert (row["gateway"], row["stored_at"]) == ("stripe", START)
    assert row["removed_at"] == REMOVED.removed_at


async def test_whoever_takes_their_means_of_payment_back_is_not_charged_any_more(
    service: Scheduler,
) -> None:
    plan = await service.plan()
    subscription = await service.subscribe(plan)
    await service.bill_due()
    (order,) = [each for each in await service.orders() if isinstance(each, ChargeSubscription)]
    removed = REMOVED.model_copy(
        update={
            "payment_method_id": order.payment_method_id,
            "customer_id": order.customer_id,
        }
    )

    await service.hear(removed)
    await service.hear(removed)

    cancels = [each for each in await service.orders() if isinstance(each, CancelCharge)]
    assert [each.payment_id for each in cancels] == [order.payment_id]
    rows = await service.rows("SELECT * FROM subscription")
    assert [row["payment_method_id"] for row in rows] == [None], subscription
