"""SQL of what is due in real time: each subscription is in the hands of one scan at a time."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

from services.scheduler.domain.model import Subscription
from services.scheduler.store.rows import subscription_in
from services.scheduler.store.subscriptions import COLUMNS
from shared.contracts.priorities import Priority
from shared.database import Connection

#: Before anything can be due.
LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)

# What was just billed leaves dead entries at the front of the index; `$2` keeps the batches of one
# scan from walking over those of the batches before. What another scan holds is its business.
CLAIM: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE priority = $1
       AND due_at >= $2
       AND due_at <= $3
       AND clock_id IS NULL
       AND problem IS NULL
     ORDER BY due_at
     LIMIT $4
       FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - made of the field names of a class


async def claim_due(
    connection: Connection, priority: Priority, since: datetime, until: datetime, most: int
) -> list[Subscription]:
    """Lock subscriptions that are due from `since` to `until` and that nobody holds."""
    records = await connection.fetch(CLAIM, priority, since, until, most)
    return [subscription_in(record) for record in records]


_CLAIM_THESE: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE id = ANY($1::text[])
       AND due_at <= $2
       AND clock_id IS NULL
       AND problem IS NULL
     ORDER BY id
       FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - made of the field names of a class


async def claim_these(
    ids: Collection[str], until: datetime, connection: Connection
) -> list[Subscription]:
    """Lock those of some subscriptions that are still due and that nobody holds."""
    records = await connection.fetch(_CLAIM_THESE, ids, until)
    return [subscription_in(record) for record in records]


_DUE_IDS: Final = """
    SELECT id
      FROM subscription
     WHERE priority = $1
       AND due_at <= $2
       AND clock_id IS NULL
       AND problem IS NULL
     ORDER BY due_at
     LIMIT $3
"""


async def list_due_ids(
    connection: Connection, priority: Priority, until: datetime, most: int
) -> list[str]:
    """Return subscriptions that are due, whoever holds them."""
    return [record["id"] for record in await connection.fetch(_DUE_IDS, priority, until, most)]


_NEXT_DUE: Final = """
    SELECT min(soonest.due_at)
      FROM unnest($1::text[]) AS wanted (priority)
     CROSS JOIN LATERAL (
               SELECT due_at
                 FROM subscription
                WHERE subscription.priority = wanted.priority
                  AND due_at IS NOT NULL
                  AND clock_id IS NULL
                  AND problem IS NULL
                ORDER BY due_at
                LIMIT 1) soonest
"""


async def find_next_due(connection: Connection) -> datetime | None:
    """Return when a subscription is due next, which may be past; None if none will be."""
    found: datetime | None = await connection.fetchval(_NEXT_DUE, list(Priority))
    return found


# One that is held is being billed at this moment: so it was no problem after all.
_SET_ASIDE: Final = """
    WITH aside AS (
        UPDATE subscription
           SET problem = $2, updated_at = clock_timestamp()
         WHERE id = (SELECT id
                       FROM subscription
                      WHERE id = $1
                        AND due_at <= $3
                        AND problem IS NULL
                        FOR NO KEY UPDATE SKIP LOCKED)
     RETURNING id, state, reason, period_start, charging)
    INSERT INTO subscription_history (subscription_id, at, event, state, reason, period_start,
                                      payment_id)
    SELECT id, $3, 'set_aside', state, reason, period_start, charging
      FROM aside
 RETURNING subscription_id
"""


async def set_aside(
    connection: Connection, subscription_id: str, problem: str, until: datetime
) -> bool:
    """Keep a subscription that was due by `until` out of all scans; tell whether it is this call.

    Written without reading it, for that may be what fails.
    """
    found = await connection.fetchval(_SET_ASIDE, subscription_id, problem, until)
    return found is not None


_CLEAR_PROBLEM: Final = """
    UPDATE subscription
       SET problem = NULL, updated_at = clock_timestamp()
     WHERE id = $1
       AND problem IS NOT NULL
 RETURNING id
"""


async def clear_problem(connection: Connection, subscription_id: str) -> bool:
    """Let scans have a subscription again; tell whether it was set aside."""
    return await connection.fetchval(_CLEAR_PROBLEM, subscription_id) is not None


_MEASURE: Final = """
    SELECT (SELECT count(*)
              FROM unnest($1::text[]) AS wanted (priority)
             CROSS JOIN LATERAL (
                       SELECT 1
                         FROM subscription
                        WHERE subscription.priority = wanted.priority
                          AND due_at <= $2
                          AND clock_id IS NULL
                          AND problem IS NULL
                        LIMIT $3) AS each) AS due,
           (SELECT count(*) FROM subscription WHERE problem IS NOT NULL) AS aside
"""


async def measure(connection: Connection, now: datetime, most: int) -> tuple[int, int]:
    """Return how many subscriptions are due, counted up to `most` of a priority, and set aside."""
    record = await connection.fetchrow(_MEASURE, list(Priority), now, most)
    assert record is not None, "counts always are"
    return record["due"], record["aside"]
