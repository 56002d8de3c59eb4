"""The SQL statements about refunds. What they reserve of a payment is kept by a trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

import asyncpg

from services.payments.domain.refunds import Refund, RefundState, Returned
from shared.database import Connection
from shared.errors import ConflictError
from shared.money import Money

#: How long whoever calls the gateway holds a refund: longer than the call may take.
REFUND_LEASE_SECONDS: Final = 60

#: What the guards of migration 0006 say of a new refund: the field, and what is wrong with it.
_REFUSALS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "refunds_within_amount": ("amount", "is more than is left to give back"),
        "refund_of_money_that_is_there": (
            "paymentId",
            "has no money that could be given back: not paid, given back, or disputed",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class NewRefund:
    """An order to give money back; `id` begins with `ref_`."""

    id: str
    payment_id: str
    gateway: str
    amount: Money
    reason: str
    requested_by: str
    created_at: datetime


def _refund(record: asyncpg.Record) -> Refund:
    return Refund(
        id=record["id"],
        payment_id=record["payment_id"],
        gateway=record["gateway"],
        amount=Money(record["amount"], record["currency"]),
        state=RefundState(record["state"]),
        reason=record["reason"],
        requested_by=record["requested_by"],
        detail=record["detail"],
        handle=record["handle"],
        sends=record["sends"],
        sent_at=record["sent_at"],
        looks=record["looks"],
        next_look_at=record["next_look_at"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        version=record["version"],
    )


_INSERT: Final = """
    INSERT INTO refund (id, payment_id, gateway, amount, currency, state, reason, requested_by,
                        next_look_at, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, 'requested', $6, $7, $8, $8, $8)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
"""


async def insert_refund(connection: Connection, new: NewRefund) -> bool:
    """Record a refund that is due at once, reserve its amount, and tell whether it is new.

    The payment's row is locked until the transaction ends.

    Raises:
        ConflictError: the payment has not as much left, or its money is not there. The database
            refuses it, whatever was read before; the transaction is then spoilt.
    """
    try:
        inserted = await connection.fetchval(
            _INSERT,
            new.id,
            new.payment_id,
            new.gateway,
            new.amount.minor_units,
            new.amount.currency,
            new.reason,
            new.requested_by,
            new.created_at,
        )
    except asyncpg.CheckViolationError as error:
        if (refusal := _REFUSALS.get(error.constraint_name or "")) is None:
            raise
        field, problem = refusal
        raise ConflictError(f"{field} {problem}", details={field: problem}) from error
    return inserted is not None


_FIND: Final = """
    SELECT id, payment_id, gateway, amount, currency, state, reason, requested_by, detail, handle,
           sends, sent_at, looks, next_look_at, created_at, updated_at, version
      FROM refund
     WHERE id = $1
"""


async def find_refund(connection: Connection, refund_id: str) -> Refund | None:
    """Return a refund."""
    record = await connection.fetchrow(_FIND, refund_id)
    return None if record is None else _refund(record)


_LOCK: Final = """
    SELECT id, payment_id, gateway, amount, currency, state, reason, requested_by, detail, handle,
           sends, sent_at, looks, next_look_at, created_at, updated_at, version
      FROM refund
     WHERE id = $1
       FOR NO KEY UPDATE
"""


async def lock_refund(connection: Connection, refund_id: str) -> Refund:
    """Return a refund that is there, and keep others from changing it in this transaction."""
    record = await connection.fetchrow(_LOCK, refund_id)
    assert record is not None, "refunds are never deleted"
    return _refund(record)


# The sends are counted, and committed, before the call that may be one.
_CLAIM: Final = """
    UPDATE refund
       SET leased_until = clock_timestamp() + make_interval(secs => $3),
           sends = CASE WHEN handle IS NULL THEN sends + 1 ELSE sends END,
           sent_at = coalesce(sent_at, CASE WHEN handle IS NULL THEN $2::timestamptz END),
           version = version + 1
     WHERE id = $1
       AND next_look_at <= $2
       AND (leased_until IS NULL OR leased_until < clock_timestamp())
 RETURNING id, payment_id, gateway, amount, currency, state, reason, requested_by, detail, handle,
           sends, sent_at, looks, next_look_at, created_at, updated_at, version
"""


async def claim_refund(connection: Connection, refund_id: str, now: datetime) -> Refund | None:
    """Take a refund that is due, for a call to its gateway; None when another has it."""
    record = await connection.fetchrow(_CLAIM, refund_id, now, REFUND_LEASE_SECONDS)
    return None if record is None else _refund(record)


# Claimed by a lease on the database's clock; the due time itself is business time.
_CLAIM_DUE: Final = """
    UPDATE refund
       SET leased_until = clock_timestamp() + make_interval(secs => $3),
           sends = CASE WHEN handle IS NULL THEN sends + 1 ELSE sends END,
           sent_at = coalesce(sent_at, CASE WHEN handle IS NULL THEN $1::timestamptz END),
           version = version + 1
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM refund
                WHERE next_look_at <= $1
                  AND gateway <> ALL ($4::text[])
                  AND (leased_until IS NULL OR leased_until < clock_timestamp())
                ORDER BY next_look_at
                LIMIT $2
                  FOR UPDATE SKIP LOCKED))
 RETURNING id, payment_id, gateway, amount, currency, state, reason, requested_by, detail, handle,
           sends, sent_at, looks, next_look_at, created_at, updated_at, version
