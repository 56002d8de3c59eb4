"""SQL of Campay's transactions, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from services.simulator.campay.domain import MERCHANT_SHARE_PER_CENT, Kind, State, Transaction
from shared.database import Connection

_INSERT_TRANSACTION: Final = """
    INSERT INTO campay_transaction (
               reference, external_reference, kind, state, amount, phone, operator, description,
               external_user, first_name, last_name, email, link_key, redirect_url, failure_url,
               code, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
"""


async def insert_transaction(connection: Connection, transaction: Transaction) -> None:
    """Store a new prompt, link or withdrawal."""
    await connection.execute(
        _INSERT_TRANSACTION,
        transaction.reference,
        transaction.external_reference,
        transaction.kind,
        transaction.state,
        transaction.amount,
        transaction.phone,
        transaction.operator,
        transaction.description,
        transaction.external_user,
        transaction.first_name,
        transaction.last_name,
        transaction.email,
        transaction.link_key,
        transaction.redirect_url,
        transaction.failure_url,
        transaction.code,
        transaction.created_at,
        transaction.expires_at,
    )


# Held until the transaction ends, so that two calls with one reference find each other.
_LOCK_REFERENCE: Final = """
    SELECT pg_advisory_xact_lock(hashtextextended('campay ' || $1, 0))
"""


async def lock_reference(connection: Connection, external_reference: str) -> None:
    """Keep other calls with the merchant's reference waiting until the transaction ends."""
    await connection.execute(_LOCK_REFERENCE, external_reference)


_FIND_TRANSACTION: Final = """
    SELECT reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at
      FROM campay_transaction
     WHERE reference = $1
"""


async def find_transaction(connection: Connection, reference: UUID) -> Transaction | None:
    """Read a transaction by the gateway's reference."""
    row = await connection.fetchrow(_FIND_TRANSACTION, reference)
    return None if row is None else _transaction(row)


_LOCK_TRANSACTION: Final = """
    SELECT reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at
      FROM campay_transaction
     WHERE reference = $1
       FOR UPDATE
"""


async def lock_transaction(connection: Connection, reference: UUID) -> Transaction | None:
    """Read a transaction and keep others from deciding about it until the end."""
    row = await connection.fetchrow(_LOCK_TRANSACTION, reference)
    return None if row is None else _transaction(row)


_FIND_LINK: Final = """
    SELECT reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at
      FROM campay_transaction
     WHERE link_key = $1
"""


async def find_link(connection: Connection, link_key: str) -> Transaction | None:
    """Read a transaction by the end of its link."""
    row = await connection.fetchrow(_FIND_LINK, link_key)
    return None if row is None else _transaction(row)


_LIST_OF_REFERENCE: Final = """
    SELECT reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at
      FROM campay_transaction
     WHERE external_reference = $1
     ORDER BY created_at DESC, reference
     LIMIT $2
"""


async def list_of_reference(
    connection: Connection, external_reference: str, limit: int
) -> Sequence[Transaction]:
    """Read the transactions of a merchant's reference, the newest first."""
    rows = await connection.fetch(_LIST_OF_REFERENCE, external_reference, limit)
    return [_transaction(row) for row in rows]


_LIST_OF_DAYS: Final = """
    SELECT reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at
      FROM campay_transaction
     WHERE created_at >= $1
       AND created_at < $2
     ORDER BY created_at DESC, reference
     LIMIT $3
"""


async def list_of_days(
    connection: Connection, since: datetime, before: datetime, limit: int
) -> Sequence[Transaction]:
    """Read the transactions of some days, the newest first."""
    rows = await connection.fetch(_LIST_OF_DAYS, since, before, limit)
    return [_transaction(row) for row in rows]


_COUNT_READ: Final = """
    UPDATE campay_transaction
       SET reads = reads + (state = 'SUCCESSFUL')::integer
     WHERE reference = $1
 RETURNING reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at,
           reads
"""


async def count_read(connection: Connection, reference: UUID) -> tuple[Transaction, int] | None:
    """Read a transaction, and the how-manieth read of its status this is since it was paid."""
    row = await connection.fetchrow(_COUNT_READ, reference)
    return None if row is None else (_transaction(row), row["reads"])


_SAVE_STATE: Final = """
    UPDATE campay_transaction SET state = $2, reason = $3 WHERE reference = $1
"""


async def save_state(
    connection: Connection, reference: UUID, state: State, reason: str | None = None
) -> None:
    """Write the state of a locked transaction."""
    await connection.execute(_SAVE_STATE, reference, state, reason)


_SAVE_PAID: Final = """
    UPDATE campay_transaction
       SET state = 'SUCCESSFUL',
           charged = $2,
           phone = $3,
           operator = $4,
           operator_reference = $5,
           confirmed_at = $6
     WHERE reference = $1
"""


async def save_paid(connection: Connection, transaction: Transaction) -> None:
    """Write that a locked transaction was paid."""
    await connection.execute(
        _SAVE_PAID,
        transaction.reference,
        transaction.charged,
        transaction.phone,
        transaction.operator,
        transaction.operator_reference,
        transaction.confirmed_at,
    )


_CLAIM_LAPSED: Final = """
    SELECT reference, external_reference, kind, state, amount, charged, phone, operator,
           description, external_user, first_name, last_name, email, link_key, redirect_url,
           failure_url, code, operator_reference, reason, created_at, confirmed_at, expires_at
      FROM campay_transaction
     WHERE state IN ('CREATED', 'PENDING')
       AND expires_at <= $1
     ORDER BY expires_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""


async def claim_lapsed(connection: Connection, now: datetime, limit: int) -> Sequence[Transaction]:
    """Lock prompts and links whose time is over."""
    return [_transaction(row) for row in await connection.fetch(_CLAIM_LAPSED, now, limit)]


# What is being withdrawn is not there any more.
_SUM_BALANCE: Final = """
    SELECT coalesce(sum(charged * $2 / 100)
                    FILTER (WHERE kind <> 'withdraw' AND state = 'SUCCESSFUL'), 0)::bigint
         - coalesce(sum(amount)
                    FILTER (WHERE kind = 'withdraw' AND state <> 'FAILED'), 0)::bigint
      FROM campay_transaction
     WHERE operator = $1
"""


async def sum_balance(connection: Connection, operator: str) -> int:
    """Add up what the application holds with an operator, in XAF."""
    total = await connection.fetchval(_SUM_BALANCE, operator, MERCHANT_SHARE_PER_CENT)
    assert isinstance(total, int)
    return total


def _transaction(row: asyncpg.Record) -> Transaction:
    return Transaction(
        reference=row["reference"],
        external_reference=row["external_reference"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        amount=row["amount"],
        charged=row["charged"],
        phone=row["phone"],
        operator=row["operator"],
        description=row["description"],
        external_user=row["external_user"],
        first_name=row["first_name"],
        last_name=row["last_name"],
        email=row["email"],
        link_key=row["link_key"],
        redirect_url=row["redirect_url"],
        failure_url=row["failure_url"],
        code=row["code"],
        operator_reference=row["operator_reference"],
        reason=row["reason"],
        created_at=row["created_at"],
        confirmed_at=row["confirmed_at"],
        expires_at=row["expires_at"],
    )
