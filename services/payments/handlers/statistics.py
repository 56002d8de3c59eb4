"""Statistics and jobs: what payments came to, what waits, and how one payment stands."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.payments.domain.jobs import JobState
from services.payments.domain.limits import Limits
from services.payments.domain.statistics import StepCount, Tally, add_up
from services.payments.flow.configured import in_force
from services.payments.handlers.backlog import Backlog, read_backlog
from services.payments.runtime import Runtime
from services.payments.store import jobs as job_store
from services.payments.store import statistics as statistics_store
from services.payments.store.controls import read_controls
from services.payments.store.jobs import Job, JobStory
from services.payments.store.statistics import GatewayCalls
from shared.errors import DatabaseUnavailableError, NotFoundError
from shared.identifiers import is_id

log = structlog.get_logger()

#: Counts are folded when their minute is over for so long: clocks of processes differ a little.
FOLD_AFTER: Final = timedelta(seconds=10)

#: Pause between two folds. What is not folded yet is counted all the same.
FOLD_INTERVAL_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """What payments came to: ever, and lately."""

    since: datetime
    until: datetime
    ever: Tally
    lately: Tally
    lately_by_gateway: Mapping[str, Tally]
    calls: GatewayCalls
    backlog: Backlog
    jobs: Mapping[JobState, int]
    limits: Limits
    profile: str


async def read_statistics(runtime: Runtime, window: timedelta) -> Statistics:
    """Return statistics of all times and of the whole minutes of a window up to now.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    until = runtime.core.clock()
    since = (until - window).replace(second=0, microsecond=0)
    ever, lately = await _read_counts(runtime, since)
    by_gateway: defaultdict[str, list[StepCount]] = defaultdict(list)
    for count in lately:
        by_gateway[count.gateway].append(count)
    async with runtime.core.database.connection() as connection:
        calls = await statistics_store.read_calls(connection, since)
        controls = await read_controls(connection)
    tally = add_up(ever)
    return Statistics(
        since=since,
        until=until,
        ever=tally,
        lately=add_up(lately),
        lately_by_gateway={name: add_up(counts) for name, counts in sorted(by_gateway.items())},
        calls=calls,
        backlog=await read_backlog(runtime),
        jobs=await _count_jobs(runtime, tally),
        limits=in_force(runtime.settings, controls),
        profile=controls.profile_name,
    )


async def _read_counts(
    runtime: Runtime, since: datetime
) -> tuple[list[StepCount], list[StepCount]]:
    async with runtime.core.database.connection() as connection:
        ever = await statistics_store.read_totals(connection)
        return ever, await statistics_store.read_since_by_class(connection, since)


async def count_jobs(runtime: Runtime) -> dict[JobState, int]:
    """Count payments by how they stand as jobs.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    async with runtime.core.database.connection() as connection:
        ever = await statistics_store.read_totals(connection)
    return await _count_jobs(runtime, add_up(ever))


async def _count_jobs(runtime: Runtime, ever: Tally) -> dict[JobState, int]:
    async with runtime.core.database.connection() as connection:
        live = await job_store.count_live(connection, runtime.core.clock())
    return {
        JobState.WAITING: live.waiting,
        JobState.ACTIVE: live.active,
        JobState.COMPLETED: ever.completed_now,
        JobState.FAILED: ever.failed_now,
        JobState.DELAYED: live.delayed,
        JobState.HELD: live.held,
    }


async def list_jobs(
    runtime: Runtime, state: JobState, *, before_id: str | None, limit: int
) -> Sequence[Job]:
    """Return jobs of a state, the newest payment first.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        return await job_store.list_jobs(connection, state, now, before_id=before_id, limit=limit)


async def read_job(runtime: Runtime, payment_id: str) -> tuple[Job, JobStory]:
    """Return one payment as a job, with its attempts and its story.

    Raises:
        NotFoundError: no payment has this id.
    """
    if is_id(payment_id, "pay"):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            for job in await job_store.find_jobs(connection, [payment_id]):
                return job, await job_store.read_story(connection, payment_id)
    raise NotFoundError(f"no payment has the id {payment_id[:40]!r}")


async def fold(runtime: Runtime) -> int:
    """Fold what was counted in minutes that are over, and return how many rows that were.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; nothing is lost, it is folded later.
    """
    now = runtime.core.clock()
    before = (now - FOLD_AFTER).replace(second=0, microsecond=0)
    async with runtime.core.database.transaction() as connection:
        count = await statistics_store.fold(connection, before)
    if count == 0:
        async with runtime.core.database.connection() as connection:
            await statistics_store.forget_old_minutes(connection, now)
    return count


async def fold_for_ever(runtime: Runtime) -> None:
    """Fold, for ever, what was counted; of several workers one does it at a time."""
    while True:
        try:
            count = await fold(runtime)
        except DatabaseUnavailableError as error:
            log.warning("statistics_wait", reason=error.message)
            count = 0
        if count < statistics_store.FOLDED_MAX:
            await asyncio.sleep(FOLD_INTERVAL_SECONDS)
