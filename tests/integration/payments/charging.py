"""Words for tests of what the scheduler orders: charges, retries, cancellations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from services.payments.domain.payment_methods import Chargeable, Means
from services.payments.handlers.charge_cancellation import cancel_charges
from services.payments.handlers.charges import charge_desk
from services.payments.runtime import Runtime
from services.payments.store.payment_methods import erase_method, insert_method
from shared.contracts.base import Message
from shared.contracts.scheduler import CancelCharge, ChargeSubscription, RetryCharge
from shared.contracts.subscriptions import CHARGES_QUEUE, OUTCOMES_QUEUE
from shared.gateways.interface import Card, Customer
from shared.identifiers import new_id
from shared.messaging.receiver import Receiver
from tests.integration.payments.world import Payments
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for

CARD = Card("pm_1", "cus_9", off_session=True)


@asynccontextmanager
async def open_receiver(runtime: Runtime) -> AsyncIterator[Receiver]:
    """Open what one worker does with orders."""
    async with charge_desk(runtime) as desk:
        receiver = Receiver(
            runtime.core.database,
            runtime.core.publisher,
            {
                ChargeSubscription: desk.charge,
                RetryCharge: desk.retry,
                CancelCharge: partial(cancel_charges, runtime),
            },
        )
        yield receiver
        await receiver.close()


@dataclass
class Charging:
    """The service as the scheduler sees it: orders go in, and facts come out."""

    payments: Payments
    receiver: Receiver
    #: What the customer is charged with.
    method_id: str = ""
    _sent: int = field(default=0)

    async def store(self, method: Chargeable = CARD, gateway: str = "sslcommerz") -> str:
        """Store a means of payment and charge with it from now on."""
        now = self.payments.clock()
        self.method_id = new_id("pmt", now)
        means = Means(Customer("cus_1", "Ada", "ada@shop.example", "0170000"), method)
        async with self.payments.core.database.connection() as connection:
            await insert_method(connection, self.method_id, gateway, means, now)
        return self.method_id

    async def erase(self) -> None:
        """Erase what the customer is charged with."""
        async with self.payments.core.database.connection() as connection:
            assert await erase_method(connection, self.method_id, self.payments.clock())

    def new(self, **changes: Any) -> ChargeSubscription:
        """Return an order to charge; a test names what it is about."""
        now = self.payments.clock()
        values: dict[str, Any] = {
            "payment_id": new_id("pay", now),
            "subscription_id": "sub_1",
            "payment_method_id": self.method_id,
            "customer_id": "cus_1",
            "product_id": "course_1",
            "product_name": "Course",
            "gateway": "sslcommerz",
            "amount": 115_000,
            "currency": "BDT",
            "period_start": now,
            "is_on_test_clock": False,
        }
        return ChargeSubscription(**(values | changes))

    def deliver(self, *messages: Message, ids: Sequence[int] = ()) -> list[int]:
        """Hand messages over in one batch, and return their numbers."""
        if not ids:
            ids = range(self._sent + 1, self._sent + len(messages) + 1)
            self._sent += len(messages)
        numbered = list(zip(ids, messages, strict=True))
        self.receiver.accept(CHARGES_QUEUE, {"batch": batch_of("scheduler", numbered)})
        return list(ids)

    async def confirmed(self, ids: Sequence[int]) -> None:
        """Wait for the receipts of messages, and for all that was begun with them."""

        async def all_confirmed() -> bool:
            receipts = set(await receipts_for(self.payments.core.redis, "scheduler"))
            return set(ids) <= receipts and not self.receiver._tasks

        await eventually(all_confirmed)

    async def order(self, *messages: Message, ids: Sequence[int] = ()) -> None:
        """Deliver messages in one batch and wait until all that follows is done."""
        await self.confirmed(self.deliver(*messages, ids=ids))

    async def charge(self, **changes: Any) -> ChargeSubscription:
        """Order a charge and wait for what comes of it."""
        order = self.new(**changes)
        await self.order(order)
        return order

    async def told(self, payment_id: str | None = None) -> list[tuple[str, dict[str, Any]]]:
        """Return what the scheduler was told, in order: the word for it, and its fields."""
        rows = await self.payments.rows(
            "SELECT message_name, payload::text FROM outbox WHERE queue = $1 ORDER BY id",
            OUTCOMES_QUEUE,
        )
        found = [(_word(row["message_name"]), orjson.loads(row["payload"])) for row in rows]
        return [
            (fields["step"] if word == "progressed" else word, fields)
            for word, fields in found
            if payment_id in {None, fields["paymentId"]}
        ]

    async def words(self, payment_id: str | None = None) -> list[str]:
        """Return what the scheduler was told, in one word each."""
        return [word for word, _ in await self.told(payment_id)]

    async def last(self) -> dict[str, Any]:
        """Return the last thing that the scheduler was told."""
        return (await self.told())[-1][1]

    async def state(self, order: ChargeSubscription) -> tuple[str, str | None]:
        """Return the state of a charge, and why."""
        payment = await self.payments.read(order.payment_id)
        return payment["state"], payment["reason"]


def _word(name: str) -> str:
    return name.removeprefix("payments.charge_").removesuffix(".v1")


def retry_of(order: ChargeSubscription) -> RetryCharge:
    return RetryCharge(payment_id=order.payment_id, subscription_id=order.subscription_id)


def cancellation_of(order: ChargeSubscription, reason: str = "cancelled_at_once") -> CancelCharge:
    return CancelCharge(
        payment_id=order.payment_id, subscription_id=order.subscription_id, reason=reason
    )
