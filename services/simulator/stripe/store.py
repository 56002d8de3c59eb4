"""SQL of payment intents, one typed function each; the other objects are in `object_store.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from services.simulator.stripe.domain import Intent, IntentStatus
from services.simulator.stripe.parameters import Page, Range
from services.simulator.stripe.search import Query
from shared.database import Connection

_INSERT_INTENT: Final = """
    INSERT INTO stripe_intent (
               id, state, reference, amount, currency, client_secret, customer, payment_method,
               card_name, capture_method, description, return_url, setup_future_usage,
               is_off_session, metadata, latest_charge, amount_received, amount_refunded,
               last_payment_error, cancellation_reason, canceled_at, due_at, due_state,
               request_id, idempotency_key, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15::text::jsonb, $16,
            $17, $18, $19::text::jsonb, $20, $21, $22, $23, $24, $25, $26)
"""


async def insert_intent(connection: Connection, intent: Intent) -> None:
    """Store a new intent."""
    await connection.execute(
        _INSERT_INTENT,
        intent.id,
        intent.status,
        intent.reference,
        intent.amount,
        intent.currency,
        intent.client_secret,
        intent.customer,
        intent.payment_method,
        intent.card_name,
        intent.capture_method,
        intent.description,
        intent.return_url,
        intent.setup_future_usage,
        intent.is_off_session,
        orjson.dumps(dict(intent.metadata)).decode(),
        intent.latest_charge,
        intent.amount_received,
        intent.amount_refunded,
        _json_or_none(intent.last_payment_error),
        intent.cancellation_reason,
        intent.canceled_at,
        intent.due_at,
        intent.due_status,
        intent.request_id,
        intent.idempotency_key,
        intent.created_at,
    )


# The trigger refuses a step that is not in the table `transition`; the caller holds the row.
_SAVE_INTENT: Final = """
    UPDATE stripe_intent
       SET state = $2, payment_method = $3, card_name = $4, return_url = $5, is_off_session = $6,
           latest_charge = $7, amount_received = $8, amount_refunded = $9,
           last_payment_error = $10::text::jsonb, cancellation_reason = $11, canceled_at = $12,
           due_at = $13, due_state = $14, request_id = $15, idempotency_key = $16
     WHERE id = $1
       AND state = $17
 RETURNING true
"""


async def save_intent(connection: Connection, intent: Intent, *, expected: IntentStatus) -> None:
    """Write what may change of a locked intent that was in the status `expected`."""
    saved = await connection.fetchval(
        _SAVE_INTENT,
        intent.id,
        intent.status,
        intent.payment_method,
        intent.card_name,
        intent.return_url,
        intent.is_off_session,
        intent.latest_charge,
        intent.amount_received,
        intent.amount_refunded,
        _json_or_none(intent.last_payment_error),
        intent.cancellation_reason,
        intent.canceled_at,
        intent.due_at,
        intent.due_status,
        intent.request_id,
        intent.idempotency_key,
        expected,
    )
    assert saved is True, "the caller holds the row"


_FIND_INTENT: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE id = $1
"""


async def find_intent(connection: Connection, intent_id: str) -> Intent | None:
    """Read an intent."""
    row = await connection.fetchrow(_FIND_INTENT, intent_id)
    return None if row is None else _intent(row)


_LOCK_INTENT: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE id = $1
       FOR UPDATE
"""


async def lock_intent(connection: Connection, intent_id: str) -> Intent | None:
    """Read an intent and keep others from deciding about it until the transaction ends."""
    row = await connection.fetchrow(_LOCK_INTENT, intent_id)
    return None if row is None else _intent(row)


_LOCK_INTENT_NOW: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE id = $1
       FOR UPDATE NOWAIT
"""


async def lock_intent_now(connection: Connection, intent_id: str) -> Intent | None:
    """Do as `lock_intent`, but do not wait.

    Raises:
        asyncpg.LockNotAvailableError: somebody else holds it.
    """
    row = await connection.fetchrow(_LOCK_INTENT_NOW, intent_id)
    return None if row is None else _intent(row)


_FIND_INTENT_ID_OF_CHARGE: Final = """
    SELECT id FROM stripe_intent WHERE latest_charge = $1
"""


async def find_intent_id_of_charge(connection: Connection, charge: str) -> str | None:
    """Read which intent a charge belongs to."""
    found = await connection.fetchval(_FIND_INTENT_ID_OF_CHARGE, charge)
    return found if isinstance(found, str) else None


_LIST_INTENTS_OF_REFERENCE: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE reference = $1
     ORDER BY position DESC
     LIMIT $2
"""


async def list_intents_of_reference(
    connection: Connection, reference: str, limit: int
) -> Sequence[Intent]:
    """Read the intents of a merchant's reference, the newest first; usually there is one."""
    rows = await connection.fetch(_LIST_INTENTS_OF_REFERENCE, reference, limit)
    return [_intent(row) for row in rows]


