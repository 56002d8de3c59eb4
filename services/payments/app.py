"""Composition root of the payments service's HTTP process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.payments import metrics
from services.payments.handlers.flow_sync import in_step
from services.payments.routes.alerts import alert_routes
from services.payments.routes.controls import control_routes
from services.payments.routes.disputes import dispute_routes
from services.payments.routes.gateways import gateway_routes
from services.payments.routes.holds import hold_routes
from services.payments.routes.ledger import ledger_routes
from services.payments.routes.payment_methods import payment_method_routes
from services.payments.routes.payments import payment_routes
from services.payments.routes.profiles import profile_routes
from services.payments.routes.refunds import refund_routes
from services.payments.routes.retries import retry_routes
from services.payments.routes.settlement_checks import settlement_check_routes
from services.payments.routes.statistics import statistics_routes
from services.payments.runtime import open_runtime
from services.payments.settings import PaymentsSettings
from services.payments.store.tables import PARTITIONED_TABLES
from services.payments.store.unresolved import count_unresolved
from shared.migrations import MESSAGING, WEB, Component
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys
from shared.web.message_routes import message_routes

__all__ = ["MIGRATIONS", "PARTITIONED_TABLES", "http_part"]

MIGRATIONS: Final = (
    MESSAGING,
    WEB,
    Component("payments", Path(__file__).resolve().parent / "migrations"),
)


@asynccontextmanager
async def http_part(settings: PaymentsSettings) -> AsyncIterator[Part]:
    """Open the HTTP side. Redis may be away: what is stored is published later."""
    async with (
        open_core(settings, "payments", settings.database_url) as core,
        open_runtime(core, settings) as runtime,
        in_step(runtime, "http") as keep_in_step,
    ):
        keys = IdempotencyKeys(core.database, core.clock)

        async def measure() -> None:
            await core.measure()
            async with core.database.connection() as connection:
                unresolved = await count_unresolved(
                    connection, core.clock(), settings.payment_expires_after
                )
            metrics.UNRESOLVED.set(unresolved)

        yield Part(
            name="payments-http",
            routes=[
                *payment_routes(runtime, keys),
                *payment_method_routes(runtime, keys),
                *retry_routes(runtime, keys),
                *gateway_routes(runtime, keys),
                *hold_routes(runtime, keys),
                *control_routes(runtime, keys),
                *profile_routes(runtime, keys),
                *refund_routes(runtime, keys),
                *dispute_routes(runtime),
                *ledger_routes(runtime),
                *settlement_check_routes(runtime, keys),
                *statistics_routes(runtime),
                *alert_routes(runtime),
                *message_routes(core, keys, "/api/payments"),
            ],
            tasks=[keep_in_step],
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            measure=measure,
        )