"""


async def claim_due_refunds(
    connection: Connection, now: datetime, limit: int, *, but_of: Sequence[str]
) -> list[Refund]:
    """Take refunds that are due, for a call to their gateways, but not of those in `but_of`."""
    records = await connection.fetch(_CLAIM_DUE, now, limit, REFUND_LEASE_SECONDS, but_of)
    return [_refund(record) for record in records]


_CLAIM_UNKNOWN: Final = """
    UPDATE refund
       SET leased_until = clock_timestamp() + make_interval(secs => $2),
           version = version + 1
     WHERE id = $1
       AND state = 'unknown'
       AND (leased_until IS NULL OR leased_until < clock_timestamp())
 RETURNING id, payment_id, gateway, amount, currency, state, reason, requested_by, detail, handle,
           sends, sent_at, looks, next_look_at, created_at, updated_at, version
"""


async def claim_unknown_refund(connection: Connection, refund_id: str) -> Refund | None:
    """Take a refund of which nothing is known; None when it is no such, or is asked about."""
    record = await connection.fetchrow(_CLAIM_UNKNOWN, refund_id, REFUND_LEASE_SECONDS)
    return None if record is None else _refund(record)


_SAVE: Final = """
    UPDATE refund
       SET state = $3,
           detail = $4,
           handle = $5,
           sends = $6,
           sent_at = $7,
           looks = $8,
           next_look_at = $9,
           updated_at = $10,
           leased_until = NULL,
           version = version + 1
     WHERE id = $1
       AND version = $2
 RETURNING id
"""


async def save_refund(connection: Connection, refund: Refund) -> bool:
    """Write a refund, if nobody has since it was read or claimed, and end its lease."""
    saved = await connection.fetchval(
        _SAVE,
        refund.id,
        refund.version,
        refund.state,
        refund.detail,
        refund.handle,
        refund.sends,
        refund.sent_at,
        refund.looks,
        refund.next_look_at,
        refund.updated_at,
    )
    return saved is not None


_LOOK_NOW: Final = """
    UPDATE refund
       SET next_look_at = $2
     WHERE payment_id = ANY($1::text[])
       AND state <> 'failed'
       AND (next_look_at IS NULL OR next_look_at > $2)
"""


async def look_now(connection: Connection, payment_ids: Sequence[str], now: datetime) -> None:
    """Let the refunds of payments be looked at at once: something was heard of them."""
    await connection.execute(_LOOK_NOW, payment_ids, now)


_RETURNED: Final = "SELECT refunded_amount, refund_reserved FROM payment WHERE id = $1"


async def find_returned(connection: Connection, payment_id: str) -> Returned:
    """Return what of a payment that is there has been given back, and what is about to be."""
    record = await connection.fetchrow(_RETURNED, payment_id)
    assert record is not None, "payments are never deleted"
    return Returned(record["refunded_amount"], record["refund_reserved"])


# The ledger has the attempt under which the money was taken; the payment may point to a later one.
_PAID_REFERENCE: Final = """
    SELECT coalesce(
               (SELECT ledger_transfer.reference
                  FROM ledger_transfer
                 WHERE payment_id = payment.id
                   AND kind = 'capture'
                   AND ledger_transfer.reference IS NOT NULL
                 ORDER BY at DESC
                 LIMIT 1),
               reference)
      FROM payment
     WHERE id = $1
"""


async def find_paid_reference(connection: Connection, payment_id: str) -> str:
    """Return our name for the attempt under which a payment was paid."""
    reference = await connection.fetchval(_PAID_REFERENCE, payment_id)
    assert reference is not None, "payments are never deleted"
    return str(reference)


# An id sorts before '~', so that the cursor is a condition of the index, with or without one.
_LIST: Final = """
    SELECT id, payment_id, gateway, amount, currency, state, reason, requested_by, detail, handle,
           sends, sent_at, looks, next_look_at, created_at, updated_at, version
      FROM refund
     WHERE ($1::text IS NULL OR payment_id = $1)
       AND ($2::text IS NULL OR state = $2)
       AND ($3::text IS NULL OR gateway = $3)
       AND id < coalesce($4::text, '~')
     ORDER BY id DESC
     LIMIT $5
"""


async def list_refunds(
    connection: Connection,
    *,
    payment_id: str | None,
    state: str | None,
    gateway: str | None,
    before_id: str | None,
    limit: int,
) -> list[Refund]:
    """Return refunds, newest first, that match every filter given."""
    records = await connection.fetch(_LIST, payment_id, state, gateway, before_id, limit)
    return [_refund(record) for record in records]
