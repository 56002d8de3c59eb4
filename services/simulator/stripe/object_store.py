"""SQL of refunds, events, customers and payment methods, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import orjson

from services.simulator.stripe.domain import (
    PaymentMethod,
    Refund,
    RefundStatus,
    StripeCustomer,
)
from services.simulator.stripe.parameters import Page, Range
from shared.database import Connection

_INSERT_REFUND: Final = """
    INSERT INTO stripe_refund (
               id, intent_id, charge, amount, currency, state, reason, failure_reason, metadata,
               due_at, due_state, created_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb, $10, $11, $12)
"""


async def insert_refund(connection: Connection, refund: Refund) -> None:
    """Store a new refund."""
    await connection.execute(
        _INSERT_REFUND,
        refund.id,
        refund.intent_id,
        refund.charge,
        refund.amount,
        refund.currency,
        refund.status,
        refund.reason,
        refund.failure_reason,
        orjson.dumps(dict(refund.metadata)).decode(),
        refund.due_at,
        refund.due_status,
        refund.created_at,
    )


_SETTLE_REFUND: Final = """
    UPDATE stripe_refund
       SET state = $2, failure_reason = $3, due_at = NULL, due_state = NULL
     WHERE id = $1
       AND due_state = $2
 RETURNING true
"""


async def settle_refund(
    connection: Connection, refund_id: str, status: RefundStatus, failure_reason: str | None
) -> bool:
    """Bring a refund to the status it was due for; tell whether it still was."""
    settled = await connection.fetchval(_SETTLE_REFUND, refund_id, status, failure_reason)
    return settled is True


_FIND_REFUND: Final = """
    SELECT id, intent_id, charge, amount, currency, state, reason, failure_reason,
           metadata::text AS metadata, due_at, due_state, created_at
      FROM stripe_refund
     WHERE id = $1
"""


async def find_refund(connection: Connection, refund_id: str) -> Refund | None:
    """Read a refund."""
    row = await connection.fetchrow(_FIND_REFUND, refund_id)
    return None if row is None else _refund(row)


_LIST_REFUNDS: Final = """
    SELECT id, intent_id, charge, amount, currency, state, reason, failure_reason,
           metadata::text AS metadata, due_at, due_state, created_at
      FROM stripe_refund
     WHERE ($1::text IS NULL OR intent_id = $1)
       AND ($2::text IS NULL OR charge = $2)
       AND ($3::text IS NULL
            OR position < (SELECT position FROM stripe_refund WHERE id = $3))
     ORDER BY position DESC
     LIMIT $4
"""


async def list_refunds(
    connection: Connection, intent_id: str | None, charge: str | None, after: str | None, limit: int
) -> Sequence[Refund]:
    """Read refunds, of one intent or charge or all, the newest first."""
    rows = await connection.fetch(_LIST_REFUNDS, intent_id, charge, after, limit)
    return [_refund(row) for row in rows]


_LIST_DUE_REFUNDS: Final = """
    SELECT id, intent_id, charge, amount, currency, state, reason, failure_reason,
           metadata::text AS metadata, due_at, due_state, created_at
      FROM stripe_refund
     WHERE due_at <= $1
     ORDER BY due_at
     LIMIT $2
"""


async def list_due_refunds(connection: Connection, now: datetime, limit: int) -> Sequence[Refund]:
    """Read refunds whose time has come."""
    return [_refund(row) for row in await connection.fetch(_LIST_DUE_REFUNDS, now, limit)]


_INSERT_EVENT: Final = """
    INSERT INTO stripe_event (id, type, reference, body, created_at)
    VALUES ($1, $2, $3, $4, $5)
"""


async def insert_event(
    connection: Connection, event_id: str, kind: str, *, reference: str, body: bytes, now: datetime
) -> None:
    """Store an event, to be listed and sent as these bytes."""
    await connection.execute(_INSERT_EVENT, event_id, kind, reference, body, now)


_FIND_EVENT: Final = """
    SELECT body FROM stripe_event WHERE id = $1
"""


async def find_event(connection: Connection, event_id: str) -> bytes | None:
    """Read an event."""
    body = await connection.fetchval(_FIND_EVENT, event_id)
    return body if isinstance(body, bytes) else None


_LIST_EVENTS: Final = """
    SELECT body
      FROM stripe_event
     WHERE (cardinality($1::text[]) = 0 OR type = ANY($1))
       AND ($2::timestamptz IS NULL OR created_at >= $2)
       AND ($3::timestamptz IS NULL OR created_at < $3)
       AND ($4::text IS NULL
            OR position < (SELECT position FROM stripe_event WHERE id = $4))
     ORDER BY position DESC
     LIMIT $5
