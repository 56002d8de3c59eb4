"""The SQL statements about what was counted of subscriptions and their money."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from services.scheduler.domain.analytics import STATE_COUNTS, Bucket, Sum, counted
from services.scheduler.domain.model import Move
from shared.database import Connection

#: Rows folded at once; more are folded by the next run, at once.
FOLDED_MAX: Final = 5_000

_COUNT: Final = """
    INSERT INTO billing_count_new (day, plan_id, what, is_test, times, amount)
    SELECT *
      FROM unnest($1::date[], $2::text[], $3::text[], $4::boolean[], $5::bigint[], $6::bigint[])
"""


async def count(connection: Connection, moves: Sequence[Move]) -> None:
    """Count moves, in the transaction that writes them. Nobody waits for another's counter."""
    rows = counted(moves)
    if rows:
        await connection.execute(_COUNT, *zip(*rows, strict=True))


# Only one worker folds; the lock ends with the transaction. The digits only have to be ours.
_TAKE_TURN: Final = "SELECT pg_try_advisory_xact_lock(7218402361)"

# A row whose transaction is still open has a lower id perhaps, and is taken by the next run.
_FOLD: Final = """
    WITH taken AS (
        DELETE FROM billing_count_new
         WHERE id = ANY (ARRAY(SELECT id FROM billing_count_new ORDER BY id LIMIT $1))
     RETURNING day, plan_id, what, is_test, times, amount
    ), of_days AS (
        INSERT INTO billing_count AS known (day, plan_id, what, is_test, times, amount)
        SELECT day, plan_id, what, is_test, sum(times), sum(amount)
          FROM taken
         GROUP BY day, plan_id, what, is_test
            ON CONFLICT (day, plan_id, what, is_test) DO UPDATE
           SET times = known.times + excluded.times,
               amount = known.amount + excluded.amount
    ), ever AS (
        INSERT INTO billing_total AS known (plan_id, what, is_test, times, amount)
        SELECT plan_id, what, is_test, sum(times), sum(amount)
          FROM taken
         GROUP BY plan_id, what, is_test
            ON CONFLICT (plan_id, what, is_test) DO UPDATE
           SET times = known.times + excluded.times,
               amount = known.amount + excluded.amount
    )
    SELECT count(*) FROM taken
"""


async def fold(connection: Connection) -> int:
    """Add counts to those of their days and to the totals; return how many rows that were.

    In a transaction. While another worker folds, nothing is done.
    """
    if not await connection.fetchval(_TAKE_TURN):
        return 0
    folded: int = await connection.fetchval(_FOLD, FOLDED_MAX)
    return folded


class Choice(NamedTuple):
    """Which subscriptions are looked at; None is all."""

    gateway: str | None = None
    currency: str | None = None
    plan_id: str | None = None
    #: Whether those on test clocks are looked at too.
    with_test: bool = False


# One statement, which sees one moment: what is folded meanwhile is neither missed nor counted
# twice. Of the time after the last bucket only states are of interest.
_SUMS: Final = """
    WITH counted AS (
        SELECT day, plan_id, what, is_test, times, amount
          FROM billing_count
         WHERE day >= $1
         UNION ALL
        SELECT day, plan_id, what, is_test, times, amount
          FROM billing_count_new
         WHERE day >= $1
    )
    SELECT CASE WHEN day <= $2 THEN date_trunc($3, day::timestamp)::date END AS start,
           gateway, currency, what, sum(times)::bigint AS times,
           sum(counted.amount)::bigint AS amount
      FROM counted
      JOIN plan ON plan.id = plan_id
     WHERE (day <= $2 OR what = ANY($4::text[]))
       AND ($5::text IS NULL OR gateway = $5)
       AND ($6::text IS NULL OR currency = $6)
       AND ($7::text IS NULL OR plan_id = $7)
       AND ($8 OR NOT is_test)
     GROUP BY 1, gateway, currency, what
"""


async def sums_since(
    connection: Connection, first: date, last: date, bucket: Bucket, choice: Choice
) -> list[Sum]:
    """Return what was counted from the first to the last day, and how states changed after that.

    The first and the last bucket hold what is of these days.
    """
    records = await connection.fetch(_SUMS, first, last, bucket, STATE_COUNTS, *choice)
    return [_sum(record) for record in records]


_EVER: Final = """
    SELECT NULL::date AS start, gateway, currency, what, sum(times)::bigint AS times,
           sum(counted.amount)::bigint AS amount
      FROM (SELECT plan_id, what, is_test, times, amount
              FROM billing_total
             UNION ALL
            SELECT plan_id, what, is_test, times, amount
              FROM billing_count_new) AS counted
      JOIN plan ON plan.id = plan_id
     WHERE ($1::text IS NULL OR gateway = $1)
       AND ($2::text IS NULL OR currency = $2)
       AND ($3::text IS NULL OR plan_id = $3)
       AND ($4 OR NOT is_test)
       AND ($5::text[] IS NULL OR what = ANY($5))
     GROUP BY gateway, currency, what
"""


async def sums_ever(
    connection: Connection, choice: Choice, kinds: Sequence[str] | None = None
) -> list[Sum]:
    """Return all that was ever counted, or some kinds of it.

    Of states that is how many subscriptions there are in each now.
    """
    return [_sum(record) for record in await connection.fetch(_EVER, *choice, kinds)]


def _sum(record: Any) -> Sum:
    stream = (record["gateway"], record["currency"])
    return Sum(record["start"], stream, record["what"], record["times"], record["amount"])
