"""Composition root of the enrollment service's HTTP process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.enrollment.routes import enrollment_routes
from services.enrollment.runtime import open_runtime
from services.enrollment.settings import EnrollmentSettings
from services.enrollment.store import PARTITIONED_TABLES
from shared.migrations import MESSAGING, WEB, Component
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys

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
        open_runtime(core) as runtime,
    ):
        yield Part(
            name="enrollment-http",
            routes=enrollment_routes(runtime, IdempotencyKeys(core.database, core.clock)),
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            measure=core.measure,
        )
