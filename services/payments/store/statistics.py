"""The SQL statements about statistics; `payments.save_and_announce` writes what is counted.

All adding up is done by PostgreSQL: a minute may hold a hundred thousand durations, and whoever
went through them in Python would hold up the payments of its process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from services.payments.domain.durations import THRESHOLDS
from services.payments.domain.statistics import Step, StepCount
from shared.database import Connection

#: Rows folded at once; more are folded by the next run, at once.
FOLDED_MAX: Final = 5_000

#: How long the counts of single minutes are kept. The totals are kept for ever.
MINUTES_KEPT: Final = timedelta(days=90)

#: The columns of a sum of steps that tells of the classes of durations too.
_WITH_CLASSES: Final = 8

#: Minutes deleted at once.
_DELETED_MAX: Final = 10_000


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
    durations_of: defaultdict[tuple[str, str, str], list[int | None]] = defaultdict(list)
    for step in steps:
        if step is not None:
            durations_of[step[1:4]].append(step.milliseconds)
    rows = []
    for key, durations in durations_of.items():
        taken = [duration for duration in durations if duration is not None]
        text = f"{{{','.join(map(str, taken))}}}"
        rows.append((*key, len(durations), len(taken), sum(taken), text))
    return list(zip(*rows, strict=True)) if rows else [()] * 7


_COUNT_STEPS: Final = """
    INSERT INTO step_count (at, gateway, from_state, to_state, payments, measured, milliseconds,
                            durations)
    SELECT $1, gateway, before, after, payments, measured, milliseconds, durations::int[]
      FROM unnest($2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::bigint[],
                  $8::text[])
        AS step (gateway, before, after, payments, measured, milliseconds, durations)
"""


async def count_saved(
    connection: Connection, steps: Sequence[Step | None], saved: Collection[str], now: datetime
) -> None:
    """Count the steps of payments that were saved by a statement that counted none."""
    made = [step for step in steps if step is not None and step.payment_id in saved]
    if made:
        await connection.execute(_COUNT_STEPS, now, *step_columns(made))


# Only one worker folds; the lock ends with the transaction. The digits only have to be ours.
_TAKE_TURN: Final = "SELECT pg_try_advisory_xact_lock(7218402358)"

# In the order of their ids, which is nearly that of time. A row whose transaction is still open has
# a lower id perhaps, and is taken by the next run.
_FOLD: Final = """
    WITH taken AS (
        DELETE FROM step_count
         WHERE id = ANY (ARRAY(
                   SELECT id
                     FROM step_count
                    WHERE at < $1
                    ORDER BY id
                    LIMIT $2))
     RETURNING date_trunc('minute', at) AS minute, gateway, from_state, to_state, payments,
               measured, milliseconds, durations
    ), summed AS (
        SELECT minute, gateway, from_state, to_state, sum(payments) AS payments,
               sum(measured) AS measured, sum(milliseconds) AS milliseconds
          FROM taken
         GROUP BY minute, gateway, from_state, to_state
    ), classed AS (
        SELECT minute, gateway, from_state, to_state, width_bucket(duration, $3::int[]) AS class,
               count(*) AS number
          FROM taken
         CROSS JOIN unnest(durations) AS duration
         GROUP BY minute, gateway, from_state, to_state, class
    ), gathered AS (
        SELECT minute, gateway, from_state, to_state, array_agg(class) AS classes,
               array_agg(number) AS class_counts
          FROM classed
         GROUP BY minute, gateway, from_state, to_state
    ), kept AS (
        INSERT INTO step_minute (minute, gateway, from_state, to_state, payments, measured,
                                 milliseconds, classes, class_counts)
        SELECT minute, gateway, from_state, to_state, payments, measured, milliseconds,
               coalesce(classes, '{}'), coalesce(class_counts, '{}')
          FROM summed
          LEFT JOIN gathered USING (minute, gateway, from_state, to_state)
    ), added AS (
        INSERT INTO step_total AS known
               (gateway, from_state, to_state, payments, measured, milliseconds)
        SELECT gateway, from_state, to_state, sum(payments), sum(measured), sum(milliseconds)
          FROM summed
         GROUP BY gateway, from_state, to_state
            ON CONFLICT (gateway, from_state, to_state) DO UPDATE
           SET payments = known.payments + excluded.payments,
               measured = known.measured + excluded.measured,
               milliseconds = known.milliseconds + excluded.milliseconds
    )
    SELECT count(*) FROM taken