_FIND_POSITION: Final = """
    SELECT position FROM stripe_intent WHERE id = $1
"""


async def find_position(connection: Connection, intent_id: str) -> int | None:
    """Read where in lists an intent stands."""
    found = await connection.fetchval(_FIND_POSITION, intent_id)
    return found if isinstance(found, int) else None


_LIST_INTENTS: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE ($1::text IS NULL OR customer = $1)
       AND ($2::timestamptz IS NULL OR created_at >= $2)
       AND ($3::timestamptz IS NULL OR created_at < $3)
       AND ($4::bigint IS NULL OR position < $4)
     ORDER BY position DESC
     LIMIT $5
"""

_LIST_INTENTS_BEFORE: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE ($1::text IS NULL OR customer = $1)
       AND ($2::timestamptz IS NULL OR created_at >= $2)
       AND ($3::timestamptz IS NULL OR created_at < $3)
       AND position > $4
     ORDER BY position
     LIMIT $5
"""


async def list_intents(
    connection: Connection, customer: str | None, created: Range, page: Page, position: int | None
) -> tuple[Sequence[Intent], bool]:
    """Read one page of intents, the newest first, and whether there are more.

    `position` is that of the intent which `page` names.
    """
    is_backwards = page.before is not None
    statement = _LIST_INTENTS_BEFORE if is_backwards else _LIST_INTENTS
    rows = await connection.fetch(
        statement, customer, created.since, created.until, position, page.size + 1
    )
    intents = [_intent(row) for row in rows[: page.size]]
    return (intents[::-1] if is_backwards else intents), len(rows) > page.size


_SEARCH_INTENTS: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE metadata @> $1::text::jsonb
       AND ($2::text IS NULL OR reference = $2)
       AND ($3::text IS NULL OR customer = $3)
       AND ($4::text IS NULL OR state = $4)
       AND created_at <= $5
     ORDER BY position DESC
     LIMIT $6
"""


async def search_intents(
    connection: Connection, query: Query, indexed_until: datetime, limit: int
) -> Sequence[Intent]:
    """Read the intents that a query describes and that the index has, the newest first."""
    rows = await connection.fetch(
        _SEARCH_INTENTS,
        orjson.dumps(query.metadata).decode(),
        query.metadata.get("reference"),
        query.customer,
        query.status,
        indexed_until,
        limit,
    )
    return [_intent(row) for row in rows]


_CLAIM_DUE_INTENTS: Final = """
    SELECT id, state, amount, currency, client_secret, customer, payment_method, card_name,
           capture_method, description, return_url, setup_future_usage, is_off_session,
           metadata::text AS metadata, latest_charge, amount_received, amount_refunded,
           last_payment_error::text AS last_payment_error, cancellation_reason, canceled_at,
           due_at, due_state, request_id, idempotency_key, created_at
      FROM stripe_intent
     WHERE due_at <= $1
     ORDER BY due_at
     LIMIT $2
       FOR UPDATE SKIP LOCKED
"""


async def claim_due_intents(connection: Connection, now: datetime, limit: int) -> Sequence[Intent]:
    """Lock intents whose time has come."""
    return [_intent(row) for row in await connection.fetch(_CLAIM_DUE_INTENTS, now, limit)]


_CLAIM_SPOILING: Final = """
    INSERT INTO stripe_spoilt (reference)
    VALUES ($1)
        ON CONFLICT DO NOTHING
 RETURNING true
"""


async def claim_spoiling(connection: Connection, reference: str) -> bool:
    """Tell whether the magic amount of this payment has yet to spoil a call; from now on not."""
    return await connection.fetchval(_CLAIM_SPOILING, reference) is True


def _json_or_none(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else orjson.dumps(dict(value)).decode()


def _intent(row: asyncpg.Record) -> Intent:
    error, due_state = row["last_payment_error"], row["due_state"]
    return Intent(
        id=row["id"],
        status=IntentStatus(row["state"]),
        amount=row["amount"],
        currency=row["currency"],
        client_secret=row["client_secret"],
        created_at=row["created_at"],
        customer=row["customer"],
        payment_method=row["payment_method"],
        card_name=row["card_name"],
        capture_method=row["capture_method"],
        description=row["description"],
        return_url=row["return_url"],
        setup_future_usage=row["setup_future_usage"],
        is_off_session=row["is_off_session"],
        metadata=orjson.loads(row["metadata"]),
        latest_charge=row["latest_charge"],
        amount_received=row["amount_received"],
        amount_refunded=row["amount_refunded"],
        last_payment_error=None if error is None else orjson.loads(error),
        cancellation_reason=row["cancellation_reason"],
        canceled_at=row["canceled_at"],
        due_at=row["due_at"],
        due_status=None if due_state is None else IntentStatus(due_state),
        request_id=row["request_id"],
        idempotency_key=row["idempotency_key"],
    )
