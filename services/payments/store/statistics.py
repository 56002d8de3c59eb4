"""The SQL statements about statistics; `payments.save_and_announce` writes what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

import asyncpg

from services.payments.domain import durations
from services.payments.domain.statistics import Step, StepCount
from shared.database import Connection

#: Rows folded at once; more are folded by the next run, at once.
FOLDED_MAX: Final = 5_000

#: How long the counts of single minutes are kept. The totals are kept for ever.
MINUTES_KEPT: Final = timedelta(days=90)

#: Minutes deleted at once.
_DELETED_MAX: Final = 10_000


class MinuteCount(NamedTuple):
    """The steps of one minute, counted."""

    minute: datetime
    steps: StepCount


class GatewayCalls(NamedTuple):
    """Calls of gateways: all that ended, and those that failed as calls (a decline is none)."""

    calls: int
    failures: int

    @property
    def error_rate(self) -> float | None:
        """Share of the calls that failed, in per cent."""
        return 100 * self.failures / self.calls if self.calls else None


def step_columns(steps: Sequence[Step | None]) -> list[Sequence[Any]]:
    """Return steps as the columns that `payments.save_and_announce` counts: a row of equal ones.

    Added up here, because to do it there costs as much as saving a fifth of the payments.
    """
    durations_of: dict[tuple[str, str, str], list[int]] = {}
    unmeasured: Counter[tuple[str, str, str]] = Counter()
    for step in steps:
        if step is None:
            continue
        key = step[1:4]
        taken = durations_of.setdefault(key, [])
        if step.milliseconds is None:
            unmeasured[key] += 1
        else:
            taken.append(step.milliseconds)
    rows = [
        (*key, len(taken) + unmeasured[key], f"{{{','.join(map(str, taken))}}}")
        for key, taken in durations_of.items()
    ]
    return list(zip(*rows, strict=True)) if rows else [()] * 5


_COUNT_STEPS: Final = """
    INSERT INTO step_count (at, gateway, from_state, to_state, payments, milliseconds)
    SELECT $1, gateway, from_state, to_state, payments, milliseconds::int[]
      FROM unnest($2::text[], $3::text[], $4::text[], $5::int[], $6::text[])
        AS step (gateway, from_state, to_state, payments, milliseconds)
"""


async def count_steps(connection: Connection, steps: Sequence[Step], now: datetime) -> None:
    """Count steps that were saved by a statement that did not count them."""
    if steps:
        await connection.execute(_COUNT_STEPS, now, *step_columns(steps))


# Only one worker folds; the lock ends with the transaction. The digits only have to be ours.
_TAKE_TURN: Final = "SELECT pg_try_advisory_xact_lock(7218402358)"

# In the order of their ids, which is nearly that of time. A row whose transaction is still open has
# a lower id perhaps, and is taken by the next run.
_TAKE_COUNTS: Final = """
    DELETE FROM step_count
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM step_count
                WHERE at < $1
                ORDER BY id
                LIMIT $2))
 RETURNING date_trunc('minute', at) AS minute, gateway, from_state, to_state, payments,
           milliseconds
"""

_INSERT_MINUTE: Final = """
    INSERT INTO step_minute (minute, gateway, from_state, to_state, payments, measured,
                             milliseconds, classes)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

_ADD_TOTAL: Final = """
    INSERT INTO step_total AS known
           (gateway, from_state, to_state, payments, measured, milliseconds)
    VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (gateway, from_state, to_state) DO UPDATE
       SET payments = known.payments + excluded.payments,
           measured = known.measured + excluded.measured,
           milliseconds = known.milliseconds + excluded.milliseconds
"""

_FORGET_MINUTES: Final = """
    DELETE FROM step_minute
     WHERE id = ANY (ARRAY(
               SELECT id FROM step_minute WHERE minute < $1 ORDER BY minute LIMIT $2))
"""


async def fold(connection: Connection, before: datetime) -> int:
    """Add counts older than `before` to their minutes and to the totals; return how many.

    In a transaction. While another worker folds, nothing is done.
    """
    if not await connection.fetchval(_TAKE_TURN):
        return 0
    records = await connection.fetch(_TAKE_COUNTS, before, FOLDED_MAX)
    if not records:
        return 0
    minutes = _by_minute(records)
    await connection.executemany(_INSERT_MINUTE, [(each.minute, *each.steps) for each in minutes])
    await connection.executemany(_ADD_TOTAL, [each.steps[:6] for each in minutes])
    return len(records)


async def forget_old_minutes(connection: Connection, now: datetime) -> None:
    """Delete counts of single minutes past `MINUTES_KEPT`, some at a time."""
    await connection.execute(_FORGET_MINUTES, now - MINUTES_KEPT, _DELETED_MAX)


def _by_minute(records: Sequence[asyncpg.Record]) -> list[MinuteCount]:
    ordered = sorted(records, key=_key)
    return [
        MinuteCount(minute, _count(gateway, before, after, group))
        for (minute, gateway, before, after), group in groupby(ordered, key=_key)
    ]


def _key(record: asyncpg.Record) -> tuple[datetime, str, str, str]:
    return record["minute"], record["gateway"], record["from_state"], record["to_state"]


def _count(gateway: str, before: str, after: str, records: Iterable[asyncpg.Record]) -> StepCount:
    payments = 0
    measured: list[int] = []
    for record in records:
        payments += record["payments"]
        measured += record["milliseconds"]
    classes = durations.classify(measured)
    return StepCount(gateway, before, after, payments, len(measured), sum(measured), classes)


_MINUTES_SINCE: Final = """
    SELECT gateway, from_state, to_state, payments, measured, milliseconds, classes
      FROM step_minute
     WHERE minute >= $1
"""

_COUNTS_SINCE: Final = """
    SELECT gateway, from_state, to_state, payments, milliseconds
      FROM step_count
     WHERE ($1::timestamptz IS NULL OR at >= $1)
"""


async def read_since(connection: Connection, since: datetime) -> list[StepCount]:
    """Return all steps since the beginning of a minute, what is not folded yet included.

    Give a transaction of repeatable reads, or what is folded meanwhile counts twice or not at all.
    """
    folded = await connection.fetch(_MINUTES_SINCE, since)
    return [_folded(record) for record in folded] + await _fresh(connection, since)


_TOTALS: Final = """
    SELECT gateway, from_state, to_state, payments, measured, milliseconds
      FROM step_total
"""


async def read_totals(connection: Connection) -> list[StepCount]:
    """Return all steps there ever were, without the classes of their durations.

    Give a transaction of repeatable reads, as for `read_since`.
    """
    totals = await connection.fetch(_TOTALS)
    counts = [_folded((*record, [])) for record in totals]
    return counts + await _fresh(connection, None)


async def _fresh(connection: Connection, since: datetime | None) -> list[StepCount]:
    records = await connection.fetch(_COUNTS_SINCE, since)
    return [
        _count(record["gateway"], record["from_state"], record["to_state"], [record])
        for record in records
    ]


def _folded(values: Iterable[Any]) -> StepCount:
    return StepCount(*values)


_CALLS_SINCE: Final = """
    SELECT coalesce(sum(calls), 0)::int AS calls, coalesce(sum(failures), 0)::int AS failures
      FROM gateway_calls
     WHERE second >= $1
"""


async def read_calls(connection: Connection, since: datetime) -> GatewayCalls:
    """Return how many calls of gateways ended, and how many of them failed; up to an hour back."""
    record = await connection.fetchrow(_CALLS_SINCE, since)
    assert record is not None, "a sum is a row"
    return GatewayCalls(record["calls"], record["failures"])
