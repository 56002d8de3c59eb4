"""SQL of the chain: balances and authorizations, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

import asyncpg

from shared.database import Connection

#: What every address has before anything happens to it, in atomic units: a thousand million USDC.
START_BALANCE: Final = Decimal(10**15)


class State(StrEnum):
    """Where an authorization stands; the steps between are in the table `transition`."""

    BROADCAST = "broadcast"
    USED = "used"
    DROPPED = "dropped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Submitted:
    """An authorization that was submitted, or cancelled by its payer.

    `is_settled`: the facilitator has said that it succeeded, and says so no second time.
    """

    network: str
    token: str
    payer: str
    nonce: str
    state: State
    recipient: str
    value: int
    valid_before: int
    transaction_hash: str
    is_settled: bool
    submitted_at: datetime
    mines_at: datetime | None = None
    mined_at: datetime | None = None


_INSERT_SUBMITTED: Final = """
    INSERT INTO x402_authorization (
               network, token, payer, nonce, state, recipient, value, valid_before,
               transaction_hash, is_settled, submitted_at, mines_at, mined_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        ON CONFLICT (network, token, payer, nonce) DO NOTHING
 RETURNING true
"""


async def insert_submitted(connection: Connection, submitted: Submitted) -> bool:
    """Store an authorization; tell whether its nonce was new."""
    inserted = await connection.fetchval(
        _INSERT_SUBMITTED,
        submitted.network,
        submitted.token,
        submitted.payer,
        submitted.nonce,
        submitted.state,
        submitted.recipient,
        Decimal(submitted.value),
        Decimal(submitted.valid_before),
        submitted.transaction_hash,
        submitted.is_settled,
        submitted.submitted_at,
        submitted.mines_at,
        submitted.mined_at,
    )
    return inserted is True


_SAVE_SUBMITTED: Final = """
    UPDATE x402_authorization
       SET state = $5, is_settled = $6, mines_at = $7, mined_at = $8
     WHERE network = $1
       AND token = $2
       AND payer = $3
       AND nonce = $4
"""


async def save_submitted(connection: Connection, submitted: Submitted) -> None:
    """Write what may change of a locked authorization; a trigger refuses impossible steps."""
    await connection.execute(
        _SAVE_SUBMITTED,
        submitted.network,
        submitted.token,
        submitted.payer,
        submitted.nonce,
        submitted.state,
        submitted.is_settled,
        submitted.mines_at,
        submitted.mined_at,
    )


_LOCK_SUBMITTED: Final = """
    SELECT network, token, payer, nonce, state, recipient, value, valid_before, transaction_hash,
           is_settled, submitted_at, mines_at, mined_at
      FROM x402_authorization
     WHERE network = $1
       AND token = $2
       AND payer = $3
       AND nonce = $4
       FOR UPDATE
"""


async def lock_submitted(
    connection: Connection, network: str, token: str, payer: str, nonce: str
) -> Submitted | None:
    """Read an authorization and keep others from deciding about it."""
    row = await connection.fetchrow(_LOCK_SUBMITTED, network, token, payer, nonce)
    return None if row is None else _submitted(row)


_CLAIM_DUE: Final = """
    SELECT network, token, payer, nonce, state, recipient, value, valid_before, transaction_hash,
           is_settled, submitted_at, mines_at, mined_at
      FROM x402_authorization
     WHERE state = 'broadcast'
       AND mines_at <= $1
     ORDER BY mines_at
     LIMIT 1
       FOR UPDATE SKIP LOCKED
"""


async def claim_due(connection: Connection, now: datetime) -> Submitted | None:
    """Lock an authorization that the next block takes."""
    row = await connection.fetchrow(_CLAIM_DUE, now)
    return None if row is None else _submitted(row)


_LIST_OF_NONCE: Final = """
    SELECT network, token, payer, nonce, state, recipient, value, valid_before, transaction_hash,
           is_settled, submitted_at, mines_at, mined_at
      FROM x402_authorization
     WHERE nonce = $1
     ORDER BY submitted_at DESC
     LIMIT $2
"""


async def list_of_nonce(connection: Connection, nonce: str, limit: int) -> Sequence[Submitted]:
    """Read the authorizations with a nonce, of all payers, the newest first."""
    return [_submitted(row) for row in await connection.fetch(_LIST_OF_NONCE, nonce, limit)]


_FIND_TRANSACTION: Final = """
    SELECT network, token, payer, nonce, state, recipient, value, valid_before, transaction_hash,
           is_settled, submitted_at, mines_at, mined_at
      FROM x402_authorization
     WHERE transaction_hash = $1
"""


async def find_transaction(connection: Connection, transaction_hash: str) -> Submitted | None:
    """Read the authorization that a transaction carries."""
    row = await connection.fetchrow(_FIND_TRANSACTION, transaction_hash)
    return None if row is None else _submitted(row)


_LIST_MINED: Final = """
    SELECT network, token, payer, nonce, state, recipient, value, valid_before, transaction_hash,
           is_settled, submitted_at, mines_at, mined_at
      FROM x402_authorization
     WHERE network = $1
       AND mined_at >= $2
       AND mined_at < $3
       AND ($4::text IS NULL OR payer = $4)
     ORDER BY mined_at, transaction_hash
     LIMIT $5
"""


async def list_mined(
    connection: Connection,
    network: str,
    between: tuple[datetime, datetime],
    payer: str | None,
    limit: int,
) -> Sequence[Submitted]:
    """Read what blocks took from one moment (included) to another (excluded)."""
    rows = await connection.fetch(_LIST_MINED, network, *between, payer, limit)
    return [_submitted(row) for row in rows]


_FIND_BALANCE: Final = """
    SELECT amount FROM x402_balance WHERE network = $1 AND token = $2 AND address = $3
"""


async def find_balance(connection: Connection, network: str, token: str, address: str) -> int:
    """Read what an address has."""
    amount = await connection.fetchval(_FIND_BALANCE, network, token, address)
    return int(START_BALANCE if amount is None else amount)


_SAVE_BALANCE: Final = """
    INSERT INTO x402_balance (network, token, address, amount)
    VALUES ($1, $2, $3, $4)
        ON CONFLICT (network, token, address) DO UPDATE SET amount = excluded.amount
"""


async def save_balance(
    connection: Connection, network: str, token: str, address: str, amount: int
) -> None:
    """Let an address have so much."""
    await connection.execute(_SAVE_BALANCE, network, token, address, Decimal(amount))


# An address without a row has what every address starts with, which no payment exceeds.
_CHANGE_BALANCE: Final = """
    INSERT INTO x402_balance AS held (network, token, address, amount)
    VALUES ($1, $2, $3, $5::numeric + $4::numeric)
        ON CONFLICT (network, token, address) DO UPDATE
       SET amount = held.amount + $4::numeric
     WHERE held.amount + $4::numeric >= 0
 RETURNING true
"""


async def change_balance(
    connection: Connection, network: str, token: str, address: str, difference: int
) -> bool:
    """Add to what an address has, or take from it; tell whether there was enough."""
    changed = await connection.fetchval(
        _CHANGE_BALANCE, network, token, address, Decimal(difference), START_BALANCE
    )
    return changed is True


_CLAIM_SPOILING: Final = """
    INSERT INTO x402_spoilt (nonce)
    VALUES ($1)
        ON CONFLICT DO NOTHING
 RETURNING true
"""


async def claim_spoiling(connection: Connection, nonce: str) -> bool:
    """Tell whether the magic amount of this payment has yet to spoil a call; from now on not."""
    return await connection.fetchval(_CLAIM_SPOILING, nonce) is True


def _submitted(row: asyncpg.Record) -> Submitted:
    return Submitted(
        network=row["network"],
        token=row["token"],
        payer=row["payer"],
        nonce=row["nonce"],
        state=State(row["state"]),
        recipient=row["recipient"],
        value=int(row["value"]),
        valid_before=int(row["valid_before"]),
        transaction_hash=row["transaction_hash"],
        is_settled=row["is_settled"],
        submitted_at=row["submitted_at"],
        mines_at=row["mines_at"],
        mined_at=row["mined_at"],
    )
