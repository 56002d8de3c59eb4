"""SQL of disputes, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg

from services.simulator.stripe.domain import Dispute, DisputeStatus
from services.simulator.stripe.parameters import Page
from shared.database import Connection

_INSERT_DISPUTE: Final = """
    INSERT INTO stripe_dispute (
               id, intent_id, charge, amount, currency, reason, state, created_at, withdrawn_at,
               reinstated_at, fee)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""


async def insert_dispute(connection: Connection, dispute: Dispute) -> None:
    """Store a new dispute."""
    await connection.execute(
        _INSERT_DISPUTE,
        dispute.id,
        dispute.intent_id,
        dispute.charge,
        dispute.amount,
        dispute.currency,
        dispute.reason,
        dispute.status,
        dispute.created_at,
        dispute.withdrawn_at,
        dispute.reinstated_at,
        dispute.fee,
    )


_SAVE_DISPUTE: Final = """
    UPDATE stripe_dispute
       SET state = $2, withdrawn_at = $3, reinstated_at = $4, fee = $5
     WHERE id = $1
"""


async def save_dispute(connection: Connection, dispute: Dispute) -> None:
    """Store where a locked dispute has come to.

    Raises:
        asyncpg.CheckViolationError: the protocol has no such step.
    """
    await connection.execute(
        _SAVE_DISPUTE,
        dispute.id,
        dispute.status,
        dispute.withdrawn_at,
        dispute.reinstated_at,
        dispute.fee,
    )


_FIND_DISPUTE: Final = """
    SELECT id, intent_id, charge, amount, currency, reason, state, created_at, withdrawn_at,
           reinstated_at, fee
      FROM stripe_dispute
     WHERE id = $1
"""


async def find_dispute(connection: Connection, dispute_id: str) -> Dispute | None:
    """Read a dispute."""
    row = await connection.fetchrow(_FIND_DISPUTE, dispute_id)
    return None if row is None else _dispute(row)


_LOCK_NEWEST_DISPUTE: Final = """
    SELECT id, intent_id, charge, amount, currency, reason, state, created_at, withdrawn_at,
           reinstated_at, fee
      FROM stripe_dispute
     WHERE intent_id = $1
     ORDER BY position DESC
     LIMIT 1
       FOR UPDATE
"""


async def lock_newest_dispute(connection: Connection, intent_id: str) -> Dispute | None:
    """Read the last dispute of an intent and keep others from deciding it meanwhile."""
    row = await connection.fetchrow(_LOCK_NEWEST_DISPUTE, intent_id)
    return None if row is None else _dispute(row)


_LIST_DISPUTES_OF_INTENT: Final = """
    SELECT id, intent_id, charge, amount, currency, reason, state, created_at, withdrawn_at,
           reinstated_at, fee
      FROM stripe_dispute
     WHERE intent_id = $1
     ORDER BY position
"""


async def list_disputes_of_intent(connection: Connection, intent_id: str) -> Sequence[Dispute]:
    """Read the disputes of an intent, the oldest first."""
    return [_dispute(row) for row in await connection.fetch(_LIST_DISPUTES_OF_INTENT, intent_id)]


_LIST_DISPUTES: Final = """
    SELECT id, intent_id, charge, amount, currency, reason, state, created_at, withdrawn_at,
           reinstated_at, fee
      FROM stripe_dispute
     WHERE ($1::text IS NULL OR intent_id = $1)
       AND ($2::text IS NULL OR charge = $2)
       AND ($3::text IS NULL
            OR position < (SELECT position FROM stripe_dispute WHERE id = $3))
     ORDER BY position DESC
     LIMIT $4
"""


async def list_disputes(
    connection: Connection, intent_id: str | None, charge: str | None, page: Page
) -> Sequence[Dispute]:
    """Read disputes, the newest first: all, or those of an intent or a charge.

    One more than the page has.
    """
    rows = await connection.fetch(_LIST_DISPUTES, intent_id, charge, page.after, page.size + 1)
    return [_dispute(row) for row in rows]


def _dispute(row: asyncpg.Record) -> Dispute:
    return Dispute(
        id=row["id"],
        intent_id=row["intent_id"],
        charge=row["charge"],
        amount=row["amount"],
        currency=row["currency"],
        reason=row["reason"],
        status=DisputeStatus(row["state"]),
        created_at=row["created_at"],
        withdrawn_at=row["withdrawn_at"],
        reinstated_at=row["reinstated_at"],
        fee=row["fee"],
    )
