"""A scheduler with a clock that the test moves, and payments that do what the test says.

plan = await service.plan(amount=990)
subscription = await service.subscribe(plan, paymentMethodId=await service.method())
await service.bill_due()                     # opens the period: cycle, job, order
(order,) = await service.orders()            # what payments was told since the last look
await service.hear(succeeded(order))         # what payments says, handled to the end
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from services.scheduler.app import routes_of
from services.scheduler.handlers.billing import do_what_is_due
from services.scheduler.runtime import Runtime
from services.scheduler.settings import SchedulerSettings
from services.scheduler.store.subscriptions import lock_subscriptions
from services.scheduler.worker import handlers_of
from shared.clock import Clock
from shared.contracts.base import Message
from shared.contracts.payments import ChargeFailed, ChargeProgressed, ChargeSucceeded
from shared.contracts.scheduler import ChargeSubscription
from shared.contracts.subscriptions import CHARGES_QUEUE, MESSAGES, SUBSCRIPTIONS
from shared.identifiers import new_id
from shared.messaging.receiver import Receiver
from shared.process import Core, open_core
from shared.web.idempotency import IdempotencyKeys
from tests.support.clocks import START, ManualClock
from tests.support.http_api import Api, Reply, serving
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import service_settings

PLAN = {
    "name": "Monthly",
    "product": {"id": "course_1", "name": "Course"},
    "amount": 990,
    "currency": "EUR",
    "interval": {"unit": "month", "count": 1},
    "gateway": "stripe",
}


def progressed(order: ChargeSubscription, step: str = "accepted", **changes: Any) -> Message:
    """Return what payments says when it has an order, or the gateway has it."""
    values = _of(order, attempts_made=0) | {"step": step, "progressed_at": START}
    return ChargeProgressed.model_validate(values | changes)


def succeeded(order: ChargeSubscription, **changes: Any) -> ChargeSucceeded:
    """Return what payments says when the money of an order is there."""
    values = _of(order) | {
        "amount": order.amount,
        "currency": order.currency,
        "gateway": order.gateway,
        "gateway_payment_id": f"ch_{order.payment_id[4:]}",
        "succeeded_at": START,
    }
    return ChargeSucceeded.model_validate(values | changes)


def failed(order: ChargeSubscription, **changes: Any) -> ChargeFailed:
    """Return what payments says when an order failed for good; `retry_after_seconds` changes it."""
    values = _of(order) | {
        "kind": "insufficient_funds",
        "code": "insufficient_funds",
        "customer_advice": "add_funds",
        "retry_after_seconds": None,
        "waits_for_order": False,
        "may_still_be_paid": False,
        "failed_at": START,
    }
    return ChargeFailed.model_validate(values | changes)


def _of(order: ChargeSubscription, attempts_made: int = 1) -> dict[str, Any]:
    return {
        "payment_id": order.payment_id,
        "subscription_id": order.subscription_id,
        "attempts_made": attempts_made,
    }


@asynccontextmanager
async def running_runtime(
    database_url: str, redis_url: str, clock: Clock, **settings: Any
) -> AsyncIterator[Runtime]:
    """Open one process's runtime; several share the database."""
    async with open_core(service_settings(redis_url), "scheduler", database_url) as opened:
        made = SchedulerSettings(database_url=database_url, redis_url=redis_url, **settings)
        yield Runtime(replace(opened, clock=clock), made)


