"""SQL of payments that went back, and of the revocations they lead to.

Whoever changes both an enrollment and rows of here locks the enrollment first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from services.enrollment.domain.revocation import Cause, News, Reversal, Revocation, Step
from shared.database import Connection

_INSERT: Final = """
    INSERT INTO payment_reversal (
               payment_id, occasion, cause, noticed_at, customer_id, product_id, revocation, reason,
               due_at, stored_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT DO NOTHING
 RETURNING true
"""


async def insert_reversal(connection: Connection, news: News, step: Step, now: datetime) -> bool:
    """Store the first news of an occasion; False when there were some before."""
    inserted = await connection.fetchval(
        _INSERT,
        news.payment_id,
        news.occasion,
        news.cause,
        news.noticed_at,
        news.customer_id,
        news.product_id,
        step.revocation,
        step.reason,
        step.due_at,
        now,
    )
    return inserted is not None


_LOCK: Final = """
    SELECT payment_id, occasion, cause, noticed_at, customer_id, product_id, revocation, due_at,
           stored_at
      FROM payment_reversal
     WHERE payment_id = $1
       AND occasion = $2
       FOR UPDATE
"""


async def lock_reversal(connection: Connection, payment_id: str, occasion: str) -> Reversal | None:
    """Read what is known of an occasion, and keep others from changing it."""
    record = await connection.fetchrow(_LOCK, payment_id, occasion)
    return None if record is None else _reversal(record)


_SAVE_NEWS: Final = """
    UPDATE payment_reversal
       SET cause = $3, noticed_at = $4, stored_at = $5
     WHERE payment_id = $1
       AND occasion = $2
"""


async def save_news(connection: Connection, news: News, now: datetime) -> None:
    """Store later news of an occasion that is locked."""
    await connection.execute(
        _SAVE_NEWS, news.payment_id, news.occasion, news.cause, news.noticed_at, now
    )


_SAVE_STEP: Final = """
    UPDATE payment_reversal
       SET revocation = $3, reason = $4, due_at = $5
     WHERE payment_id = $1
       AND occasion = $2
"""


async def save_step(connection: Connection, news: News, step: Step) -> None:
    """Store where the revocation of a locked occasion has come to."""
    await connection.execute(
        _SAVE_STEP, news.payment_id, news.occasion, step.revocation, step.reason, step.due_at
    )


_LIST_DUE: Final = """
    SELECT payment_id, occasion, cause, noticed_at, customer_id, product_id, revocation, due_at,
           stored_at
      FROM payment_reversal
     WHERE due_at <= $1
     ORDER BY due_at
     LIMIT $2
"""


async def list_due(connection: Connection, now: datetime, most: int) -> Sequence[Reversal]:
    """Return the revocations whose time has come, the longest due first. Locks nothing."""
    return [_reversal(record) for record in await connection.fetch(_LIST_DUE, now, most)]


_WAKE: Final = """
    UPDATE payment_reversal
       SET revocation = 'waiting', reason = 'granted_late', due_at = coalesce(due_at, $2)
     WHERE payment_id = $1
       AND revocation IN ('waiting', 'ungranted')
"""


async def wake(connection: Connection, payment_id: str, now: datetime) -> None:
    """Have news looked at again that came before their payment had granted anything."""
    await connection.execute(_WAKE, payment_id, now)


_CANCEL_WAITING: Final = """
    UPDATE payment_reversal
       SET revocation = 'cancelled', reason = $3, due_at = NULL
     WHERE customer_id = $1
       AND product_id = $2
       AND due_at IS NOT NULL
 RETURNING payment_id
"""


async def cancel_waiting(
    connection: Connection, customer_id: str, product_id: str, *, reason: str
) -> list[str]:
    """Cancel what waits for a locked enrollment, and return the payments of that."""
    records = await connection.fetch(_CANCEL_WAITING, customer_id, product_id, reason)
    return [record["payment_id"] for record in records]


_HAS_GONE_BACK: Final = """
    SELECT EXISTS (
               SELECT
                 FROM payment_reversal
                WHERE payment_id = $1
                  AND cause IN ('refunded', 'dispute_lost'))
"""


async def has_gone_back(connection: Connection, payment_id: str) -> bool:
    """Tell whether the money of a payment is no longer ours."""
    return bool(await connection.fetchval(_HAS_GONE_BACK, payment_id))


def _reversal(record: asyncpg.Record) -> Reversal:
    return Reversal(
        news=News(
            payment_id=record["payment_id"],
            occasion=record["occasion"],
            cause=Cause(record["cause"]),
            customer_id=record["customer_id"],
            product_id=record["product_id"],
            noticed_at=record["noticed_at"],
        ),
        revocation=Revocation(record["revocation"]),
        due_at=record["due_at"],
        stored_at=record["stored_at"],
    )
