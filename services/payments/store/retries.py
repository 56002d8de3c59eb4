"""The SQL statements about retries: who may run one, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import orjson

from services.payments.domain.retries import Retry, RetryState
from shared.contracts.priorities import Priority
from shared.database import Connection
from shared.gateways.interface import FailureKind
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Claim:
    """A retry that this worker may run, until its lease is over."""

    retry: Retry
    #: Somebody else had it and did not come back: what became of the try is not known.
    was_running: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The live try of a payment, and what is known of retries."""

    reference: str
    #: Which try of its payment it is.
    number: int
    #: `started`, `put_off`, `open`, `refused` or `abandoned`.
    state: str
    started_at: datetime
    retry: Retry | None

    @property
    def tries(self) -> int:
        """Tries that reached the gateway, or may have."""
        return self.number - (self.state == "put_off")


def retry_of(record: asyncpg.Record) -> Retry:
    """Read a row that has every column of a retry."""
    failures: dict[str, int] = orjson.loads(record["failures"])
    return Retry(
        payment_id=record["payment_id"],
        state=RetryState(record["state"]),
        gateway=record["gateway"],
        priority=Priority(record["priority"]),
        customer_id=record["customer_id"],
        product_id=record["product_id"],
        amount=Money(record["amount"], record["currency"]),
        kind=FailureKind(record["kind"]),
        code=record["code"],
        failures={FailureKind(kind): count for kind, count in failures.items()},
        attempts_made=record["attempts_made"],
        failed_reference=record["failed_reference"],
        lost_reference=record["lost_reference"],
        asked=record["asked"],
        continues=record["continues"],
        next_attempt_at=record["next_attempt_at"],
        waits_for=record["waits_for"],
        token=record["token"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        finished_at=record["finished_at"],
        metadata=orjson.loads(record["metadata"]),
    )


# Taken by gateway, because one may be paused or broken. The lease is on the database's clock; the
# due time itself is business time.
_CLAIM_DUE: Final = """
    UPDATE retry
       SET state = 'running',
           token = token + 1,
           leased_until = clock_timestamp() + make_interval(secs => $6),
           updated_at = $1
     WHERE payment_id = ANY (ARRAY(
               SELECT due.payment_id
                 FROM unnest($3::text[], $4::int[]) AS allowed (gateway, most)
                CROSS JOIN LATERAL (
                      SELECT payment_id, next_attempt_at
                        FROM retry
                       WHERE retry.gateway = allowed.gateway
                         AND priority = $2
                         AND state = 'scheduled'
                         AND next_attempt_at <= $1
                       ORDER BY next_attempt_at
                       LIMIT allowed.most
                         FOR UPDATE SKIP LOCKED) AS due
                ORDER BY due.next_attempt_at
                LIMIT $5))
       AND state = 'scheduled'
 RETURNING payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
           code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
           next_attempt_at, waits_for, metadata, token, created_at, updated_at, finished_at
"""


async def claim_due(  # noqa: PLR0917 - what may be taken has that many sides
    connection: Connection,
    now: datetime,
    priority: Priority,
    allowed: Mapping[str, int],
    limit: int,
    lease_seconds: float,
) -> list[Claim]:
    """Take due retries of one priority; nobody else gets them before the lease is over.

    Args:
        connection: Any.
        now: Business time.
        priority: Whose turn it is.
        allowed: The gateways that may be called, each with the most of its retries to take.
        limit: The most to take in all.
        lease_seconds: How long they are ours.
    """
    records = await connection.fetch(
        _CLAIM_DUE, now, priority, [*allowed], [*allowed.values()], limit, lease_seconds
    )
    return [Claim(retry_of(record), was_running=False) for record in records]


_CLAIM_LEFT: Final = """
    UPDATE retry
       SET token = token + 1,
           leased_until = clock_timestamp() + make_interval(secs => $3),
           updated_at = $1
     WHERE payment_id = ANY (ARRAY(
               SELECT payment_id
                 FROM retry
                WHERE leased_until < clock_timestamp()
                ORDER BY leased_until
                LIMIT $2
                  FOR UPDATE SKIP LOCKED))
 RETURNING payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
           code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
           next_attempt_at, waits_for, metadata, token, created_at, updated_at, finished_at
"""


async def claim_left(
    connection: Connection, now: datetime, limit: int, lease_seconds: float
) -> list[Claim]:
    """Take retries whose worker did not come back before its lease was over."""
    records = await connection.fetch(_CLAIM_LEFT, now, limit, lease_seconds)
    return [Claim(retry_of(record), was_running=True) for record in records]


_LOCK_CLAIM: Final = """
    SELECT extract(epoch FROM leased_until - clock_timestamp())::float
      FROM retry
     WHERE payment_id = $1
       AND token = $2
       AND state = 'running'
       AND leased_until IS NOT NULL
       FOR UPDATE
"""


async def lock_claim(connection: Connection, claim: Claim) -> float | None:
    """Return the seconds that a claim still holds, and keep it so; None when it is no longer ours.

    The payment must be locked before it: everybody locks in this order.
    """
    remaining: float | None = await connection.fetchval(
        _LOCK_CLAIM, claim.retry.payment_id, claim.retry.token
    )
    return remaining


_INSERT_ATTEMPT: Final = """
    INSERT INTO retry_attempt (payment_id, number, reference, due_at, begun_at)
    VALUES ($1, $2, $3, $4, $5)
"""

_COUNT_ATTEMPT: Final = """
    UPDATE retry
       SET attempts_made = attempts_made + $3::int,
           next_attempt_at = NULL,
           waits_for = NULL,
           updated_at = $4
     WHERE payment_id = $1
       AND token = $2
"""

# The customer has as long as for a first try.
_ALLOW_RETRIES: Final = """
    UPDATE payment
       SET retries_automatically = true, expires_at = greatest(expires_at, $2)
     WHERE id = $1
"""


async def allow_retries(connection: Connection, payment_id: str, expires_at: datetime) -> None:
    """Let a locked payment wait until `expires_at`, and its failures be asked about here."""
    await connection.execute(_ALLOW_RETRIES, payment_id, expires_at)


@dataclass(frozen=True, slots=True)
class Begun:
    """A retry that is about to be sent."""

    reference: str
    number: int
    due_at: datetime
    begun_at: datetime
    #: False of one that takes the place of a try that never reached the gateway.
    is_counted: bool


async def begin_attempt(connection: Connection, claim: Claim, begun: Begun) -> None:
    """Record a retry of a locked claim.

    Raises:
        asyncpg.UniqueViolationError: somebody else began the same one.
    """
    payment_id = claim.retry.payment_id
    await connection.execute(
        _INSERT_ATTEMPT, payment_id, begun.number, begun.reference, begun.due_at, begun.begun_at
    )
    await connection.execute(
        _COUNT_ATTEMPT, payment_id, claim.retry.token, int(begun.is_counted), begun.begun_at
    )


_PUT_OFF: Final = """
    UPDATE retry
       SET state = 'scheduled', next_attempt_at = $3, waits_for = $4, leased_until = NULL
     WHERE payment_id = $1
       AND token = $2
       AND state = 'running'
       AND leased_until IS NOT NULL
"""


async def put_off(connection: Connection, claim: Claim, until: datetime, waits_for: str) -> bool:
    """Give a claim back to be taken later; nothing was tried. False when it is no longer ours."""
    status = await connection.execute(
        _PUT_OFF, claim.retry.payment_id, claim.retry.token, until, waits_for
    )
    return status == "UPDATE 1"


_LET_GO: Final = """
    UPDATE retry SET leased_until = NULL WHERE payment_id = $1 AND token = $2 AND state = 'running'
"""


async def let_go(connection: Connection, claim: Claim) -> None:
    """Leave a retry that the gateway has taken on to the reconciler and to notices."""
    await connection.execute(_LET_GO, claim.retry.payment_id, claim.retry.token)


_FIND: Final = """
    SELECT payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
           code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
           next_attempt_at, waits_for, metadata, token, created_at, updated_at, finished_at
      FROM retry
     WHERE payment_id = $1
"""


async def find_retry(connection: Connection, payment_id: str) -> Retry | None:
    """Return the retry of a payment, if it has one."""
    record = await connection.fetchrow(_FIND, payment_id)
    return None if record is None else retry_of(record)


async def has_open_retry(connection: Connection, payment_id: str) -> bool:
    """Tell whether a payment may still be tried again."""
    retry = await find_retry(connection, payment_id)
    return retry is not None and retry.is_open


_LOCK: Final = """
    SELECT payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
           code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
           next_attempt_at, waits_for, metadata, token, created_at, updated_at, finished_at
      FROM retry
     WHERE payment_id = $1
       FOR UPDATE
"""


async def lock_retry(connection: Connection, payment_id: str) -> Retry | None:
    """Return the retry of a payment that is locked, and keep others from changing it."""
    record = await connection.fetchrow(_LOCK, payment_id)
    return None if record is None else retry_of(record)


_FIND_STANDINGS: Final = """
    SELECT attempt.reference AS live_reference, attempt.payment_id AS of_payment, attempt.number,
           attempt.state AS attempt_state, attempt.created_at AS started_at,
           retry.payment_id, retry.state, gateway, priority, customer_id, product_id, amount,
           currency, kind, code, failures, attempts_made, failed_reference, lost_reference, asked,
           continues, next_attempt_at, waits_for, metadata, token, retry.created_at, updated_at,
           finished_at
      FROM attempt
      LEFT JOIN retry ON retry.payment_id = attempt.payment_id
     WHERE attempt.reference = ANY($1::text[])
"""


async def find_standings(connection: Connection, references: Sequence[str]) -> dict[str, Standing]:
    """Return tries with the retry of their payment, if any, by payment id."""
    records = await connection.fetch(_FIND_STANDINGS, references)
    return {
        record["of_payment"]: Standing(
            reference=record["live_reference"],
            number=record["number"],
            state=record["attempt_state"],
            started_at=record["started_at"],
            retry=None if record["payment_id"] is None else retry_of(record),
        )
        for record in records
    }


# A new number for each write: whoever had claimed it before writes nothing any more.
_SAVE: Final = """
    INSERT INTO retry AS known
           (payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
            code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
            next_attempt_at, waits_for, metadata, created_at, updated_at, finished_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            $20, $21, $22)
        ON CONFLICT (payment_id) DO UPDATE
       SET state = excluded.state,
           kind = excluded.kind,
           code = excluded.code,
           failures = excluded.failures,
           failed_reference = excluded.failed_reference,
           lost_reference = excluded.lost_reference,
           asked = excluded.asked,
           continues = excluded.continues,
           next_attempt_at = excluded.next_attempt_at,
           waits_for = excluded.waits_for,
           metadata = excluded.metadata,
           updated_at = excluded.updated_at,
           finished_at = excluded.finished_at,
           leased_until = NULL,
           token = known.token + 1
"""


async def save_retry(connection: Connection, retry: Retry) -> None:
    """Write a retry as it was decided.

    The payment must be locked, or saved by its version, earlier in the same transaction: then
    nobody can have begun a try meanwhile.
    """
    await connection.execute(
        _SAVE,
        retry.payment_id,
        retry.state,
        retry.gateway,
        retry.priority,
        retry.customer_id,
        retry.product_id,
        retry.amount.minor_units,
        retry.amount.currency,
        retry.kind,
        retry.code,
        orjson.dumps({str(kind): count for kind, count in retry.failures.items()}).decode(),
        retry.attempts_made,
        retry.failed_reference,
        retry.lost_reference,
        retry.asked,
        retry.continues,
        retry.next_attempt_at,
        retry.waits_for,
        orjson.dumps(dict(retry.metadata)).decode(),
        retry.created_at,
        retry.updated_at,
        retry.finished_at,
    )
