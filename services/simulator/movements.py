"""SQL of what moved after the charges: refunds, disputes and their fees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from shared.database import Connection
from shared.money import Money


class MovementKind(StrEnum):
    """Whose money went where."""

    REFUND = "refund"
    #: The customer's bank sent a refund back.
    REFUND_RETURNED = "refund_returned"
    #: The customer's bank took a charge back.
    DISPUTE = "dispute"
    DISPUTE_RETURNED = "dispute_returned"
    #: What the gateway itself charges for a dispute.
    FEE = "fee"


@dataclass(frozen=True, slots=True)
class Movement:
    """One line: `name` is what the merchant calls it, `handle` what the gateway does."""

    gateway: str
    reference: str
    gateway_payment_id: str
    kind: MovementKind
    name: str
    handle: str
    amount: Money
    moved_at: datetime


_INSERT_MOVEMENT: Final = """
    INSERT INTO movement (
               gateway, reference, gateway_payment_id, kind, name, handle, amount, currency,
               moved_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""


async def insert_movement(connection: Connection, movement: Movement) -> None:
    """Write into the ledger that money moved."""
    await connection.execute(
        _INSERT_MOVEMENT,
        movement.gateway,
        movement.reference,
        movement.gateway_payment_id,
        movement.kind,
        movement.name,
        movement.handle,
        movement.amount.minor_units,
        movement.amount.currency,
        movement.moved_at,
    )


_LIST_MOVEMENTS: Final = """
    SELECT gateway, reference, gateway_payment_id, kind, name, handle, amount, currency, moved_at
      FROM movement
     WHERE gateway = $1
       AND ($2::text IS NULL OR reference = $2)
     ORDER BY id DESC
     LIMIT $3
"""


async def list_movements(
    connection: Connection, gateway: str, reference: str | None, limit: int
) -> Sequence[Movement]:
    """Read what moved at a gateway, of one payment or all, the newest line first."""
    return [
        Movement(
            gateway=row["gateway"],
            reference=row["reference"],
            gateway_payment_id=row["gateway_payment_id"],
            kind=MovementKind(row["kind"]),
            name=row["name"],
            handle=row["handle"],
            amount=Money(row["amount"], row["currency"]),
            moved_at=row["moved_at"],
        )
        for row in await connection.fetch(_LIST_MOVEMENTS, gateway, reference, limit)
    ]
