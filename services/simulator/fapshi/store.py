"""SQL of Fapshi's transactions, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from services.simulator.fapshi.domain import Kind, State, Transaction
from services.simulator.fapshi.payment_request import MEDIA, Search
from shared.database import Connection


@dataclass(frozen=True, slots=True)
class StatusRead:
    """A read of a status: the how-manieth since it was paid, and whether it is one too many."""

    transaction: Transaction
    number: int
    is_limited: bool


_INSERT_TRANSACTION: Final = """
    INSERT INTO fapshi_transaction (
               trans_id, reference, kind, state, amount, link_key, phone, name, email, user_id,
               external_id, redirect_url, message, initiated_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""


async def insert_transaction(connection: Connection, transaction: Transaction) -> None:
    """Store a new link or prompt."""
    await connection.execute(
        _INSERT_TRANSACTION,
        transaction.trans_id,
        transaction.reference,
        transaction.kind,
        transaction.state,
        transaction.amount,
        transaction.link_key,
        transaction.phone,
        transaction.name,
        transaction.email,
        transaction.user_id,
        transaction.external_id,
        transaction.redirect_url,
        transaction.message,
        transaction.initiated_at,
        transaction.expires_at,
    )


_FIND_TRANSACTION: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE trans_id = $1
"""


async def find_transaction(connection: Connection, trans_id: str) -> Transaction | None:
    """Read a transaction by its id."""
    row = await connection.fetchrow(_FIND_TRANSACTION, trans_id)
    return None if row is None else _transaction(row)


_LOCK_TRANSACTION: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE trans_id = $1
       FOR UPDATE
"""


async def lock_transaction(connection: Connection, trans_id: str) -> Transaction | None:
    """Read a transaction and keep others from deciding about it until the end."""
    row = await connection.fetchrow(_LOCK_TRANSACTION, trans_id)
    return None if row is None else _transaction(row)


_FIND_LINK: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE link_key = $1
"""


async def find_link(connection: Connection, link_key: str) -> Transaction | None:
    """Read a transaction by the end of its link."""
    row = await connection.fetchrow(_FIND_LINK, link_key)
    return None if row is None else _transaction(row)


_LIST_OF_REFERENCE: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE reference = $1
     ORDER BY initiated_at DESC, trans_id
     LIMIT $2
"""


async def list_of_reference(
    connection: Connection, reference: str, limit: int
) -> Sequence[Transaction]:
    """Read the transactions of a merchant's reference, the newest first."""
    rows = await connection.fetch(_LIST_OF_REFERENCE, reference, limit)
    return [_transaction(row) for row in rows]


_LIST_OF_USER: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE user_id = $1
     ORDER BY initiated_at DESC, trans_id
     LIMIT $2
"""


async def list_of_user(connection: Connection, user_id: str, limit: int) -> Sequence[Transaction]:
    """Read the transactions of a merchant's user, the newest first."""
    return [_transaction(row) for row in await connection.fetch(_LIST_OF_USER, user_id, limit)]


_SEARCH: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE ($1::text IS NULL OR state = $1)
       AND ($2::timestamptz IS NULL OR initiated_at >= $2)
       AND ($3::timestamptz IS NULL OR initiated_at < $3)
       AND ($4::bigint IS NULL OR amount = $4)
       AND ($5::text IS NULL OR phone ~ $5)
     ORDER BY CASE WHEN $6 THEN initiated_at END DESC, initiated_at, trans_id
     LIMIT $7
"""

#: The phones of each medium, as PostgreSQL understands it.
_PHONES_OF: Final = {
    MEDIA["mtn"]: "^6(7|8[0-3]|5[0-4])",
    MEDIA["orange"]: "^6(9|8[6-9]|5[5-9]|40)",
}


async def search(connection: Connection, wish: Search) -> Sequence[Transaction]:
    """Read the transactions that a search asks for."""
    rows = await connection.fetch(
        _SEARCH,
        wish.state,
        wish.since,
        wish.before,
        wish.amount,
        None if wish.medium is None else _PHONES_OF[wish.medium],
        wish.newest_first,
        wish.limit,
    )
    return [_transaction(row) for row in rows]


# Reads that are refused do not count, so that a client that is too quick is answered now and then.
_COUNT_READ: Final = """
      WITH earlier AS (
               SELECT trans_id,
                      ARRAY(SELECT at
                              FROM unnest(recent_reads) AS at
                             WHERE at > $2::timestamptz - interval '60 s') AS at
                 FROM fapshi_transaction
                WHERE trans_id = $1
                  FOR UPDATE
           )
    UPDATE fapshi_transaction AS transaction
       SET reads = reads + (state = 'SUCCESSFUL')::integer,
           recent_reads = CASE
               WHEN cardinality(earlier.at) < $3 THEN earlier.at || $2::timestamptz
               ELSE earlier.at
           END
      FROM earlier
     WHERE transaction.trans_id = earlier.trans_id
 RETURNING transaction.trans_id, reference, kind, state, amount, charged, link_key, phone, name,
           email, user_id, external_id, redirect_url, message, reason, financial_trans_id,
           initiated_at, confirmed_at, expires_at, reads,
           $3::integer > 0 AND cardinality(earlier.at) >= $3 AS is_limited
"""


async def count_read(
    connection: Connection, trans_id: str, now: datetime, per_minute_max: int
) -> StatusRead | None:
    """Count a read of a status; with a greatest number of 0 there may be any number."""
    row = await connection.fetchrow(_COUNT_READ, trans_id, now, per_minute_max)
    return None if row is None else StatusRead(_transaction(row), row["reads"], row["is_limited"])


_SAVE_STATE: Final = """
    UPDATE fapshi_transaction SET state = $2, reason = $3 WHERE trans_id = $1
"""


async def save_state(
    connection: Connection, trans_id: str, state: State, reason: str | None = None
) -> None:
    """Write the state of a locked transaction."""
    await connection.execute(_SAVE_STATE, trans_id, state, reason)


_SAVE_PAID: Final = """
    UPDATE fapshi_transaction
       SET state = 'SUCCESSFUL',
           charged = $2,
           financial_trans_id = $3,
           confirmed_at = $4,
           phone = coalesce(phone, $5),
           reason = NULL
     WHERE trans_id = $1
"""


async def save_paid(connection: Connection, transaction: Transaction) -> None:
    """Write that a locked transaction was paid."""
    await connection.execute(
        _SAVE_PAID,
        transaction.trans_id,
        transaction.charged,
        transaction.financial_trans_id,
        transaction.confirmed_at,
        transaction.phone,
    )


_CLAIM_LAPSED: Final = """
    SELECT trans_id, reference, kind, state, amount, charged, link_key, phone, name, email,
           user_id, external_id, redirect_url, message, reason, financial_trans_id, initiated_at,
           confirmed_at, expires_at
      FROM fapshi_transaction
     WHERE (state IN ('CREATED', 'PENDING') OR (kind = 'link' AND state = 'FAILED'))
       AND expires_at <= $1
     ORDER BY expires_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""


async def claim_lapsed(connection: Connection, now: datetime, limit: int) -> Sequence[Transaction]:
    """Lock links and prompts whose time is over."""
    return [_transaction(row) for row in await connection.fetch(_CLAIM_LAPSED, now, limit)]


_SUM_CHARGED: Final = """
    SELECT coalesce(sum(charged), 0)::bigint FROM fapshi_transaction
"""


async def sum_charged(connection: Connection) -> int:
    """Add up what customers have paid, in XAF."""
    total = await connection.fetchval(_SUM_CHARGED)
    assert isinstance(total, int)
    return total


def _transaction(row: asyncpg.Record) -> Transaction:
    return Transaction(
        trans_id=row["trans_id"],
        reference=row["reference"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        amount=row["amount"],
        charged=row["charged"],
        link_key=row["link_key"],
        phone=row["phone"],
        name=row["name"],
        email=row["email"],
        user_id=row["user_id"],
        external_id=row["external_id"],
        redirect_url=row["redirect_url"],
        message=row["message"],
        reason=row["reason"],
        financial_trans_id=row["financial_trans_id"],
        initiated_at=row["initiated_at"],
        confirmed_at=row["confirmed_at"],
        expires_at=row["expires_at"],
    )
