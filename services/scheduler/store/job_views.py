"""The SQL statements that show, list and count jobs.

Nothing here walks through jobs that have ended: the newest come first in the primary key, those in
hand are in an index by status, and how many there are was counted when they changed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

from services.scheduler.domain.model import Job, JobStatus
from services.scheduler.store.rows import job_in
from shared.clock import Clock
from shared.database import Connection
from shared.identifiers import first_id_at

#: Above every id of a job.
_LAST: Final = "job_~"

#: Jobs that are counted as unresolved; past this a precise number helps nobody.
UNRESOLVED_MAX: Final = 10_000


class JobView(NamedTuple):
    """A job with what is shown beside it. `updated_at` is real time on test clocks, too."""

    job: Job
    customer_id: str
    plan_id: str
    payment_method_id: str | None
    gateway: str
    amount: int
    currency: str
    processed_at: datetime | None
    updated_at: datetime
    is_unresolved: bool


class Patience(NamedTuple):
    """How long nothing may be heard of a job that has not ended, and which could be as old."""

    ordered_before_id: str
    wait: timedelta

    @classmethod
    def of(cls, clock: Clock, wait: timedelta) -> Patience:
        """Return the patience of a service at the present moment."""
        return cls(first_id_at("job", clock() - wait), wait)


_JOB_COLUMNS: Final = ", ".join(f"job.{name}" for name in Job._fields)

# Nothing was heard of it for as long as $1, and no try has a later time. On a test clock the time
# of a try is not to be compared with ours: it waits for whoever moves the clock.
_IS_UNRESOLVED: Final = """
    (job.status IN ('waiting', 'active', 'delayed')
     AND job.updated_at < clock_timestamp() - $1::interval
     AND (job.retry_at IS NULL
          OR subscription.clock_id IS NULL
             AND job.retry_at < clock_timestamp() - $1::interval))
"""

_COLUMNS: Final = f"""
    {_JOB_COLUMNS}, job.plan_id, job.payment_method_id, job.gateway, job.amount, job.currency,
    job.processed_at, job.updated_at, subscription.customer_id, {_IS_UNRESOLVED} AS is_unresolved
"""


def _view(record: asyncpg.Record) -> JobView:
    return JobView(job_in(record), *(record[name] for name in JobView._fields[1:]))


_FIND: Final = f"""
    SELECT {_COLUMNS}
      FROM job
      JOIN subscription ON subscription.id = job.subscription_id
     WHERE job.id = $2
"""  # noqa: S608 - made of the names above


async def find_job(connection: Connection, job_id: str, patience: Patience) -> JobView | None:
    """Return a job; None when there is none, or it has left."""
    record = await connection.fetchrow(_FIND, patience.wait, job_id)
    return None if record is None else _view(record)


_LIST: Final = f"""
    SELECT {_COLUMNS}
      FROM job
      JOIN subscription ON subscription.id = job.subscription_id
     WHERE job.id < $2
     ORDER BY job.id DESC
     LIMIT $3
"""  # noqa: S608 - made of the names above

_LIST_OF_STATUS: Final = f"""
    SELECT {_COLUMNS}
      FROM job
      JOIN subscription ON subscription.id = job.subscription_id
     WHERE job.status = $4
       AND job.id < $2
     ORDER BY job.id DESC
     LIMIT $3
"""  # noqa: S608 - made of the names above

_LIST_OF_SUBSCRIPTION: Final = f"""
    SELECT {_COLUMNS}
      FROM job
      JOIN subscription ON subscription.id = job.subscription_id
     WHERE job.subscription_id = $4
       AND job.id < $2
     ORDER BY job.id DESC
     LIMIT $3
"""  # noqa: S608 - made of the names above

_LIST_UNRESOLVED: Final = f"""
    SELECT {_COLUMNS}
      FROM job
      JOIN subscription ON subscription.id = job.subscription_id
     WHERE job.status IN ('waiting', 'active', 'delayed')
       AND job.id < least($2, $4)
       AND {_IS_UNRESOLVED}
     ORDER BY job.id DESC
     LIMIT $3
