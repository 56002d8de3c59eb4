"""The SQL statements about disputes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from services.payments.domain.disputes import Dispute
from shared.database import Connection
from shared.gateways.disputes import DisputeState
from shared.money import Money

#: How long a look at the gateway may hold a dispute; longer than any gateway time-out.
LOOK_LEASE_SECONDS: Final = 60


def _dispute(record: asyncpg.Record) -> Dispute:
    fee = record["fee"]
    return Dispute(
        id=record["id"],
        payment_id=record["payment_id"],
        gateway=record["gateway"],
        handle=record["handle"],
        amount=Money(record["amount"], record["currency"]),
        state=DisputeState(record["state"]),
        reason=record["reason"],
        fee=None if fee is None else Money(fee, record["fee_currency"]),
        looks=record["looks"],
        next_look_at=record["next_look_at"],
        opened_at=record["opened_at"],
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        version=record["version"],
    )


# One row per dispute of a gateway, whoever hears of it first: the second waits and finds it.
_LOCK_BY_HANDLE: Final = """
    SELECT id, payment_id, gateway, handle, amount, currency, state, reason, fee, fee_currency,
           looks, next_look_at, opened_at, created_at, updated_at, version
      FROM dispute
     WHERE gateway = $1
       AND handle = $2
       FOR NO KEY UPDATE
"""


async def lock_by_handle(connection: Connection, gateway: str, handle: str) -> Dispute | None:
    """Return the dispute that a gateway knows by this name, and keep others from changing it.

    Call it with the payment's row locked: then nobody inserts it meanwhile.
    """
    record = await connection.fetchrow(_LOCK_BY_HANDLE, gateway, handle)
    return None if record is None else _dispute(record)


_INSERT: Final = """
    INSERT INTO dispute (id, payment_id, gateway, handle, amount, currency, state, reason, fee,
                         fee_currency, looks, next_look_at, opened_at, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14)
"""


async def insert_dispute(connection: Connection, dispute: Dispute) -> None:
    """Record a dispute that is new."""
    fee = dispute.fee
    await connection.execute(
        _INSERT,
        dispute.id,
        dispute.payment_id,
        dispute.gateway,
        dispute.handle,
        dispute.amount.minor_units,
        dispute.amount.currency,
        dispute.state,
        dispute.reason,
        None if fee is None else fee.minor_units,
        None if fee is None else fee.currency,
        dispute.looks,
        dispute.next_look_at,
        dispute.opened_at,
        dispute.created_at,
    )


_SAVE: Final = """
    UPDATE dispute
       SET state = $2,
           amount = $3,
           reason = $4,
           fee = $5,
           fee_currency = $6,
           looks = $7,
           next_look_at = $8,
           updated_at = $9,
           leased_until = NULL,
           version = version + 1
     WHERE id = $1
"""


async def save_dispute(connection: Connection, dispute: Dispute) -> None:
    """Write a dispute whose row is locked, and end its lease."""
    fee = dispute.fee
    await connection.execute(
        _SAVE,
        dispute.id,
        dispute.state,
        dispute.amount.minor_units,
        dispute.reason,
        None if fee is None else fee.minor_units,
        None if fee is None else fee.currency,
        dispute.looks,
        dispute.next_look_at,
        dispute.updated_at,
    )


_PUT_OFF: Final = """
    UPDATE dispute SET next_look_at = $2, leased_until = NULL WHERE id = $1 AND version = $3
"""


async def put_off_dispute(connection: Connection, dispute: Dispute, until: datetime) -> None:
    """Plan the next look at a dispute about which nothing was learnt."""
    await connection.execute(_PUT_OFF, dispute.id, until, dispute.version)


# Claimed by a lease on the database's clock; the due time itself is business time.
_CLAIM_DUE: Final = """
    UPDATE dispute
       SET leased_until = clock_timestamp() + make_interval(secs => $3)
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM dispute
                WHERE next_look_at <= $1
                  AND gateway <> ALL ($4::text[])
                  AND (leased_until IS NULL OR leased_until < clock_timestamp())
                ORDER BY next_look_at
                LIMIT $2
                  FOR UPDATE SKIP LOCKED))
 RETURNING id, payment_id, gateway, handle, amount, currency, state, reason, fee, fee_currency,
           looks, next_look_at, opened_at, created_at, updated_at, version
"""


async def claim_due_disputes(
    connection: Connection, now: datetime, limit: int, *, but_of: Sequence[str]
) -> list[Dispute]:
    """Take disputes whose next look is due, but not of the gateways in `but_of`."""
    records = await connection.fetch(_CLAIM_DUE, now, limit, LOOK_LEASE_SECONDS, but_of)
    return [_dispute(record) for record in records]


_IS_HELD_BY_OTHERS: Final = """
    SELECT EXISTS (SELECT
                     FROM dispute
                    WHERE payment_id = $1
                      AND id <> $2
                      AND state IN ('opened', 'lost'))
"""


async def is_held_by_others(connection: Connection, dispute: Dispute) -> bool:
    """Tell whether a bank has money of the same payment by another dispute."""
    held = await connection.fetchval(_IS_HELD_BY_OTHERS, dispute.payment_id, dispute.id)
    return bool(held)


_FIND: Final = """
    SELECT id, payment_id, gateway, handle, amount, currency, state, reason, fee, fee_currency,
           looks, next_look_at, opened_at, created_at, updated_at, version
      FROM dispute
     WHERE id = $1
"""


async def find_dispute(connection: Connection, dispute_id: str) -> Dispute | None:
    """Return a dispute."""
    record = await connection.fetchrow(_FIND, dispute_id)
    return None if record is None else _dispute(record)


# An id sorts before '~', so that the cursor is a condition of the index, with or without one.
_LIST: Final = """
    SELECT id, payment_id, gateway, handle, amount, currency, state, reason, fee, fee_currency,
           looks, next_look_at, opened_at, created_at, updated_at, version
      FROM dispute
     WHERE ($1::text IS NULL OR payment_id = $1)
       AND ($2::text IS NULL OR state = $2)
       AND ($3::text IS NULL OR gateway = $3)
       AND id < coalesce($4::text, '~')
     ORDER BY id DESC
     LIMIT $5
"""


async def list_disputes(
    connection: Connection,
    *,
    payment_id: str | None,
    state: str | None,
    gateway: str | None,
    before_id: str | None,
    limit: int,
) -> list[Dispute]:
    """Return disputes, newest first, that match every filter given."""
    records = await connection.fetch(_LIST, payment_id, state, gateway, before_id, limit)
    return [_dispute(record) for record in records]
