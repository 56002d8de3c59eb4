"""The simulator's process: its routes, and the tasks that send notices and end sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from services.simulator import notices
from services.simulator.handlers import Runtime
from services.simulator.routes import simulator_routes
from services.simulator.settings import SimulatorSettings
from shared.clock import system_clock
from shared.database import Database
from shared.migrations import Component
from shared.partitions import PartitionedTable
from shared.process import Part

SERVICE: Final = "simulator"

MIGRATIONS: Final = (Component(SERVICE, Path(__file__).resolve().parent / "migrations"),)

PARTITIONED_TABLES: Final[tuple[PartitionedTable, ...]] = ()


@asynccontextmanager
async def http_part(settings: SimulatorSettings) -> AsyncIterator[Part]:
    """Open the simulator.

    Raises:
        DatabaseUnavailableError: PostgreSQL does not answer.
    """
    database = Database(settings.database_url, SERVICE)
    await database.open()
    runtime = Runtime(
        database=database,
        clock=system_clock,
        store_id=settings.sslcommerz_store_id,
        store_password=settings.sslcommerz_store_password,
        public_url=settings.public_url.rstrip("/"),
        session_seconds=settings.session_seconds,
        notices_due=asyncio.Event(),
    )
    try:
        async with notices.open_client() as client:
            yield Part(
                name=SERVICE,
                routes=simulator_routes(runtime),
                tasks=(notices.Sender(runtime, client).run, partial(notices.end_sessions, runtime)),
                ping_database=database.ping,
            )
    finally:
        await database.close()