"""  # noqa: S608 - made of the names above


async def list_jobs(
    connection: Connection,
    patience: Patience,
    *,
    status: JobStatus | None,
    cursor: str | None,
    limit: int,
) -> list[JobView]:
    """Return jobs, the newest first."""
    before = cursor or _LAST
    if status is None:
        records = await connection.fetch(_LIST, patience.wait, before, limit)
    else:
        records = await connection.fetch(_LIST_OF_STATUS, patience.wait, before, limit, status)
    return [_view(record) for record in records]


async def list_jobs_of(
    connection: Connection,
    subscription_id: str,
    patience: Patience,
    *,
    cursor: str | None,
    limit: int,
) -> list[JobView]:
    """Return the jobs of a subscription, the newest first."""
    records = await connection.fetch(
        _LIST_OF_SUBSCRIPTION, patience.wait, cursor or _LAST, limit, subscription_id
    )
    return [_view(record) for record in records]


_EXISTS: Final = "SELECT EXISTS (SELECT FROM subscription WHERE id = $1)"


async def is_subscription(connection: Connection, subscription_id: str) -> bool:
    """Tell whether there is a subscription, which may have no jobs."""
    return bool(await connection.fetchval(_EXISTS, subscription_id))


async def list_unresolved(
    connection: Connection, patience: Patience, *, cursor: str | None, limit: int
) -> list[JobView]:
    """Return jobs in hand of which nothing was heard for too long, the newest first."""
    records = await connection.fetch(
        _LIST_UNRESOLVED, patience.wait, cursor or _LAST, limit, patience.ordered_before_id
    )
    return [_view(record) for record in records]


_COUNT: Final = """
    SELECT status, sum(jobs)::bigint AS jobs
      FROM job_tally
     GROUP BY status
"""

_COUNT_UNRESOLVED: Final = f"""
    SELECT count(*)
      FROM (SELECT
              FROM job
              JOIN subscription ON subscription.id = job.subscription_id
             WHERE job.status IN ('waiting', 'active', 'delayed')
               AND job.id < $2
               AND {_IS_UNRESOLVED}
             LIMIT $3) AS found
"""  # noqa: S608 - made of the names above


async def count_jobs(
    connection: Connection, patience: Patience
) -> tuple[dict[JobStatus, int], int]:
    """Return how many jobs there are of each status, and how many are unresolved.

    Of these no more than `UNRESOLVED_MAX` are counted.
    """
    counts = dict.fromkeys(JobStatus, 0)
    for record in await connection.fetch(_COUNT):
        counts[JobStatus(record["status"])] = record["jobs"]
    unresolved = await connection.fetchval(
        _COUNT_UNRESOLVED, patience.wait, patience.ordered_before_id, UNRESOLVED_MAX
    )
    return counts, unresolved


# Only one worker adds up; the lock ends with the transaction. The digits only have to be ours.
_TAKE_TURN: Final = "SELECT pg_try_advisory_xact_lock(7218402373)"

# A row whose transaction is still open has a lower id perhaps, and is taken by the next run. A few
# rows are left as they are.
_FOLD: Final = """
    WITH taken AS (
        DELETE FROM job_tally
         WHERE id = ANY (ARRAY(SELECT id FROM job_tally ORDER BY id LIMIT $1))
           AND (SELECT count(*) FROM (SELECT FROM job_tally LIMIT 11) AS present) > 10
     RETURNING status, jobs
    ), sums AS (
        INSERT INTO job_tally (status, jobs)
        SELECT status, sum(jobs)
          FROM taken
         GROUP BY status
        HAVING sum(jobs) <> 0
    )
    SELECT count(*) FROM taken
"""


async def fold_tally(connection: Connection, limit: int) -> int:
    """Add up what was counted of jobs, in a transaction; return how many rows that were.

    While another worker does, nothing is done.
    """
    if not await connection.fetchval(_TAKE_TURN):
        return 0
    folded: int = await connection.fetchval(_FOLD, limit)
    return folded
