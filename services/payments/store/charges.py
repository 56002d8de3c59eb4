"""The SQL statements about what the scheduler orders, many at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

import orjson

from services.payments.store.payments import NewPayment
from services.payments.store.retries import Claim, retry_of
from shared.contracts.base import Message
from shared.contracts.subscriptions import SUBSCRIPTIONS
from shared.database import Connection
from shared.messaging.envelope import Outgoing


@dataclass(frozen=True, slots=True)
class NewCharge:
    """A payment that was ordered, with its first attempt."""

    payment: NewPayment
    subscription_id: str
    waits_for_orders: bool
    #: Our name for the attempt at the gateway.
    reference: str
    #: `started`, or `put_off` where the gateway surely does not hear of it yet, and why not.
    attempt_state: str
    reason: str | None
    #: What is told with the record; None where something else is.
    message: Message | None
    traceparent: str | None


# Whoever comes first with a payment's id has its order; all others change nothing.
_RECORD: Final = """
    WITH ordered AS (
        SELECT *
          FROM unnest($1::text[], $2::text[], $3::boolean[], $4::text[], $5::text[], $6::text[],
                      $7::text[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[],
                      $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
                      $18::timestamptz[], $19::timestamptz[])
            AS new (id, subscription_id, waits_for_orders, reference, attempt_state, reason,
                    gateway, amount, currency, customer_id, product_id, customer, product, metadata,
                    method, method_details, priority, expires_at, next_check_at)
         ORDER BY id
    ), first AS (
        INSERT INTO charge_order (payment_id, subscription_id, ordered_at)
        SELECT id, subscription_id, $20
          FROM ordered
            ON CONFLICT (payment_id) DO NOTHING
     RETURNING payment_id AS id
    ), recorded AS (
        INSERT INTO payment (id, gateway, state, reason, amount, currency, customer_id, product_id,
                             customer, product, metadata, reference, next_check_at, created_at,
                             expires_at, updated_at, method, method_details, priority,
                             retries_automatically, subscription_id, waits_for_orders)
        SELECT id, gateway, 'created', reason, amount, currency, customer_id, product_id,
               customer::jsonb, product::jsonb, metadata::jsonb, reference, next_check_at, $20,
               expires_at, $20, method, method_details::jsonb, priority, true, subscription_id,
               waits_for_orders
          FROM ordered
          JOIN first USING (id)
    ), begun AS (
        INSERT INTO attempt (reference, payment_id, number, state, created_at)
        SELECT reference, id, 1, attempt_state, $20
          FROM ordered
          JOIN first USING (id)
    ), story AS (
        INSERT INTO payment_history (payment_id, at, event, state, reason, next_check_at)
        SELECT id, $20, 'ordered', 'created', reason, next_check_at
          FROM ordered
          JOIN first USING (id)
    ), sent AS (
        INSERT INTO outbox (queue, message_name, payload, traceparent)
        SELECT queue, message_name, payload::json, traceparent
          FROM unnest($21::text[], $22::text[], $23::text[], $24::text[], $25::text[])
            AS message (id, queue, message_name, payload, traceparent)
          JOIN first USING (id)
     RETURNING id, queue, message_name, payload, traceparent
    )
    SELECT id AS payment_id, NULL::bigint AS id, NULL AS queue, NULL AS message_name,
           NULL::json AS payload, NULL AS traceparent
      FROM first
     UNION ALL
    SELECT NULL, id, queue, message_name, payload, traceparent
      FROM sent
"""


async def record_charges(
    connection: Connection, charges: Sequence[NewCharge], now: datetime
) -> tuple[frozenset[str], list[Outgoing]]:
    """Record what was ordered, each with its first attempt, its story and its message, at once.

    Returns the ids that are new, and the messages to publish. Of an order that was heard before, or
    cancelled before it came, nothing is written. Each payment may occur once.
    """
    rows = [
        (
            charge.payment.id,
            charge.subscription_id,
            charge.waits_for_orders,
            charge.reference,
            charge.attempt_state,
            charge.reason,
            charge.payment.gateway,
            charge.payment.amount.minor_units,
            charge.payment.amount.currency,
            charge.payment.customer["id"],
            charge.payment.product["id"],
            orjson.dumps(charge.payment.customer).decode(),
            orjson.dumps(charge.payment.product).decode(),
            orjson.dumps(charge.payment.metadata).decode(),
            charge.payment.method.kind,
            orjson.dumps(asdict(charge.payment.method)).decode(),
            charge.payment.priority,
            charge.payment.expires_at,
            charge.payment.next_check_at,
        )
        for charge in charges
    ]
    messages = [
        (
            charge.payment.id,
            subscription.route(charge.message),
            charge.message.name,
            charge.message.encode(),
            charge.traceparent,
        )
        for charge in charges
        if charge.message is not None
        for subscription in SUBSCRIPTIONS[type(charge.message)]
    ]
    records = await connection.fetch(
        _RECORD,
        *zip(*rows, strict=True),
        now,
        *(zip(*messages, strict=True) if messages else [()] * 5),
    )
    return (
        frozenset(record["payment_id"] for record in records if record["payment_id"] is not None),
        [Outgoing(*tuple(record)[1:]) for record in records if record["id"] is not None],
    )


# An order that came once more has no greater number than the last one: what it wanted was done, and
# the retry that waits by now is another one. Whoever had claimed the retry writes nothing any more.
_ORDER_RETRIES: Final = """
    WITH fresh AS (
        UPDATE charge_order
           SET retry_order = wanted.number
          FROM unnest($1::text[], $2::bigint[]) AS wanted (id, number)
         WHERE payment_id = wanted.id
           AND coalesce(retry_order, 0) < wanted.number
     RETURNING payment_id
    ), released AS (
        UPDATE retry
           SET state = 'scheduled',
               next_attempt_at = $3,
               waits_for = NULL,
               token = token + 1,
               updated_at = $3
          FROM fresh
         WHERE retry.payment_id = fresh.payment_id
           AND state = 'waiting'
     RETURNING retry.payment_id
    ), story AS (
        INSERT INTO payment_history (payment_id, at, event, state, reason, next_check_at)
        SELECT id, $3, 'retry_ordered', state, reason, next_check_at
          FROM payment
          JOIN released ON payment_id = id
    )
    SELECT payment_id FROM released
"""


async def order_retries(
    connection: Connection, orders: Mapping[str, int], now: datetime
) -> list[str]:
    """Make retries due that wait for an order, and return the payments whose retry did.

    Args:
        connection: Any; it is one statement.
        orders: The number of the order, which grows, by payment.
        now: Business time.
    """
    ids = sorted(orders)
    records = await connection.fetch(_ORDER_RETRIES, ids, [orders[id_] for id_ in ids], now)
    return [record["payment_id"] for record in records]


# What was released by an order, to be made by whoever heard it.
_CLAIM_ORDERED: Final = """
    UPDATE retry
       SET state = 'running',
           token = token + 1,
           leased_until = clock_timestamp() + make_interval(secs => $3),
           updated_at = $2
     WHERE payment_id = ANY($1::text[])
       AND state = 'scheduled'
       AND next_attempt_at <= $2
 RETURNING payment_id, state, gateway, priority, customer_id, product_id, amount, currency, kind,
           code, failures, attempts_made, failed_reference, lost_reference, asked, continues,
           next_attempt_at, waits_for, metadata, token, created_at, updated_at, finished_at
"""


async def claim_ordered(
    connection: Connection, payment_ids: Sequence[str], now: datetime, lease_seconds: float
) -> list[Claim]:
    """Take the retries of some payments that are due, like `claim_due`."""
    records = await connection.fetch(_CLAIM_ORDERED, payment_ids, now, lease_seconds)
    return [Claim(retry_of(record), was_running=False) for record in records]


_CANCEL_UNHEARD: Final = """
    INSERT INTO charge_order (payment_id, subscription_id, ordered_at, cancelled_at)
    VALUES ($1, $2, $3, $3)
        ON CONFLICT (payment_id) DO NOTHING
 RETURNING payment_id
"""

_WAS_CANCELLED: Final = """
    SELECT cancelled_at IS NOT NULL FROM charge_order WHERE payment_id = $1
"""


async def cancel_unheard(
    connection: Connection, payment_id: str, subscription_id: str, now: datetime
) -> bool:
    """Keep an order from ever being carried out that was not heard yet, and tell if it was not."""
    first = await connection.fetchval(_CANCEL_UNHEARD, payment_id, subscription_id, now)
    return first is not None


async def was_cancelled_unheard(connection: Connection, payment_id: str) -> bool:
    """Tell whether an order was cancelled before it came: then it has no payment."""
    return bool(await connection.fetchval(_WAS_CANCELLED, payment_id))
