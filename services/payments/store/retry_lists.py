"""The SQL statements that look at many retries: what is too much, what is listed, how they end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.payments.domain.retries import Retry
from services.payments.store.retries import retry_of
from shared.database import Connection

# The least urgent first, and of these the oldest: it has waited for the longest.
_PARK: Final = """
    WITH waiting AS (
        SELECT count(*) AS retries FROM retry WHERE state = 'scheduled'
    ), surplus AS (
        SELECT payment_id
          FROM retry
         WHERE state = 'scheduled'
         ORDER BY priority DESC, updated_at
         LIMIT (SELECT greatest(retries - $1, 0) FROM waiting)
           FOR UPDATE SKIP LOCKED
    )
    UPDATE retry
       SET state = 'parked', updated_at = $2
     WHERE payment_id IN (SELECT payment_id FROM surplus)
       AND state = 'scheduled'
 RETURNING gateway, kind
"""


async def park_surplus(
    connection: Connection, waiting_max: int, now: datetime
) -> list[tuple[str, str]]:
    """Park scheduled retries beyond a number, and return the gateway and kind of each."""
    rows = await connection.fetch(_PARK, waiting_max, now)
    return [(row["gateway"], row["kind"]) for row in rows]


@dataclass(frozen=True, slots=True)
class RetryAttempt:
    """A retry that was begun."""

    number: int
    reference: str
    due_at: datetime
    begun_at: datetime


_ATTEMPTS: Final = """
    SELECT number, reference, due_at, begun_at
      FROM retry_attempt
     WHERE payment_id = $1
     ORDER BY number
"""


async def list_attempts(connection: Connection, payment_id: str) -> list[RetryAttempt]:
    """Return the retries of a payment that were begun, in order."""
    return [RetryAttempt(*row) for row in await connection.fetch(_ATTEMPTS, payment_id)]


_OF_CUSTOMER: Final = """
    SELECT payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
           code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
           next_attempt_at, waits_for, metadata, token, created_at, updated_at, finished_at
      FROM retry
     WHERE customer_id = $1
       AND ($2::text IS NULL OR state = $2)
       AND payment_id < coalesce($3::text, '~')
     ORDER BY payment_id DESC
     LIMIT $4
"""


async def list_of_customer(
    connection: Connection,
    customer_id: str,
    *,
    state: str | None,
    before_id: str | None,
    limit: int,
) -> list[Retry]:
    """Return the retries of one customer, those of the newest payments first."""
    records = await connection.fetch(_OF_CUSTOMER, customer_id, state, before_id, limit)
    return [retry_of(record) for record in records]


@dataclass(frozen=True, slots=True)
class RetryGroup:
    """Retries with the same state, currency and kind of failure."""

    state: str
    currency: str
    kind: str
    retries: int
    #: Minor units.
    amount: int
    attempts: int
    #: From the first failure to the end, added up, in seconds; nothing of those that are open.
    seconds: float


# Ids begin with the time of their payment, so the window reads only its own partitions.
_STATISTICS: Final = """
    SELECT state, currency, kind, count(*) AS retries, sum(amount)::bigint AS amount,
           sum(attempts_made)::bigint AS attempts,
           coalesce(sum(extract(epoch FROM finished_at - created_at)), 0)::float AS seconds
      FROM retry
     WHERE payment_id >= $1
     GROUP BY state, currency, kind
"""


async def count_since(connection: Connection, first_id: str) -> list[RetryGroup]:
    """Count the retries of payments that were created since the time of an id."""
    return [RetryGroup(*row) for row in await connection.fetch(_STATISTICS, first_id)]