"""


async def fold(connection: Connection, before: datetime) -> int:
    """Add counts older than `before` to their minutes and to the totals; return how many.

    In a transaction. While another worker folds, nothing is done.
    """
    if not await connection.fetchval(_TAKE_TURN):
        return 0
    folded: int = await connection.fetchval(_FOLD, before, FOLDED_MAX, THRESHOLDS)
    return folded


_FORGET_MINUTES: Final = """
    DELETE FROM step_minute
     WHERE id = ANY (ARRAY(
               SELECT id FROM step_minute WHERE minute < $1 ORDER BY minute LIMIT $2))
"""


async def forget_old_minutes(connection: Connection, now: datetime) -> None:
    """Delete counts of single minutes past `MINUTES_KEPT`, some at a time."""
    await connection.execute(_FORGET_MINUTES, now - MINUTES_KEPT, _DELETED_MAX)


# Each of the following is one statement and so sees one moment: what is folded meanwhile is never
# missed, and never counted twice.

_TOTALS: Final = """
    SELECT gateway, from_state, to_state, sum(payments)::bigint, sum(measured)::bigint,
           sum(milliseconds)::bigint
      FROM (SELECT gateway, from_state, to_state, payments, measured, milliseconds
              FROM step_total
             UNION ALL
            SELECT gateway, from_state, to_state, payments, measured, milliseconds
              FROM step_count) AS counted
     GROUP BY gateway, from_state, to_state
"""


async def read_totals(connection: Connection) -> list[StepCount]:
    """Return all steps there ever were, without the classes of their durations."""
    return [_step_count(*record) for record in await connection.fetch(_TOTALS)]


_SINCE: Final = """
    SELECT gateway, from_state, to_state, sum(payments)::bigint, sum(measured)::bigint,
           sum(milliseconds)::bigint
      FROM (SELECT gateway, from_state, to_state, payments, measured, milliseconds
              FROM step_minute
             WHERE minute >= $1
             UNION ALL
            SELECT gateway, from_state, to_state, payments, measured, milliseconds
              FROM step_count
             WHERE at >= $1) AS counted
     GROUP BY gateway, from_state, to_state
"""


async def read_since(connection: Connection, since: datetime) -> list[StepCount]:
    """Return all steps since the beginning of a minute, without the classes of their durations."""
    return [_step_count(*record) for record in await connection.fetch(_SINCE, since)]


_SINCE_BY_CLASS: Final = """
    WITH counted AS (
        SELECT gateway, from_state, to_state, payments, measured, milliseconds, classes,
               class_counts, NULL::int[] AS durations
          FROM step_minute
         WHERE minute >= $1
         UNION ALL
        SELECT gateway, from_state, to_state, payments, measured, milliseconds, NULL, NULL,
               durations
          FROM step_count
         WHERE at >= $1
    ), classed AS (
        SELECT gateway, from_state, to_state, class, sum(number) AS number
          FROM (SELECT gateway, from_state, to_state, folded.class, folded.number
                  FROM counted
                 CROSS JOIN unnest(counted.classes, counted.class_counts)
                    AS folded (class, number)
                 UNION ALL
                SELECT gateway, from_state, to_state, width_bucket(duration, $2::int[]), 1
                  FROM counted
                 CROSS JOIN unnest(counted.durations) AS duration) AS each
         GROUP BY gateway, from_state, to_state, class
    ), gathered AS (
        SELECT gateway, from_state, to_state, array_agg(class) AS classes,
               array_agg(number)::int[] AS class_counts
          FROM classed
         GROUP BY gateway, from_state, to_state
    )
    SELECT gateway, from_state, to_state, sum(payments)::bigint, sum(measured)::bigint,
           sum(milliseconds)::bigint, gathered.classes, gathered.class_counts
      FROM counted
      LEFT JOIN gathered USING (gateway, from_state, to_state)
     GROUP BY gateway, from_state, to_state, gathered.classes, gathered.class_counts
"""


async def read_since_by_class(connection: Connection, since: datetime) -> list[StepCount]:
    """Return all steps since the beginning of a minute, with the classes of their durations."""
    records = await connection.fetch(_SINCE_BY_CLASS, since, THRESHOLDS)
    return [_step_count(*record) for record in records]


def _step_count(*values: Any) -> StepCount:
    """Read the columns of a sum of steps; the last two, if they are there, are its classes."""
    *sums, classes, counts = values if len(values) == _WITH_CLASSES else (*values, None, None)
    gateway, before, after, payments, measured, milliseconds = sums
    by_class = dict(zip(classes or (), counts or (), strict=True))
    return StepCount(gateway, before, after, payments, measured, milliseconds, by_class)


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
