"""Jobs: how far each charge has come, and how many there are."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import structlog

from services.scheduler import metrics
from services.scheduler.domain.model import JobStatus
from services.scheduler.runtime import Runtime
from services.scheduler.store import job_views
from services.scheduler.store.job_views import JobView, Patience
from shared.database import Connection
from shared.errors import DatabaseUnavailableError, NotFoundError
from shared.identifiers import is_id

log = structlog.get_logger()

#: Rows of the tally that are added up at once; more are taken by the next run, at once.
FOLDED_MAX: Final = 5_000

#: Pause between two runs. What is not added up yet is counted all the same.
FOLD_INTERVAL_SECONDS: Final = 10.0


class JobCounts(NamedTuple):
    """How many jobs there are, and of how many in hand nothing was heard for too long."""

    by_status: dict[JobStatus, int]
    unresolved: int


async def read_job(runtime: Runtime, job_id: str) -> JobView:
    """Return a job.

    Raises:
        NotFoundError: there is none, or it has left.
    """
    job = None
    if is_id(job_id, "job"):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            job = await job_views.find_job(connection, job_id, _patience(runtime))
    if job is None:
        raise NotFoundError(f"no job has the id {job_id[:40]!r}, or it has left")
    return job


async def list_jobs(
    runtime: Runtime,
    *,
    status: JobStatus | None,
    is_unresolved: bool,
    cursor: str | None,
    limit: int,
) -> list[JobView]:
    """Return jobs, the newest first."""
    patience = _patience(runtime)
    async with runtime.core.database.connection() as connection:
        if is_unresolved:
            return await job_views.list_unresolved(connection, patience, cursor=cursor, limit=limit)
        return await job_views.list_jobs(
            connection, patience, status=status, cursor=cursor, limit=limit
        )


async def list_jobs_of(
    runtime: Runtime, subscription_id: str, *, cursor: str | None, limit: int
) -> list[JobView]:
    """Return the jobs of a subscription, the newest first.

    Raises:
        NotFoundError: no subscription has this id.
    """
    if is_id(subscription_id, "sub"):
        async with runtime.core.database.connection() as connection:
            found = await job_views.list_jobs_of(
                connection, subscription_id, _patience(runtime), cursor=cursor, limit=limit
            )
            if found or await job_views.is_subscription(connection, subscription_id):
                return found
    raise NotFoundError(f"no subscription has the id {subscription_id[:40]!r}")


async def count_jobs(runtime: Runtime) -> JobCounts:
    """Return how many jobs there are."""
    async with runtime.core.database.connection() as connection:
        return await _count(runtime, connection)


async def _count(runtime: Runtime, connection: Connection) -> JobCounts:
    return JobCounts(*await job_views.count_jobs(connection, _patience(runtime)))


def _patience(runtime: Runtime) -> Patience:
    return Patience.of(runtime.core.clock, runtime.settings.charge_unresolved_after)


async def measure(runtime: Runtime) -> None:
    """Set the gauges of jobs.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    counts = await count_jobs(runtime)
    for status, number in counts.by_status.items():
        metrics.JOBS.labels(status).set(number)
    metrics.CHARGES_UNRESOLVED.set(counts.unresolved)


async def fold_tally(runtime: Runtime) -> int:
    """Add up what was counted, and return how many rows that were.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; nothing is lost, it is done later.
    """
    async with runtime.core.database.transaction() as connection:
        return await job_views.fold_tally(connection, FOLDED_MAX)


async def fold_tally_for_ever(runtime: Runtime) -> None:
    """Add up, for ever, what was counted; of several workers one does it at a time."""
    while True:
        try:
            count = await fold_tally(runtime)
        except DatabaseUnavailableError as error:
            log.warning("job_tally_waits", reason=error.message)
            count = 0
        if count < FOLDED_MAX:
            await asyncio.sleep(FOLD_INTERVAL_SECONDS)
