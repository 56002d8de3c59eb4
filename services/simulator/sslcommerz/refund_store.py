"""SQL of refunds, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from services.simulator.sslcommerz.domain import CHARGE_CURRENCY, NAME, Refund, RefundState
from shared.database import Connection
from shared.money import Money

_LOCK_CHARGE: Final = """
    SELECT reference, amount
      FROM charge
     WHERE id = (SELECT id FROM charge WHERE gateway = $1 AND gateway_payment_id = $2 LIMIT 1)
       FOR UPDATE
"""


async def lock_charge(connection: Connection, bank_tran_id: str) -> tuple[str, Money] | None:
    """Read whose charge this is and what was taken; no other refund of it goes on meanwhile."""
    row = await connection.fetchrow(_LOCK_CHARGE, NAME, bank_tran_id)
    return None if row is None else (row["reference"], Money(row["amount"], CHARGE_CURRENCY))


_FIND_CHARGED_REFERENCE: Final = """
    SELECT reference FROM charge WHERE gateway = $1 AND gateway_payment_id = $2 LIMIT 1
"""


async def find_charged_reference(connection: Connection, bank_tran_id: str) -> str | None:
    """Tell whose charge this is."""
    reference = await connection.fetchval(_FIND_CHARGED_REFERENCE, NAME, bank_tran_id)
    assert reference is None or isinstance(reference, str)
    return reference


_FIND_REFUNDED_REFERENCE: Final = """
    SELECT tran_id FROM sslcommerz_refund WHERE refund_ref_id = $1
"""


async def find_refunded_reference(connection: Connection, refund_ref_id: str) -> str | None:
    """Tell whose payment a refund pays back."""
    reference = await connection.fetchval(_FIND_REFUNDED_REFERENCE, refund_ref_id)
    assert reference is None or isinstance(reference, str)
    return reference


_SUM_REFUNDS: Final = """
    SELECT coalesce(sum(amount), 0)::bigint
      FROM sslcommerz_refund
     WHERE bank_tran_id = $1
       AND state <> 'cancelled'
"""


async def sum_refunds(connection: Connection, bank_tran_id: str) -> int:
    """Add up what was paid back of a charge, and what is going to be; in minor units."""
    total = await connection.fetchval(_SUM_REFUNDS, bank_tran_id)
    assert isinstance(total, int)
    return total


_INSERT_REFUND: Final = """
    INSERT INTO sslcommerz_refund (
               refund_ref_id, refund_trans_id, bank_tran_id, tran_id, amount, state, initiated_on)
    VALUES ($1, $2, $3, $4, $5, 'processing', $6)
"""


async def insert_refund(connection: Connection, refund: Refund) -> None:
    """Store a refund that was accepted."""
    await connection.execute(
        _INSERT_REFUND,
        refund.refund_ref_id,
        refund.refund_trans_id,
        refund.bank_tran_id,
        refund.tran_id,
        refund.amount.minor_units,
        refund.initiated_on,
    )


_FIND_REFUND_NAMED: Final = """
    SELECT refund_ref_id, refund_trans_id, bank_tran_id, tran_id, amount, state, asked,
           initiated_on, ended_on
      FROM sslcommerz_refund
     WHERE refund_trans_id = $1
"""


async def find_refund_named(connection: Connection, refund_trans_id: str) -> Refund | None:
    """Read a refund by the merchant's id."""
    row = await connection.fetchrow(_FIND_REFUND_NAMED, refund_trans_id)
    return None if row is None else _refund(row)


_COUNT_QUESTION: Final = """
    UPDATE sslcommerz_refund
       SET asked = asked + 1
     WHERE refund_ref_id = $1
 RETURNING refund_ref_id, refund_trans_id, bank_tran_id, tran_id, amount, state, asked,
           initiated_on, ended_on
"""


async def count_question(connection: Connection, refund_ref_id: str) -> Refund | None:
    """Read a refund by the gateway's id, counting one more question about it; locks it."""
    row = await connection.fetchrow(_COUNT_QUESTION, refund_ref_id)
    return None if row is None else _refund(row)


_SAVE_REFUND_END: Final = """
    UPDATE sslcommerz_refund SET state = $2, ended_on = $3 WHERE refund_ref_id = $1
"""


async def save_refund_end(
    connection: Connection, refund_ref_id: str, state: RefundState, now: datetime
) -> None:
    """Write how a refund ended."""
    await connection.execute(_SAVE_REFUND_END, refund_ref_id, state, now)


_LIST_REFUNDS: Final = """
    SELECT refund_ref_id, refund_trans_id, bank_tran_id, tran_id, amount, state, asked,
           initiated_on, ended_on
      FROM sslcommerz_refund
     WHERE tran_id = $1
     ORDER BY initiated_on, refund_ref_id
"""


async def list_refunds(connection: Connection, tran_id: str) -> Sequence[Refund]:
    """Read the refunds of a payment, the oldest first."""
    return [_refund(row) for row in await connection.fetch(_LIST_REFUNDS, tran_id)]


def _refund(row: asyncpg.Record) -> Refund:
    return Refund(
        refund_ref_id=row["refund_ref_id"],
        refund_trans_id=row["refund_trans_id"],
        bank_tran_id=row["bank_tran_id"],
        tran_id=row["tran_id"],
        amount=Money(row["amount"], CHARGE_CURRENCY),
        state=RefundState(row["state"]),
        asked=row["asked"],
        initiated_on=row["initiated_on"],
        ended_on=row["ended_on"],
    )
