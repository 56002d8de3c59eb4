"""Composition root of the enrollment service's HTTP process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.enrollment.routes import enrollment_routes
from services.enrollment.runtime import open_runtime
from services.enrollment.settings import EnrollmentSettings
from services.enrollment.store.enrollments import PARTITIONED_TABLES
from shared.migrations import MESSAGING, WEB, Component
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys
from shared.web.message_routes import message_routes
from shared.web.operator_action_routes import action_routes

__all__ = ["MIGRATIONS", "PARTITIONED_TABLES", "http_part"]

MIGRATIONS: Final = (
    MESSAGING,
    WEB,
    Component("enrollment", Path(__file__).resolve().parent / "migrations"),
)


@asynccontextmanager
async def http_part(settings: EnrollmentSettings) -> AsyncIterator[Part]:
    """Open the HTTP side."""
    async with (
        open_core(settings, "enrollment", settings.database_url) as core,
        open_runtime(core, settings) as runtime,
    ):
        keys = IdempotencyKeys(core.database, core.clock)
        yield Part(
            name="enrollment-http",
            routes=[
                *enrollment_routes(runtime, keys),
                *message_routes(core, keys, "/api/enrollments"),
                *action_routes(core.database, "/api/enrollments/operator-actions"),
            ],
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            measure=core.measure,
        )
