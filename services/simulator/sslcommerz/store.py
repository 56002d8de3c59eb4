"""SQL of sessions and attempts to pay, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg

from services.simulator.sslcommerz.domain import (
    CHARGE_CURRENCY,
    Element,
    Session,
    SessionState,
    Status,
)
from shared.database import Connection
from shared.money import Money

_INSERT_SESSION: Final = """
    INSERT INTO session (
               session_key, tran_id, state, price_amount, price_currency, charge_amount, rate,
               store_id, product_name, success_url, fail_url, cancel_url, ipn_url, echoed,
               created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        ON CONFLICT (tran_id) DO NOTHING
 RETURNING true
"""


async def insert_session(connection: Connection, session: Session) -> bool:
    """Store a session; tell whether its `tran_id` was new."""
    inserted = await connection.fetchval(
        _INSERT_SESSION,
        session.session_key,
        session.tran_id,
        session.state,
        session.price.minor_units,
        session.price.currency,
        session.charge.minor_units,
        session.rate,
        session.store_id,
        session.product_name,
        session.success_url,
        session.fail_url,
        session.cancel_url,
        session.ipn_url,
        list(session.echoed),
        session.created_at,
        session.expires_at,
    )
    return inserted is True


_FIND_SESSION: Final = """
    SELECT session_key, tran_id, state, price_amount, price_currency, charge_amount, rate,
           store_id, product_name, success_url, fail_url, cancel_url, ipn_url, echoed,
           created_at, expires_at
      FROM session
     WHERE session_key = $1
"""


async def find_session(connection: Connection, session_key: str) -> Session | None:
    """Read a session by its key."""
    row = await connection.fetchrow(_FIND_SESSION, session_key)
    return None if row is None else _session(row)


_LOCK_SESSION: Final = """
    SELECT session_key, tran_id, state, price_amount, price_currency, charge_amount, rate,
           store_id, product_name, success_url, fail_url, cancel_url, ipn_url, echoed,
           created_at, expires_at
      FROM session
     WHERE session_key = $1
       FOR UPDATE
"""


async def lock_session(connection: Connection, session_key: str) -> Session | None:
    """Read a session and keep others from deciding about it until the transaction ends."""
    row = await connection.fetchrow(_LOCK_SESSION, session_key)
    return None if row is None else _session(row)


_FIND_SESSION_OF: Final = """
    SELECT session_key, tran_id, state, price_amount, price_currency, charge_amount, rate,
           store_id, product_name, success_url, fail_url, cancel_url, ipn_url, echoed,
           created_at, expires_at
      FROM session
     WHERE tran_id = $1
"""


async def find_session_of(connection: Connection, tran_id: str) -> Session | None:
    """Read a session by the merchant's reference."""
    row = await connection.fetchrow(_FIND_SESSION_OF, tran_id)
    return None if row is None else _session(row)


_FIND_SESSION_PAID: Final = """
    SELECT session_key, tran_id, state, price_amount, price_currency, charge_amount, rate,
           store_id, product_name, success_url, fail_url, cancel_url, ipn_url, echoed,
           created_at, expires_at
      FROM session
     WHERE session_key = (SELECT element.session_key FROM element WHERE val_id = $1)
"""


async def find_session_paid(connection: Connection, val_id: str) -> Session | None:
    """Read the session that was paid under a `val_id`."""
    row = await connection.fetchrow(_FIND_SESSION_PAID, val_id)
    return None if row is None else _session(row)


_CLAIM_LAPSED_SESSIONS: Final = """
    SELECT session_key, tran_id, state, price_amount, price_currency, charge_amount, rate,
           store_id, product_name, success_url, fail_url, cancel_url, ipn_url, echoed,
           created_at, expires_at
      FROM session
     WHERE state = 'open'
       AND expires_at <= $1
     ORDER BY expires_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""


async def claim_lapsed_sessions(
    connection: Connection, now: datetime, limit: int
) -> Sequence[Session]:
    """Lock open sessions whose time is over."""
    return [_session(row) for row in await connection.fetch(_CLAIM_LAPSED_SESSIONS, now, limit)]


_SAVE_STATE: Final = """
    UPDATE session SET state = $2 WHERE session_key = $1
"""


async def save_state(connection: Connection, session_key: str, state: SessionState) -> None:
    """Write the state of a locked session."""
    await connection.execute(_SAVE_STATE, session_key, state)


_COUNT_VALIDATION: Final = """
    UPDATE session
       SET validations_asked = validations_asked + 1
     WHERE session_key = $1
 RETURNING validations_asked
"""


async def count_validation(connection: Connection, session_key: str) -> int:
    """Count one more call for a validation and return its number."""
    number = await connection.fetchval(_COUNT_VALIDATION, session_key)
    assert isinstance(number, int)
    return number


_INSERT_ELEMENT: Final = """
    INSERT INTO element (
               session_key, status, val_id, bank_tran_id, amount, currency_amount, risk_level,
               created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""


async def insert_element(connection: Connection, session_key: str, element: Element) -> None:
    """Store an attempt to pay."""
    await connection.execute(
        _INSERT_ELEMENT,
        session_key,
        element.status,
        element.val_id,
        element.bank_tran_id,
        element.charge.minor_units,
        element.price.minor_units,
        element.risk_level,
        element.created_at,
    )


_LIST_ELEMENTS: Final = """
    SELECT status, val_id, bank_tran_id, amount, currency_amount, price_currency, risk_level,
           element.created_at, validated_at
      FROM element
      JOIN session USING (session_key)
     WHERE session_key = $1
     ORDER BY id
"""


async def list_elements(connection: Connection, session_key: str) -> Sequence[Element]:
    """Read the attempts of a session, the oldest first."""
    return [_element(row) for row in await connection.fetch(_LIST_ELEMENTS, session_key)]


_FIND_ELEMENT: Final = """
    SELECT status, val_id, bank_tran_id, amount, currency_amount, price_currency, risk_level,
           element.created_at, validated_at
      FROM element
      JOIN session USING (session_key)
     WHERE val_id = $1
"""


async def find_element(connection: Connection, val_id: str) -> Element | None:
    """Read the attempt that succeeded under a `val_id`."""
    row = await connection.fetchrow(_FIND_ELEMENT, val_id)
    return None if row is None else _element(row)


_SAVE_VALIDATED: Final = """
    UPDATE element
       SET validated_at = $2
     WHERE val_id = $1
       AND validated_at IS NULL
 RETURNING true
"""


async def save_validated(connection: Connection, val_id: str, now: datetime) -> bool:
    """Note a validation; tell whether it is the first."""
    return await connection.fetchval(_SAVE_VALIDATED, val_id, now) is True


def _session(row: asyncpg.Record) -> Session:
    return Session(
        session_key=row["session_key"],
        tran_id=row["tran_id"],
        state=SessionState(row["state"]),
        price=Money(row["price_amount"], row["price_currency"]),
        charge=Money(row["charge_amount"], CHARGE_CURRENCY),
        rate=row["rate"],
        store_id=row["store_id"],
        product_name=row["product_name"],
        success_url=row["success_url"],
        fail_url=row["fail_url"],
        cancel_url=row["cancel_url"],
        ipn_url=row["ipn_url"],
        echoed=tuple(row["echoed"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


def _element(row: asyncpg.Record) -> Element:
    return Element(
        status=Status(row["status"]),
        val_id=row["val_id"],
        bank_tran_id=row["bank_tran_id"],
        charge=Money(row["amount"], CHARGE_CURRENCY),
        price=Money(row["currency_amount"], row["price_currency"]),
        risk_level=row["risk_level"],
        created_at=row["created_at"],
        validated_at=row["validated_at"],
    )
