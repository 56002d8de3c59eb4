"""SQL of the ledger: what each customer of each gateway really paid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.database import Connection
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Charge:
    """One line of the ledger: money that was really taken.

    `gateway_payment_id` is what the gateway calls the charge. `price` is the same money in the
    currency of the order, where the gateway converts. `val_id` is SSLCommerz' alone.
    """

    gateway: str
    reference: str
    gateway_payment_id: str
    charge: Money
    price: Money
    charged_at: datetime
    val_id: str | None = None
    risk_level: int = 0


_INSERT_CHARGE: Final = """
    INSERT INTO charge (
               gateway, reference, gateway_payment_id, amount, currency, currency_amount,
               currency_type, charged_at, val_id, risk_level)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""


async def insert_charge(connection: Connection, charge: Charge) -> None:
    """Write into the ledger that money was taken."""
    await connection.execute(
        _INSERT_CHARGE,
        charge.gateway,
        charge.reference,
        charge.gateway_payment_id,
        charge.charge.minor_units,
        charge.charge.currency,
        charge.price.minor_units,
        charge.price.currency,
        charge.charged_at,
        charge.val_id,
        charge.risk_level,
    )


_LIST_CHARGES: Final = """
    SELECT gateway, reference, gateway_payment_id, amount, currency, currency_amount,
           currency_type, charged_at, val_id, risk_level
      FROM charge
     WHERE gateway = $1
       AND ($2::text IS NULL OR reference = $2)
     ORDER BY id DESC
     LIMIT $3
"""


async def list_charges(
    connection: Connection, gateway: str, reference: str | None, limit: int
) -> Sequence[Charge]:
    """Read a gateway's ledger, of one reference or whole, the newest line first."""
    return [
        Charge(
            gateway=row["gateway"],
            reference=row["reference"],
            gateway_payment_id=row["gateway_payment_id"],
            charge=Money(row["amount"], row["currency"]),
            price=Money(row["currency_amount"], row["currency_type"]),
            charged_at=row["charged_at"],
            val_id=row["val_id"],
            risk_level=row["risk_level"],
        )
        for row in await connection.fetch(_LIST_CHARGES, gateway, reference, limit)
    ]


_COUNT_CHARGES: Final = """
    SELECT count(*) FROM charge WHERE gateway = $1 AND ($2::text IS NULL OR reference = $2)
"""


async def count_charges(connection: Connection, gateway: str, reference: str | None) -> int:
    """Count the lines of a gateway's ledger, of one reference or all."""
    count = await connection.fetchval(_COUNT_CHARGES, gateway, reference)
    assert isinstance(count, int)
    return count