@dataclass
class Scheduler:
    """A client of the service, its worker side, and a look into its database."""

    runtime: Runtime
    clock: ManualClock
    api: Api
    receiver: Receiver
    _told: int = field(default=0)
    _seen: int = field(default=0)

    @property
    def core(self) -> Core:
        return self.runtime.core

    async def plan(self, **changes: Any) -> dict[str, Any]:
        """Make a plan and return it as the API shows it."""
        return await self.made("/api/plans", {**PLAN, **changes})

    async def method(
        self, customer_id: str = "cus_1", gateway: str = "stripe", kind: str = "card"
    ) -> str:
        """Let a means of payment be known, and return its id."""
        method_id = new_id("pmt", self.clock())
        await self.rows(_INSERT_METHOD, method_id, customer_id, gateway, kind, self.clock())
        return method_id

    async def subscribe(self, plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Subscribe a customer (`cus_1`), by default with a new card, and return it as shown."""
        body = {"customerId": "cus_1", "planId": plan["id"], **changes}
        if "paymentMethodId" not in body:
            body["paymentMethodId"] = await self.method(body["customerId"], plan["gateway"])
        return await self.made("/api/subscriptions", body)

    async def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST what must succeed, and return it."""
        data = (await self.api.call("POST", path, body)).data
        assert isinstance(data, dict)
        return data

    async def read(self, subscription: dict[str, Any]) -> dict[str, Any]:
        data = (await self.api.call("GET", f"/api/subscriptions/{subscription['id']}")).data
        assert isinstance(data, dict)
        return data

    async def ask(self, subscription: dict[str, Any], what: str, **body: Any) -> Reply:
        """POST to one of the paths below a subscription."""
        return await self.api.call("POST", f"/api/subscriptions/{subscription['id']}/{what}", body)

    async def change(self, subscription: dict[str, Any], **changes: Any) -> Reply:
        """PATCH a subscription."""
        return await self.api.call("PATCH", f"/api/subscriptions/{subscription['id']}", changes)

    async def bill_due(self, now: datetime | None = None) -> int:
        """Do once what is due of those in real time, in one transaction; tell how many there were.

        What is due after it stays due: call it until it returns 0.
        """
        now = now or self.clock()
        async with self.core.database.transaction() as connection:
            ids = [row["id"] for row in await connection.fetch(_DUE, now)]
            due = list((await lock_subscriptions(connection, ids)).values())
            outgoing = await do_what_is_due(self.runtime, connection, due, lambda _: now)
        self.core.publisher.publish(outgoing)
        return len(due)

    async def sent(self) -> list[Message]:
        """Return every message written since this was asked last, in order."""
        found = await self.rows(
            "SELECT id, message_name, payload::text FROM outbox WHERE id > $1 ORDER BY id",
            self._seen,
        )
        self._seen = max([self._seen, *(row["id"] for row in found)])
        return [MESSAGES[row["message_name"]].decode(orjson.loads(row["payload"])) for row in found]

    async def orders(self) -> list[Any]:
        """Return what payments was ordered since `sent` or this was asked last."""
        return [
            message
            for message in await self.sent()
            if any(CHARGES_QUEUE in each.queues for each in SUBSCRIPTIONS[type(message)])
        ]

    async def hear(self, *messages: Message) -> None:
        """Deliver messages of payments in one batch, and wait until they are handled."""
        await self.hear_apart([messages])

    async def hear_apart(self, batches: Sequence[Sequence[Message]]) -> None:
        """Deliver batches at once, and wait until all are handled."""
        numbers = set()
        for messages in batches:
            numbered = []
            for message in messages:
                self._told += 1
                numbered.append((self._told, message))
                numbers.add(self._told)
            (subscription,) = SUBSCRIPTIONS[type(messages[0])]
            queue = subscription.route(messages[0])
            self.receiver.accept(queue, {"batch": batch_of("payments", numbered)})

        async def all_confirmed() -> bool:
            return numbers <= set(await receipts_for(self.core.redis, "payments"))

        await eventually(all_confirmed)

    async def pay_due(self) -> int:
        """Bill what is due and let every charge succeed, until nothing is due; count charges."""
        charges = 0
        while await self.bill_due():
            orders = [each for each in await self.orders() if isinstance(each, ChargeSubscription)]
            charges += len(orders)
            if orders:
                await self.hear(*(succeeded(order) for order in orders))
        return charges

    async def cut_off_requests(self) -> None:
        """Let it be as if each request's process had died between its commit and its answer."""
        await self.rows(
            "UPDATE idempotency_key"
            " SET status = NULL, body = NULL, leased_until = clock_timestamp()"
        )

    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch(statement, *values)

    async def sql(self, statement: str, *values: Any) -> Any:
        async with self.core.database.connection() as connection:
            return await connection.fetchval(statement, *values)

    async def cycles(self, subscription: dict[str, Any]) -> list[asyncpg.Record]:
        """Return the billing cycles of a subscription, in order."""
        return await self.rows(
            "SELECT * FROM billing_cycle WHERE subscription_id = $1 ORDER BY period_start",
            subscription["id"],
        )

    async def jobs(self, subscription: dict[str, Any]) -> list[asyncpg.Record]:
        """Return the jobs of a subscription, in order."""
        return await self.rows(
            "SELECT * FROM job WHERE subscription_id = $1 ORDER BY period_start, charge_number",
            subscription["id"],
        )

    async def story(self, subscription: dict[str, Any]) -> list[str]:
        """Return the events of a subscription's history, in order."""
        found = await self.rows(
            "SELECT event FROM subscription_history WHERE subscription_id = $1 ORDER BY id",
            subscription["id"],
        )
        return [row["event"] for row in found]


_DUE = """
    SELECT id
      FROM subscription
     WHERE due_at <= $1
       AND clock_id IS NULL
       AND problem IS NULL
     ORDER BY due_at, id
"""

_INSERT_METHOD = """
    INSERT INTO payment_method (id, customer_id, gateway, kind, stored_at)
    VALUES ($1, $2, $3, $4, $5)
"""


@asynccontextmanager
async def running_scheduler(
    database_url: str, redis_url: str, *, clock: ManualClock | None = None, **settings: Any
) -> AsyncIterator[Scheduler]:
    """Run the service's both sides; its background tasks are run by hand."""
    clock = clock or ManualClock()
    async with running_runtime(database_url, redis_url, clock, **settings) as runtime:
        core = runtime.core
        receiver = Receiver(core.database, core.publisher, handlers_of(runtime))
        keys = IdempotencyKeys(core.database, core.clock)
        async with serving(routes_of(runtime, keys)) as api:
            yield Scheduler(runtime, clock, api, receiver)
        await receiver.close()
