"""The SQL statements that let jobs leave, a day's partition at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Final

import asyncpg

from shared.database import Connection

# Not while another worker sweeps; the lock ends with the transaction. The digits have to be ours.
_TAKE_TURN: Final = "SELECT pg_try_advisory_xact_lock(7218402377)"

_PARTITIONS: Final = """
    SELECT child.relname
      FROM pg_inherits
      JOIN pg_class child ON child.oid = inhrelid
     WHERE inhparent = 'job'::regclass
       AND child.relname ~ '^job_p[0-9]{8}$'
     ORDER BY child.relname
"""


async def take_turn(connection: Connection) -> bool:
    """Tell whether no other worker sweeps until this transaction ends."""
    return bool(await connection.fetchval(_TAKE_TURN))


async def list_days(connection: Connection) -> list[date]:
    """Return the days whose jobs have a partition of their own, the oldest first."""
    names = [record["relname"] for record in await connection.fetch(_PARTITIONS)]
    return [date(int(name[-8:-4]), int(name[-4:-2]), int(name[-2:])) for name in names]


async def is_in_hand(connection: Connection, day: date) -> bool:
    """Tell whether a job of a day has not ended."""
    found = await connection.fetchval(
        f"SELECT EXISTS (SELECT FROM {_partition(day)} "  # noqa: S608 - made of a date
        "WHERE status IN ('waiting', 'active', 'delayed'))"
    )
    return bool(found)


async def find_last_end(connection: Connection, day: date) -> datetime | None:
    """Return when the last job of a day ended, by the database's clock; None when there is none.

    The times of a job itself may be those of a test clock.
    """
    ended_at: datetime | None = await connection.fetchval(
        f"SELECT max(updated_at) FROM {_partition(day)} "  # noqa: S608 - made of a date
        "WHERE status IN ('completed', 'failed')"
    )
    return ended_at


_LONG_AGO: Final = "SELECT clock_timestamp() - $1::interval"


async def find_bound(connection: Connection, keep: timedelta) -> datetime:
    """Return the moment, by the database's clock, before which the last job must have ended."""
    bound: datetime = await connection.fetchval(_LONG_AGO, keep)
    return bound


#: Longest time to count the jobs of a day; nobody waits for it.
COUNT_SECONDS: Final = 300


async def count_day(connection: Connection, day: date) -> list[tuple[str, int]]:
    """Return how many jobs of a day there are of each status."""
    records = await connection.fetch(
        f"SELECT status, count(*) FROM {_partition(day)} GROUP BY status",  # noqa: S608 - made of a date
        timeout=COUNT_SECONDS,
    )
    return [(record["status"], record["count"]) for record in records]


#: How long a sweep may keep writers waiting before it gives up a partition until the next one.
LOCK_WAIT: Final = "2s"

_LOCK: Final = "LOCK TABLE ONLY job IN ACCESS EXCLUSIVE MODE"


async def lock_jobs(connection: Connection) -> bool:
    """Keep all others from jobs until the transaction ends; False when they are in use for long.

    The table comes before its partitions, as it does for whoever writes.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
    try:
        async with connection.transaction():
            await connection.execute(_LOCK)
    except asyncpg.LockNotAvailableError:
        return False
    return True


_SUBTRACT: Final = """
    INSERT INTO job_tally (status, jobs)
    SELECT status, -jobs
      FROM unnest($1::text[], $2::bigint[]) AS gone (status, jobs)
"""


async def drop_day(connection: Connection, day: date, counts: Sequence[tuple[str, int]]) -> None:
    """Drop the partition of a day, and subtract its jobs from the tally. The table is locked."""
    await connection.execute(
        _SUBTRACT, [status for status, _ in counts], [jobs for _, jobs in counts]
    )
    await connection.execute(f"DROP TABLE {_partition(day)}")


# Rows out of the ordinary: nobody had made the partition of their day.
_DELETE_STRAY: Final = """
    DELETE FROM job
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM job_default
                WHERE status IN ('completed', 'failed')
                  AND updated_at < clock_timestamp() - $1::interval
                LIMIT $2))
 RETURNING id
"""


async def delete_stray(connection: Connection, keep: timedelta, limit: int) -> Sequence[str]:
    """Delete ended jobs that lie in no day's partition, and return which."""
    return [record["id"] for record in await connection.fetch(_DELETE_STRAY, keep, limit)]


def _partition(day: date) -> str:
    return f"job_p{day:%Y%m%d}"
