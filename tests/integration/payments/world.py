"""A payments service with a gateway in memory and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import asyncpg
import orjson

from services.payments.handlers import disputes, notices, reconciler, refunds, retry_worker
from services.payments.routes.alerts import alert_routes
from services.payments.routes.controls import control_routes
from services.payments.routes.disputes import dispute_routes
from services.payments.routes.holds import hold_routes
from services.payments.routes.ledger import ledger_routes
from services.payments.routes.payment_methods import payment_method_routes
from services.payments.routes.payments import payment_routes
from services.payments.routes.profiles import profile_routes
from services.payments.routes.refunds import refund_routes
from services.payments.routes.retries import retry_routes
from services.payments.routes.settlement_checks import settlement_check_routes
from services.payments.routes.statistics import statistics_routes
from services.payments.runtime import Runtime, open_runtime
from services.payments.settings import PaymentsSettings
from shared.clock import Clock
from shared.contracts.base import Message
from shared.contracts.webhook import DisputeNoticed, NoticeReceived
from shared.gateways.registration import SpendingLimits
from shared.identifiers import is_id
from shared.messaging.receiver import Receiver
from shared.process import Core, open_core
from shared.web.idempotency import IdempotencyKeys
from tests.support.clocks import ManualClock
from tests.support.fake_gateway import FakeGateway
from tests.support.http_api import Api, Reply, serving
from tests.support.messages import notice_received
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import gateways_of_tests, service_settings

ORDER = {
    "gateway": "sslcommerz",
    "amount": 115_000,
    "currency": "BDT",
    "customer": {"id": "cus_1", "name": "Ada", "email": "ada@shop.example", "phone": "0170000"},
    "product": {"id": "course_1", "name": "Course"},
    "returnUrl": "https://shop.example/thanks",
    "metadata": {"order": "7"},
}


def order(**changes: Any) -> dict[str, Any]:
    """Return the body of a request for a payment; None leaves a field out."""
    body = {**ORDER, **changes}
    return {name: value for name, value in body.items() if value is not None}


def payments_settings(database_url: str, redis_url: str) -> PaymentsSettings:
    return PaymentsSettings(
        database_url=database_url,
        redis_url=redis_url,
        gateways=gateways_of_tests(),
    )


async def look_at_due(runtime: Runtime) -> int:
    """Look at one batch of due payments to the end, and return how many there were."""
    looks = await reconciler.take_up_due(runtime, 100)
    await asyncio.gather(*looks)
    return len(looks)


async def make_due_retries(runtime: Runtime) -> int:
    """Make the retries that are due to the end, and return how many there were."""
    made = await retry_worker.take_up_due(runtime, 100)
    await asyncio.gather(*made)
    return len(made)


@asynccontextmanager
async def running_runtime(
    database_url: str,
    redis_url: str,
    gateway: FakeGateway,
    clock: Clock,
    spending_limits: Mapping[str, SpendingLimits] | None = None,
) -> AsyncIterator[Runtime]:
    """Open one process's runtime; several share the database."""
    settings = payments_settings(database_url, redis_url)
    async with open_core(service_settings(redis_url), "payments", database_url) as opened:
        core = replace(opened, clock=clock)
        async with open_runtime(core, settings) as runtime:
            runtime.retries.jitter = lambda: 0.0
            yield replace(
                runtime,
                gateways={gateway.name: gateway},
                spending_limits=spending_limits or {gateway.name: SpendingLimits(0, 0)},
            )


