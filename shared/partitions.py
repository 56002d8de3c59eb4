"""Tables that grow with traffic are partitioned by time; retention drops a partition.

A table is partitioned either by a `date` column or by an id that begins with its time
(`shared.identifiers`). Every such table also has a default partition, so that a row whose time is
out of the ordinary is stored all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

import asyncpg
import structlog

from shared.clock import Clock
from shared.database import Database
from shared.errors import DatabaseUnavailableError
from shared.identifiers import first_id_at

log = structlog.get_logger()

#: Often enough that a partition is made, or dropped, on its day.
INTERVAL_SECONDS: Final = 3_600

#: Partitions are made this many periods ahead, so that a stopped housekeeper does no harm.
PERIODS_AHEAD: Final = {"day": 7, "month": 2}

# Two housekeepers must not create the same partition at once; the lock ends with the transaction.
_LOCK: Final = "SELECT pg_advisory_xact_lock(7218402357)"

_PARTITIONS: Final = """
    SELECT child.relname
      FROM pg_inherits
      JOIN pg_class child ON child.oid = inhrelid
     WHERE inhparent = $1::text::regclass
"""


@dataclass(frozen=True, slots=True)
class PartitionedTable:
    """How one table is cut.

    `id_prefix` is None for a table cut by a date column. `keep_days` is None for a table that is
    never cleaned; else a partition goes when its last day is that many days old.
    """

    name: str
    period: Literal["day", "month"]
    id_prefix: str | None = None
    keep_days: int | None = None


async def run(database: Database, tables: Sequence[PartitionedTable], clock: Clock) -> None:
    """Maintain partitions for ever."""
    while True:
        try:
            await maintain(database, tables, clock().date())
        except DatabaseUnavailableError as error:
            log.warning("partitions_wait", reason=error.message)
        await asyncio.sleep(INTERVAL_SECONDS)


async def maintain(database: Database, tables: Sequence[PartitionedTable], today: date) -> None:
    """Create the partitions of now and soon, and drop what is past its retention."""
    for table in tables:
        for first, following in _periods(table, today):
            await _create(database, table, first, following)
        if table.keep_days is not None:
            await _drop_expired(database, table, today - timedelta(days=table.keep_days))


def _periods(table: PartitionedTable, today: date) -> list[tuple[date, date]]:
    first = today if table.period == "day" else today.replace(day=1)
    # The period before now is made too: an id made just before midnight arrives just after.
    first = _previous(table, first)
    periods = []
    for _ in range(PERIODS_AHEAD[table.period] + 2):
        following = _next(table, first)
        periods.append((first, following))
        first = following
    return periods


def _next(table: PartitionedTable, first: date) -> date:
    if table.period == "day":
        return first + timedelta(days=1)
    return (first + timedelta(days=32)).replace(day=1)


def _previous(table: PartitionedTable, first: date) -> date:
    if table.period == "day":
        return first - timedelta(days=1)
    return (first - timedelta(days=1)).replace(day=1)


def _bound(table: PartitionedTable, day: date) -> str:
    if table.id_prefix is None:
        return day.isoformat()
    return first_id_at(table.id_prefix, datetime.combine(day, time(), UTC))


async def _create(
    database: Database, table: PartitionedTable, first: date, following: date
) -> None:
    name = f"{table.name}_p{first:%Y%m%d}"
    async with database.transaction() as connection:
        await connection.execute(_LOCK)
        if await connection.fetchval("SELECT to_regclass($1)", name) is not None:
            return
        try:
            async with connection.transaction():
                await connection.execute(
                    f"CREATE TABLE {name} PARTITION OF {table.name} "
                    f"FOR VALUES FROM ('{_bound(table, first)}') TO ('{_bound(table, following)}')"
                )
        except asyncpg.CheckViolationError:
            # Rows of that period already lie in the default partition, which keeps serving them.
            return


async def _drop_expired(database: Database, table: PartitionedTable, before: date) -> None:
    async with database.transaction() as connection:
        await connection.execute(_LOCK)
        for row in await connection.fetch(_PARTITIONS, table.name):
            day_text = row["relname"].rpartition("_p")[2]
            if not day_text.isdigit():
                continue
            first = date(int(day_text[:4]), int(day_text[4:6]), int(day_text[6:]))
            if _next(table, first) <= before:
                await connection.execute(f"DROP TABLE {row['relname']}")
