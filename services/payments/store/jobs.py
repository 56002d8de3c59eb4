"""The SQL statements that count, list and show payments as jobs.

Nothing here walks through payments that are done: what is under way is in partial indexes, the
newest come first in the primary key, and what is done was counted when it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from services.payments.domain.jobs import JobFacts, JobState
from services.payments.domain.model import PaymentState
from services.payments.domain.statistics import COMPLETED, FAILED
from shared.contracts.priorities import Priority
from shared.database import Connection
from shared.gateways.registry import REGISTRY

#: Due payments that are counted or listed; past this a precise number helps nobody.
DUE_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class LiveCounts:
    """Payments under way."""

    waiting: int
    active: int
    delayed: int
    held: int


@dataclass(frozen=True, slots=True)
class Job:
    """A payment as a job."""

    id: str
    facts: JobFacts
    reason: str | None
    gateway: str
    method: str
    amount: int
    currency: str
    customer_id: str
    product_id: str
    priority: str
    checks_made: int
    #: Why a due retry was put off.
    waits_for: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """One try to take the money."""

    number: int
    reference: str
    state: str
    handle: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class JobStory:
    """What belongs to one job beside itself."""

    attempts: Sequence[JobAttempt]
    history: Sequence[tuple[datetime, PaymentState]]
    metadata: dict[str, str]


# Due looks are found by gateway and priority, as workers find them. A failed payment that is looked
# at again is no job under way.
_COUNT_DUE: Final = """
    SELECT count(*) FILTER (WHERE is_leased) AS leased,
           count(*) FILTER (WHERE NOT is_leased) AS waiting,
           count(*) FILTER (WHERE state = 'created') AS created
      FROM (SELECT state,
                   coalesce(check_leased_until > clock_timestamp(), false) AS is_leased
              FROM unnest($2::text[]) AS known (gateway)
             CROSS JOIN unnest($3::text[]) AS level (priority)
              JOIN payment ON payment.gateway = known.gateway
                          AND payment.priority = level.priority
                          AND payment.next_check_at <= $1
             WHERE state IN ('created', 'pending', 'processing', 'unknown')
             LIMIT $4) AS due
"""

_COUNT_STATES: Final = """
    SELECT state, count(*) AS payments
      FROM payment
     WHERE state IN ('created', 'pending', 'processing', 'unknown', 'retry_scheduled', 'on_hold')
     GROUP BY state
"""

_COUNT_RETRIES: Final = """
    SELECT (SELECT count(*)
              FROM unnest($2::text[]) AS known (gateway)
             CROSS JOIN unnest($3::text[]) AS level (priority)
              JOIN retry ON retry.gateway = known.gateway
                        AND retry.priority = level.priority
                        AND retry.next_attempt_at <= $1
             WHERE retry.state = 'scheduled') AS waiting,
           (SELECT count(*) FROM retry WHERE leased_until IS NOT NULL) AS running
"""


async def count_live(connection: Connection, now: datetime) -> LiveCounts:
    """Count payments under way. The numbers are of moments that lie milliseconds apart."""
    names = [*REGISTRY], [*Priority]
    states: Mapping[str, int] = {
        record["state"]: record["payments"] for record in await connection.fetch(_COUNT_STATES)
    }
    due = await connection.fetchrow(_COUNT_DUE, now, *names, DUE_MAX)
    retries = await connection.fetchrow(_COUNT_RETRIES, now, *names)
    assert due is not None, "a count is a row"
    assert retries is not None, "a count is a row"
    waiting = due["waiting"] + retries["waiting"]
    begun = max(0, states.get("created", 0) - due["created"])
    active = due["leased"] + begun + retries["running"]
    under_way = sum(states.values()) - states.get("on_hold", 0)
    return LiveCounts(
        waiting=waiting,
        active=active,
        delayed=max(0, under_way - waiting - active),
        held=states.get("on_hold", 0),
    )


_LIST_DUE: Final = """
    SELECT id
      FROM (SELECT payment.id, coalesce(check_leased_until > clock_timestamp(), false) AS is_leased
              FROM unnest($2::text[]) AS known (gateway)
             CROSS JOIN unnest($3::text[]) AS level (priority)
              JOIN payment ON payment.gateway = known.gateway
                          AND payment.priority = level.priority
                          AND payment.next_check_at <= $1
             WHERE state IN ('created', 'pending', 'processing', 'unknown')
             LIMIT $4) AS due
     WHERE is_leased = ($5::text = 'leased')
       AND ($6::text IS NULL OR id < $6)
     ORDER BY id DESC
     LIMIT $7
"""

_LIST_DUE_RETRIES: Final = """
    SELECT payment_id AS id
      FROM unnest($2::text[]) AS known (gateway)
     CROSS JOIN unnest($3::text[]) AS level (priority)
      JOIN retry ON retry.gateway = known.gateway
                AND retry.priority = level.priority
                AND retry.next_attempt_at <= $1
     WHERE retry.state = 'scheduled'
       AND ($4::text IS NULL OR payment_id < $4)
     ORDER BY payment_id DESC
     LIMIT $5
"""

_LIST_RUNNING_RETRIES: Final = """
    SELECT payment_id AS id
      FROM retry
     WHERE leased_until IS NOT NULL
       AND ($1::text IS NULL OR payment_id < $1)
     ORDER BY payment_id DESC
     LIMIT $2