"""


async def list_events(
    connection: Connection, kinds: Sequence[str], created: Range, page: Page
) -> Sequence[bytes]:
    """Read events, of some types or all, the newest first; one more than the page has."""
    rows = await connection.fetch(
        _LIST_EVENTS, list(kinds), created.since, created.until, page.after, page.size + 1
    )
    return [row["body"] for row in rows]


_INSERT_CUSTOMER: Final = """
    INSERT INTO stripe_customer (id, metadata, created_at)
    VALUES ($1, $2::text::jsonb, $3)
        ON CONFLICT DO NOTHING
"""


async def insert_customer(connection: Connection, customer: StripeCustomer) -> None:
    """Store a customer unless there is one with this id."""
    metadata = orjson.dumps(dict(customer.metadata)).decode()
    await connection.execute(_INSERT_CUSTOMER, customer.id, metadata, customer.created_at)


_FIND_CUSTOMER: Final = """
    SELECT id, metadata::text AS metadata, created_at
      FROM stripe_customer
     WHERE id = $1
"""


async def find_customer(connection: Connection, customer_id: str) -> StripeCustomer | None:
    """Read a customer."""
    row = await connection.fetchrow(_FIND_CUSTOMER, customer_id)
    if row is None:
        return None
    return StripeCustomer(row["id"], orjson.loads(row["metadata"]), row["created_at"])


_INSERT_PAYMENT_METHOD: Final = """
    INSERT INTO stripe_payment_method (id, card_name, customer, created_at)
    VALUES ($1, $2, $3, $4)
"""


async def insert_payment_method(connection: Connection, method: PaymentMethod) -> None:
    """Store a copy of a test payment method."""
    await connection.execute(
        _INSERT_PAYMENT_METHOD, method.id, method.card_name, method.customer, method.created_at
    )


_FIND_PAYMENT_METHOD: Final = """
    SELECT id, card_name, customer, created_at
      FROM stripe_payment_method
     WHERE id = $1
"""


async def find_payment_method(connection: Connection, method_id: str) -> PaymentMethod | None:
    """Read a stored payment method."""
    row = await connection.fetchrow(_FIND_PAYMENT_METHOD, method_id)
    return None if row is None else _payment_method(row)


_ATTACH_PAYMENT_METHOD: Final = """
    UPDATE stripe_payment_method
       SET customer = $2
     WHERE id = $1
       AND (customer IS NULL OR customer = $2)
 RETURNING true
"""


async def attach_payment_method(connection: Connection, method_id: str, customer: str) -> bool:
    """Give a payment method to a customer; tell whether it was free or this one's."""
    attached = await connection.fetchval(_ATTACH_PAYMENT_METHOD, method_id, customer)
    return attached is True


_DETACH_PAYMENT_METHOD: Final = """
    UPDATE stripe_payment_method SET customer = NULL WHERE id = $1
"""


async def detach_payment_method(connection: Connection, method_id: str) -> None:
    """Take a payment method from its customer."""
    await connection.execute(_DETACH_PAYMENT_METHOD, method_id)


_LIST_PAYMENT_METHODS: Final = """
    SELECT id, card_name, customer, created_at
      FROM stripe_payment_method
     WHERE customer = $1
     ORDER BY created_at DESC, id
     LIMIT $2
"""


async def list_payment_methods(
    connection: Connection, customer: str, limit: int
) -> Sequence[PaymentMethod]:
    """Read the payment methods of a customer, the newest first."""
    rows = await connection.fetch(_LIST_PAYMENT_METHODS, customer, limit)
    return [_payment_method(row) for row in rows]


_SAVE_ROLL: Final = """
    INSERT INTO stripe_roll (secret)
    VALUES ($1)
        ON CONFLICT (is_rolling) DO UPDATE SET secret = excluded.secret
"""


async def save_roll(connection: Connection, secret: str) -> None:
    """Let notices be signed with this secret too."""
    await connection.execute(_SAVE_ROLL, secret)


_FIND_ROLL: Final = """
    SELECT secret FROM stripe_roll
"""


async def find_roll(connection: Connection) -> str | None:
    """Read the secret that is being rolled out, if one is."""
    secret = await connection.fetchval(_FIND_ROLL)
    return secret if isinstance(secret, str) else None


_CLEAR_ROLL: Final = """
    DELETE FROM stripe_roll
"""


async def clear_roll(connection: Connection) -> None:
    """End a roll."""
    await connection.execute(_CLEAR_ROLL)


def _refund(row: asyncpg.Record) -> Refund:
    due_state = row["due_state"]
    return Refund(
        id=row["id"],
        intent_id=row["intent_id"],
        charge=row["charge"],
        amount=row["amount"],
        currency=row["currency"],
        status=RefundStatus(row["state"]),
        created_at=row["created_at"],
        reason=row["reason"],
        failure_reason=row["failure_reason"],
        metadata=orjson.loads(row["metadata"]),
        due_at=row["due_at"],
        due_status=None if due_state is None else RefundStatus(due_state),
    )


def _payment_method(row: asyncpg.Record) -> PaymentMethod:
    return PaymentMethod(row["id"], row["card_name"], row["customer"], row["created_at"])
