"""An enrollment service: its HTTP side, its worker side, and a look into its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import asyncpg

from services.enrollment.handlers import access, enrollments, revocations
from services.enrollment.routes import enrollment_routes
from services.enrollment.runtime import Runtime, open_runtime
from services.enrollment.settings import EnrollmentSettings
from shared.clock import Clock, system_clock
from shared.contracts.base import Message
from shared.contracts.payments import (
    DisputeLost,
    DisputeWon,
    PaymentRefunded,
    PaymentSucceeded,
    RefundReturned,
)
from shared.contracts.scheduler import AccessGranted, AccessRevoked
from shared.contracts.subscriptions import ACCESS_QUEUE
from shared.messaging.receiver import Receiver
from shared.process import Core, open_core
from shared.web.idempotency import IdempotencyKeys
from tests.support.http_api import Api, Reply, serving
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import service_settings


def settings_of_tests(**settings: Any) -> EnrollmentSettings:
    return EnrollmentSettings(database_url="unused", **settings)


@asynccontextmanager
async def running_receiver(core: Core, **settings: Any) -> AsyncIterator[Receiver]:
    """Run one process's worker side; several share the database."""
    async with open_runtime(core, settings_of_tests(**settings)) as runtime:
        receiver = Receiver(
            core.database,
            core.publisher,
            {
                PaymentSucceeded: partial(enrollments.enroll, runtime),
                PaymentRefunded: partial(revocations.hear_of_refunds, runtime),
                RefundReturned: partial(revocations.hear_of_returns, runtime),
                DisputeLost: partial(revocations.hear_of_disputes, runtime),
                DisputeWon: partial(revocations.hear_of_disputes, runtime),
                AccessGranted: partial(access.follow_subscriptions, runtime),
                AccessRevoked: partial(access.follow_subscriptions, runtime),
            },
        )
        yield receiver
        await receiver.close()


@dataclass
class Enrollments:
    core: Core
    runtime: Runtime
    api: Api
    receiver: Receiver
    _sent: int = field(default=0)

    async def deliver(self, *messages: Message, to: Receiver | None = None) -> None:
        """Deliver messages of payments in one batch and wait for their receipts."""
        await self._deliver("enrollment.grants", "payments", messages, to)

    async def hear(self, *messages: Message, to: Receiver | None = None) -> None:
        """Deliver messages of the scheduler in one batch and wait for their receipts."""
        await self._deliver(ACCESS_QUEUE, "scheduler", messages, to)

    async def _deliver(
        self, queue: str, sender: str, messages: Sequence[Message], to: Receiver | None
    ) -> None:
        numbered: list[tuple[int, Message]] = []
        for message in messages:
            self._sent += 1
            numbered.append((self._sent, message))
        (to or self.receiver).accept(queue, {"batch": batch_of(sender, numbered)})

        async def all_confirmed() -> bool:
            receipts = set(await receipts_for(self.core.redis, sender))
            return {id_ for id_, _ in numbered} <= receipts

        await eventually(all_confirmed)

    async def pay(self, payment_id: str = "pay_1", **changes: Any) -> None:
        await self.deliver(payment_succeeded(payment_id, **changes))

    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch(statement, *values)

    async def enrollments(self) -> list[asyncpg.Record]:
        return await self.rows("SELECT * FROM enrollment ORDER BY customer_id, product_id")

    async def further_payments(self) -> dict[str, str]:
        """Return the effect of each further payment."""
        found = await self.rows("SELECT payment_id, effect FROM further_payment")
        return {row["payment_id"]: row["effect"] for row in found}

    async def reversals(self) -> dict[tuple[str, str], tuple[str, str | None]]:
        """Return (payment, occasion) of what went back, each with its revocation and reason."""
        found = await self.rows("SELECT * FROM payment_reversal")
        return {
            (row["payment_id"], row["occasion"]): (row["revocation"], row["reason"])
            for row in found
        }

    async def story(self) -> list[tuple[str, str | None]]:
        """Return what happened, and by which payment."""
        found = await self.rows("SELECT event, payment_id FROM enrollment_history ORDER BY id")
        return [(row["event"], row["payment_id"]) for row in found]

    async def lines(self) -> list[tuple[str, str | None, str | None]]:
        """Return what happened, by which subscription and why."""
        found = await self.rows(
            "SELECT event, subscription_id, reason FROM enrollment_history ORDER BY id"
        )
        return [(row["event"], row["subscription_id"], row["reason"]) for row in found]

    async def grant(
        self, customer: str = "cus_1", product: str = "course_1", **options: Any
    ) -> Reply:
        body = {"customerId": customer, "productId": product, "reason": "a gift"}
        return await self.api.call("POST", "/api/enrollments", body, **options)

    async def revoke(self, enrollment_id: str, **options: Any) -> Reply:
        path = f"/api/enrollments/{enrollment_id}/revoke"
        return await self.api.call("POST", path, {"reason": "refunded"}, **options)

    async def list(self, query: str = "") -> Mapping[str, Any]:
        data = (await self.api.call("GET", f"/api/enrollments?{query}", key="reader")).data
        assert isinstance(data, dict)
        return data


@asynccontextmanager
async def running_enrollments(
    database_url: str, redis_url: str, clock: Clock = system_clock, **settings: Any
) -> AsyncIterator[Enrollments]:
    async with open_core(service_settings(redis_url), "enrollment", database_url) as opened:
        core = replace(opened, clock=clock)
        async with (
            open_runtime(core, settings_of_tests(**settings)) as runtime,
            running_receiver(core, **settings) as receiver,
            serving(enrollment_routes(runtime, IdempotencyKeys(core.database, core.clock))) as api,
        ):
            yield Enrollments(core, runtime, api, receiver)
