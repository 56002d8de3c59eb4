"""Lets jobs leave that ended some days ago, a whole day's partition at a time."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta
from typing import Final

import structlog

from services.scheduler import metrics
from services.scheduler.runtime import Runtime
from services.scheduler.store import job_retention as store
from shared.database import Connection
from shared.errors import DatabaseUnavailableError

log = structlog.get_logger()

#: Pause between two sweeps.
INTERVAL_SECONDS: Final = 6 * 3_600

#: Pause before a sweep that PostgreSQL did not answer, or that met a table in use, is repeated.
AGAIN_SECONDS: Final = 60

#: Rows outside of any day's partition that go at a time.
STRAY_MAX: Final = 1_000


async def sweep_for_ever(runtime: Runtime) -> None:
    """Sweep every six hours; of several workers one does it at a time."""
    while True:
        try:
            is_through = await sweep(runtime)
        except DatabaseUnavailableError as error:
            log.warning("job_sweep_waits", reason=error.message)
            is_through = False
        await asyncio.sleep(INTERVAL_SECONDS if is_through else AGAIN_SECONDS)


async def sweep(runtime: Runtime) -> bool:
    """Drop each day's jobs of which the last ended `JOB_KEEP_DAYS` ago; False if not all could go.

    A day stays whole while one of its jobs has not ended, or ended lately.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; what is left goes with the next sweep.
    """
    keep = timedelta(days=runtime.settings.job_keep_days)
    async with runtime.core.database.connection() as connection:
        days = await store.list_days(connection)
    # The last job of a day may have been ordered at its end.
    before = runtime.core.clock().date() - keep
    outcomes = [await _sweep_day(runtime, day, keep) for day in days if day < before]
    while await _delete_stray(runtime, keep) == STRAY_MAX:
        log.info("stray_jobs_deleted", count=STRAY_MAX)
    return "busy" not in outcomes


async def _sweep_day(runtime: Runtime, day: date, keep: timedelta) -> str:
    """Drop a day's jobs if they may go.

    All that takes long is done before the lock, and holds as long as no job of that day changes.
    """
    async with runtime.core.database.transaction() as connection:
        if not await store.take_turn(connection):
            outcome = "busy"
        elif await _is_kept(connection, day, keep):
            outcome = "kept"
        else:
            ended_at = await store.find_last_end(connection, day)
            counts = await store.count_day(connection, day)
            if not await store.lock_jobs(connection):
                outcome = "busy"
            elif await store.find_last_end(connection, day) != ended_at:
                outcome = "kept"  # Late money came for one of them meanwhile.
            else:
                await store.drop_day(connection, day, counts)
                outcome = "dropped"
    metrics.JOB_PARTITIONS_SWEPT.labels(outcome).inc()
    if outcome != "kept":
        log.info("job_day_swept", day=day.isoformat(), outcome=outcome)
    return outcome


async def _is_kept(connection: Connection, day: date, keep: timedelta) -> bool:
    if await store.is_in_hand(connection, day):
        return True
    ended_at = await store.find_last_end(connection, day)
    return ended_at is not None and ended_at > await store.find_bound(connection, keep)


async def _delete_stray(runtime: Runtime, keep: timedelta) -> int:
    async with runtime.core.database.transaction() as connection:
        return len(await store.delete_stray(connection, keep, STRAY_MAX))