"""

# Said twice that it has not succeeded, so that the index of such payments serves each state. With
# $4 only payments whose next step is neither due nor under way. A tilde is after every id: said so,
# the cursor is where the walk through the index begins, and not a test of all rows before it.
_LIST_OF_STATES: Final = """
    SELECT found.id
      FROM unnest($1::text[]) AS wanted (state)
     CROSS JOIN LATERAL (
           SELECT payment.id
             FROM payment
            WHERE payment.state = wanted.state
              AND payment.state <> 'succeeded'
              AND payment.id < coalesce($2::text, '~')
              AND (NOT $4::boolean
                   OR coalesce(next_check_at > $3, true)
                  AND NOT coalesce(check_leased_until > clock_timestamp(), false)
                  AND NOT EXISTS (
                      SELECT
                        FROM retry
                       WHERE retry.payment_id = payment.id
                         AND (retry.leased_until IS NOT NULL
                              OR retry.state = 'scheduled' AND retry.next_attempt_at <= $3)))
            ORDER BY payment.id DESC
            LIMIT $5) AS found
     ORDER BY found.id DESC
     LIMIT $5
"""

_LIST_COMPLETED: Final = """
    SELECT id
      FROM payment
     WHERE state IN ('succeeded', 'partially_refunded', 'refunded', 'disputed')
       AND id < coalesce($1::text, '~')
     ORDER BY id DESC
     LIMIT $2
"""

_FIND: Final = """
    SELECT payment.id, payment.state, payment.reason, payment.gateway, method, payment.amount,
           payment.currency, payment.customer_id, payment.product_id, payment.priority,
           checks_made, next_check_at, payment.created_at, payment.updated_at,
           coalesce(check_leased_until > clock_timestamp(), false) AS is_leased,
           retry.state AS retry_state, retry.next_attempt_at, retry.waits_for
      FROM payment
      LEFT JOIN retry ON retry.payment_id = payment.id
     WHERE payment.id = ANY($1::text[])
     ORDER BY payment.id DESC
"""


async def list_jobs(
    connection: Connection, state: JobState, now: datetime, *, before_id: str | None, limit: int
) -> list[Job]:
    """Return jobs of a state, newest payment first."""
    ids = await _ids_of(connection, state, now, before_id, limit)
    return await find_jobs(connection, sorted(ids, reverse=True)[:limit])


async def find_jobs(connection: Connection, ids: Sequence[str]) -> list[Job]:
    """Return payments as jobs, newest first."""
    return [_job(record) for record in await connection.fetch(_FIND, ids)]


async def _ids_of(
    connection: Connection, state: JobState, now: datetime, before_id: str | None, limit: int
) -> set[str]:
    names = [*REGISTRY], [*Priority]
    records: list[asyncpg.Record] = []
    match state:
        case JobState.COMPLETED:
            records += await connection.fetch(_LIST_COMPLETED, before_id, limit)
        case JobState.FAILED:
            records += await _of_states(connection, FAILED, now, before_id, limit)
        case JobState.HELD:
            held = frozenset({PaymentState.ON_HOLD})
            records += await _of_states(connection, held, now, before_id, limit)
        case JobState.WAITING:
            records += await connection.fetch(
                _LIST_DUE, now, *names, DUE_MAX, "waiting", before_id, limit
            )
            records += await connection.fetch(_LIST_DUE_RETRIES, now, *names, before_id, limit)
        case JobState.ACTIVE:
            records += await connection.fetch(
                _LIST_DUE, now, *names, DUE_MAX, "leased", before_id, limit
            )
            records += await connection.fetch(_LIST_RUNNING_RETRIES, before_id, limit)
            begun = frozenset({PaymentState.CREATED})
            records += await _of_states(connection, begun, now, before_id, limit, later=True)
        case JobState.DELAYED:
            begun = frozenset({PaymentState.CREATED, PaymentState.ON_HOLD})
            states = frozenset(PaymentState) - COMPLETED - FAILED - begun
            records += await _of_states(connection, states, now, before_id, limit, later=True)
    return {record["id"] for record in records}


async def _of_states(
    connection: Connection,
    states: frozenset[PaymentState],
    now: datetime,
    before_id: str | None,
    limit: int,
    *,
    later: bool = False,
) -> list[asyncpg.Record]:
    return await connection.fetch(_LIST_OF_STATES, [*states], before_id, now, later, limit)


def _job(record: asyncpg.Record) -> Job:
    return Job(
        id=record["id"],
        facts=JobFacts(
            state=PaymentState(record["state"]),
            next_check_at=record["next_check_at"],
            is_leased=record["is_leased"],
            retry_state=record["retry_state"],
            retry_at=record["next_attempt_at"],
        ),
        reason=record["reason"],
        gateway=record["gateway"],
        method=record["method"],
        amount=record["amount"],
        currency=record["currency"],
        customer_id=record["customer_id"],
        product_id=record["product_id"],
        priority=record["priority"],
        checks_made=record["checks_made"],
        waits_for=record["waits_for"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )


_ATTEMPTS: Final = """
    SELECT number, reference, state, handle, created_at
      FROM attempt
     WHERE payment_id = $1
     ORDER BY number
"""

_HISTORY: Final = "SELECT at, state FROM payment_history WHERE payment_id = $1 ORDER BY id"

_METADATA: Final = "SELECT metadata FROM payment WHERE id = $1"


async def read_story(connection: Connection, payment_id: str) -> JobStory:
    """Return the attempts, states and metadata of a payment that is there."""
    attempts = await connection.fetch(_ATTEMPTS, payment_id)
    history = await connection.fetch(_HISTORY, payment_id)
    metadata: Any = orjson.loads(await connection.fetchval(_METADATA, payment_id))
    return JobStory(
        attempts=[JobAttempt(*record) for record in attempts],
        history=[(record["at"], PaymentState(record["state"])) for record in history],
        metadata=metadata,
    )