@dataclass
class Payments:
    """A client of the service, its worker side, and a look into its database."""

    runtime: Runtime
    gateway: FakeGateway
    clock: ManualClock
    api: Api
    receiver: Receiver
    _sent: int = field(default=0)

    @property
    def core(self) -> Core:
        return self.runtime.core

    async def post(self, key: str | None = None, **changes: Any) -> Reply:
        return await self.api.call("POST", "/api/payments", order(**changes), idempotency_key=key)

    async def create(self, **changes: Any) -> dict[str, Any]:
        """Create a payment and return it as the API shows it."""
        data = (await self.post(**changes)).data
        assert isinstance(data, dict)
        return data

    async def read(self, payment_id: str) -> dict[str, Any]:
        data = (await self.api.call("GET", f"/api/payments/{payment_id}")).data
        assert isinstance(data, dict)
        return data

    async def notify(self, *notices: Message) -> None:
        """Deliver notices in one batch and wait for their receipts."""
        numbered: list[tuple[int, Message]] = []
        for notice in notices:
            self._sent += 1
            numbered.append((self._sent, notice))
        self.receiver.accept("payments.medium", {"batch": batch_of("webhook", numbered)})

        async def all_confirmed() -> bool:
            receipts = set(await receipts_for(self.core.redis, "webhook"))
            return {id_ for id_, _ in numbered} <= receipts

        await eventually(all_confirmed)

    async def notify_of(self, payment: dict[str, Any], **changes: Any) -> None:
        """Deliver a notice about a payment."""
        await self.notify(notice_received(payment["gatewayReference"], **changes))

    async def paid(self, payment: dict[str, Any], **options: Any) -> None:
        """Let the customer pay and the notice arrive."""
        charge = self.gateway.charge(payment["gatewayReference"], **options)
        await self.notify_of(payment, validation_id=charge.validation_id)

    async def look(self) -> int:
        """Let the reconciler look once at what is due."""
        return await look_at_due(self.runtime)

    async def refund(
        self, payment: dict[str, Any], key: str | None = None, **body: Any
    ) -> dict[str, Any]:
        """Give money of a payment back and return the refund as the API shows it."""
        reply = await self.try_refund(payment, key, **body)
        assert reply.status == 201, reply.json
        data = reply.data
        assert isinstance(data, dict)
        return data

    async def try_refund(
        self, payment: dict[str, Any], key: str | None = None, **body: Any
    ) -> Reply:
        path = f"/api/payments/{payment['id']}/refunds"
        body = {"reason": "changed their mind", **body}
        return await self.api.call("POST", path, body, idempotency_key=key)

    async def read_refund(self, refund: dict[str, Any]) -> dict[str, Any]:
        data = (await self.api.call("GET", f"/api/refunds/{refund['id']}")).data
        assert isinstance(data, dict)
        return data

    async def carry_out_refunds(self) -> int:
        """Carry out the refunds that are due to the end, and return how many there were."""
        work = await refunds.take_up_refunds(self.runtime, 100)
        await asyncio.gather(*work)
        return len(work)

    async def look_at_disputes(self) -> int:
        """Look at the disputes that are due to the end, and return how many there were."""
        looks = await disputes.take_up_disputes(self.runtime, 100)
        await asyncio.gather(*looks)
        return len(looks)

    async def facts(self, kind: type[Message]) -> list[dict[str, Any]]:
        """Return what was announced of one kind, in order."""
        found = await self.rows(
            "SELECT payload::text FROM outbox WHERE message_name = $1 ORDER BY id", kind.name
        )
        return [orjson.loads(row["payload"]) for row in found]

    async def sql(self, statement: str, *values: Any) -> Any:
        async with self.core.database.connection() as connection:
            return await connection.fetchval(statement, *values)

    async def rows(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch(statement, *values)

    async def retry(self) -> int:
        """Let the worker make the retries that are due."""
        return await make_due_retries(self.runtime)

    async def story(self, payment: dict[str, Any]) -> list[str]:
        """Return the events of a payment's history, in order."""
        found = await self.rows(
            "SELECT event FROM payment_history WHERE payment_id = $1 ORDER BY id", payment["id"]
        )
        return [row["event"] for row in found]

    async def announcements(self) -> list[dict[str, Any]]:
        """Return what was written to the outbox for enrollment."""
        found = await self.rows(
            "SELECT payload::text FROM outbox WHERE queue = 'enrollment.grants' ORDER BY id"
        )
        return [orjson.loads(row["payload"]) for row in found]

    async def dead_letters(self) -> list[asyncpg.Record]:
        return await self.rows("SELECT * FROM dead_letter ORDER BY id")


@asynccontextmanager
async def running_payments(
    database_url: str,
    redis_url: str,
    *,
    gateway: FakeGateway | None = None,
    clock: ManualClock | None = None,
    spending_limits: Mapping[str, SpendingLimits] | None = None,
) -> AsyncIterator[Payments]:
    """Run the service's both sides; its background tasks are run by hand."""
    gateway, clock = gateway or FakeGateway(), clock or ManualClock()
    async with running_runtime(database_url, redis_url, gateway, clock, spending_limits) as runtime:
        core = runtime.core
        keys = IdempotencyKeys(core.database, core.clock)
        routes = [
            *payment_routes(runtime, keys),
            *payment_method_routes(runtime, keys),
            *retry_routes(runtime, keys),
            *hold_routes(runtime, keys),
            *control_routes(runtime, keys),
            *profile_routes(runtime, keys),
            *refund_routes(runtime, keys),
            *dispute_routes(runtime),
            *ledger_routes(runtime),
            *settlement_check_routes(runtime, keys),
            *statistics_routes(runtime),
            *alert_routes(runtime),
        ]
        receiver = Receiver(
            core.database,
            core.publisher,
            {
                NoticeReceived: partial(notices.check_notices, runtime),
                DisputeNoticed: partial(disputes.check_disputes, runtime),
            },
        )
        async with serving(routes) as api:
            yield Payments(runtime, gateway, clock, api, receiver)
        await receiver.close()


def is_payment_id(text: Any) -> bool:
    return isinstance(text, str) and is_id(text, "pay")
