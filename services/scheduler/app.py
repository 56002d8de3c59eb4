"""Composition root of the scheduler's HTTP process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.scheduler.handlers import analytics, jobs, scan
from services.scheduler.routes.analytics import analytics_routes
from services.scheduler.routes.jobs import job_routes
from services.scheduler.routes.plans import plan_routes
from services.scheduler.routes.set_aside import set_aside_routes
from services.scheduler.routes.subscription_commands import command_routes
from services.scheduler.routes.subscriptions import subscription_routes
from services.scheduler.routes.test_clocks import clock_routes
from services.scheduler.runtime import Runtime
from services.scheduler.settings import SchedulerSettings
from services.scheduler.store.tables import PARTITIONED_TABLES
from shared.migrations import MESSAGING, WEB, Component
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys
from shared.web.message_routes import message_routes
from shared.web.operator_action_routes import action_routes
from shared.web.routes import Route

__all__ = ["MIGRATIONS", "PARTITIONED_TABLES", "http_part", "routes_of"]

MIGRATIONS: Final = (
    MESSAGING,
    WEB,
    Component("scheduler", Path(__file__).resolve().parent / "migrations"),
)


@asynccontextmanager
async def http_part(settings: SchedulerSettings) -> AsyncIterator[Part]:
    """Open the HTTP side. Redis may be away: what is stored is published later."""
    async with open_core(settings, "scheduler", settings.database_url) as core:
        keys = IdempotencyKeys(core.database, core.clock)
        runtime = Runtime(core, settings)

        async def measure() -> None:
            await core.measure()
            await analytics.measure(runtime)
            await jobs.measure(runtime)
            await scan.measure(runtime)

        yield Part(
            name="scheduler-http",
            routes=routes_of(runtime, keys),
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            measure=measure,
        )


def routes_of(runtime: Runtime, keys: IdempotencyKeys) -> list[Route]:
    """Return every route. A literal path stands before one with a parameter in its place."""
    core = runtime.core
    return [
        *plan_routes(runtime, keys),
        *analytics_routes(runtime),
        *job_routes(runtime),
        *clock_routes(runtime, keys),
        *message_routes(core, keys, "/api/subscriptions"),
        *action_routes(core.database, "/api/subscriptions/operator-actions"),
        *subscription_routes(runtime, keys),
        *command_routes(runtime, keys),
        *set_aside_routes(runtime, keys),
    ]
