"""The SQL statements that count what is due."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from shared.contracts.priorities import Priority
from shared.database import Connection
from shared.gateways.registry import REGISTRY

#: Due payments of one priority that are counted; past this a precise number helps nobody.
COUNTED_MAX: Final = 20_000

# What a worker has taken is still due, so it is taken off. The gateways are named, so that each is
# one walk through the index of what waits.
_DUE_LOOKS: Final = """
    SELECT level.priority, count(due.id)
      FROM unnest($2::text[]) AS level (priority)
      LEFT JOIN LATERAL (
            SELECT payment.id
              FROM unnest($3::text[]) AS known (gateway)
              JOIN payment ON payment.gateway = known.gateway
                          AND payment.priority = level.priority
                          AND payment.next_check_at <= $1
             WHERE check_leased_until IS NULL OR check_leased_until < clock_timestamp()
             LIMIT $4) AS due ON true
     GROUP BY level.priority
"""


async def count_due_looks(connection: Connection, now: datetime) -> Mapping[Priority, int]:
    """Count payments whose next look is due and that no worker has taken, up to `COUNTED_MAX`."""
    records = await connection.fetch(_DUE_LOOKS, now, [*Priority], [*REGISTRY], COUNTED_MAX)
    return {Priority(record["priority"]): record["count"] for record in records}


_DUE_RETRIES: Final = """
    SELECT level.priority, count(due.payment_id)
      FROM unnest($2::text[]) AS level (priority)
      LEFT JOIN LATERAL (
            SELECT retry.payment_id
              FROM unnest($3::text[]) AS known (gateway)
              JOIN retry ON retry.gateway = known.gateway
                        AND retry.priority = level.priority
                        AND retry.next_attempt_at <= $1
             WHERE retry.state = 'scheduled'
             LIMIT $4) AS due ON true
     GROUP BY level.priority
"""


async def count_due_retries(connection: Connection, now: datetime) -> Mapping[Priority, int]:
    """Count payments whose next attempt is due and that no worker has taken, likewise."""
    records = await connection.fetch(_DUE_RETRIES, now, [*Priority], [*REGISTRY], COUNTED_MAX)
    return {Priority(record["priority"]): record["count"] for record in records}
