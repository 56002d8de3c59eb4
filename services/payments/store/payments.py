"""The SQL statements about payments and their history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import Change
from services.payments.domain.statistics import Step
from services.payments.store import ledger as ledger_store
from services.payments.store import statistics as statistics_store
from shared.contracts.base import Message
from shared.contracts.priorities import Priority
from shared.contracts.subscriptions import SUBSCRIPTIONS
from shared.database import Connection
from shared.gateways.interface import Method
from shared.messaging.envelope import Outgoing
from shared.money import Money


@dataclass(frozen=True, slots=True)
class NewPayment:
    """What a caller asks for; personal data goes to the gateway and stays in this row."""

    id: str
    gateway: str
    method: Method
    amount: Money
    customer: dict[str, str]
    product: dict[str, str]
    return_url: str | None
    metadata: dict[str, str]
    created_at: datetime
    expires_at: datetime
    next_check_at: datetime
    priority: Priority = Priority.NORMAL
    retries_automatically: bool = False


_STATES: Final[Mapping[str, PaymentState]] = {str(state): state for state in PaymentState}
_PRIORITIES: Final[Mapping[str, Priority]] = {str(level): level for level in Priority}

#: The columns of a payment, in the order of every statement here.
_COLUMNS: Final = 21


def payment_of(record: asyncpg.Record, first: int = 0) -> Payment:
    """Read a payment whose columns begin at `first`.

    By position: every notice reads one, and each column by its name would cost a search.
    """
    columns = record[first : first + _COLUMNS]
    return Payment._make(
        (
            *columns[:3],
            _STATES[columns[3]],
            columns[4],
            Money(columns[5], columns[6]),
            *columns[7:17],
            _PRIORITIES[columns[17]],
            *columns[18:],
        )
    )


_FIND_BY_REFERENCES: Final = """
    SELECT attempt.reference AS asked_reference,
           payment.id, gateway, method, payment.state, reason, amount, currency, customer_id,
           product_id, payment.reference, validation_id, gateway_payment_id, checks_made,
           next_check_at, payment.created_at, expires_at, version, priority,
           retries_automatically, subscription_id, waits_for_orders
      FROM attempt
      JOIN payment ON payment.id = attempt.payment_id
     WHERE attempt.reference = ANY($1::text[])
"""


async def find_by_references(
    connection: Connection, references: Sequence[str]
) -> dict[str, Payment]:
    """Return the payments that gateways know under these references, by reference."""
    records = await connection.fetch(_FIND_BY_REFERENCES, references)
    return {record[0]: payment_of(record, 1) for record in records}


_FIND_BY_IDS: Final = """
    SELECT id, gateway, method, state, reason, amount, currency, customer_id, product_id, reference,
           validation_id, gateway_payment_id, checks_made, next_check_at, created_at, expires_at,
           version, priority, retries_automatically, subscription_id, waits_for_orders
      FROM payment
     WHERE id = ANY($1::text[])
"""


async def find_by_ids(connection: Connection, ids: Sequence[str]) -> dict[str, Payment]:
    """Return payments by id."""
    records = await connection.fetch(_FIND_BY_IDS, ids)
    return {record["id"]: payment_of(record) for record in records}


_LOCK_PAYMENT: Final = """
    SELECT id, gateway, method, state, reason, amount, currency, customer_id, product_id, reference,
           validation_id, gateway_payment_id, checks_made, next_check_at, created_at, expires_at,
           version, priority, retries_automatically, subscription_id, waits_for_orders
      FROM payment
     WHERE id = $1
       FOR NO KEY UPDATE
"""


async def lock_payment(connection: Connection, payment_id: str) -> Payment:
    """Return a payment that is there, and keep others from changing it in this transaction."""
    record = await connection.fetchrow(_LOCK_PAYMENT, payment_id)
    assert record is not None, "payments are never deleted"
    return payment_of(record)


_LOCK_PAYMENTS: Final = """
    SELECT id, gateway, method, state, reason, amount, currency, customer_id, product_id, reference,
           validation_id, gateway_payment_id, checks_made, next_check_at, created_at, expires_at,
           version, priority, retries_automatically, subscription_id, waits_for_orders
      FROM payment
     WHERE id = ANY($1::text[])
     ORDER BY id
       FOR NO KEY UPDATE
"""


async def lock_payments(connection: Connection, ids: Sequence[str]) -> dict[str, Payment]:
    """Return payments by id, and keep others from changing them in this transaction.

    They are locked in the order of their ids, so that two who lock some of the same cannot block
    each other for good.
    """
    if len(ids) == 1:  # Looks into one partition only.
        return {ids[0]: await lock_payment(connection, ids[0])}
    records = await connection.fetch(_LOCK_PAYMENTS, ids)
    return {record["id"]: payment_of(record) for record in records}


# Saved only where the version is still the one that was decided on; the others are read and decided
# anew by the caller. History and messages are written for exactly the rows that were saved, all in
# one round trip: this is what the customer's enrollment waits for. Rows of the answer are either a
# saved payment or a message to publish.
_SAVE_AND_ANNOUNCE: Final = """
    WITH change AS (
        SELECT *
          FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[],
                      $7::smallint[], $8::timestamptz[], $9::text[])
            AS new (id, version, state, reason, validation_id, gateway_payment_id, checks_made,
                    next_check_at, event)
    ), saved AS (
        UPDATE payment
           SET state = change.state,
               reason = change.reason,
               validation_id = change.validation_id,
               gateway_payment_id = change.gateway_payment_id,
               checks_made = change.checks_made,
               next_check_at = change.next_check_at,
               check_leased_until = NULL,
               updated_at = $10,
               version = payment.version + 1
          FROM change
         WHERE payment.id = change.id
           AND payment.version = change.version
     RETURNING payment.id
    ), story AS (
        INSERT INTO payment_history (payment_id, at, event, state, reason, next_check_at)
        SELECT id, $10, event, state, reason, next_check_at
          FROM change
          JOIN saved USING (id)
    ), sent AS (
        INSERT INTO outbox (queue, message_name, payload, traceparent)
        SELECT queue, message_name, payload::json, traceparent
          FROM unnest($11::text[], $12::text[], $13::text[], $14::text[], $15::text[])
            AS message (id, queue, message_name, payload, traceparent)
          JOIN saved USING (id)
     RETURNING id, queue, message_name, payload, traceparent
    ), booked AS (
        INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency,
                                     reference, fee)
        SELECT id, kind, occasion, debit, credit, amount, currency, reference, fee
          FROM unnest($16::text[], $17::text[], $18::text[], $19::text[], $20::text[],
                      $21::bigint[], $22::text[], $23::text[], $24::bigint[])
            AS transfer (id, kind, occasion, debit, credit, amount, currency, reference, fee)
          JOIN saved USING (id)
    ), counted AS (
        INSERT INTO step_count (at, gateway, from_state, to_state, payments, measured, milliseconds,
                                durations)
        SELECT $10, gateway, before, after, payments, measured, milliseconds, durations::int[]
          FROM unnest($25::text[], $26::text[], $27::text[], $28::int[], $29::int[], $30::bigint[],
                      $31::text[])
            AS step (gateway, before, after, payments, measured, milliseconds, durations)
         WHERE (SELECT count(*) FROM saved) = cardinality($1)
    )
    SELECT id AS payment_id, NULL::bigint AS id, NULL AS queue, NULL AS message_name,
           NULL::json AS payload, NULL AS traceparent
      FROM saved
     UNION ALL
    SELECT NULL, id, queue, message_name, payload, traceparent
      FROM sent
"""


async def save_and_announce(
    connection: Connection,
    changes: Sequence[Change],
    announcements: Mapping[str, tuple[Message, str | None]],
    now: datetime,
    *,
    steps: Sequence[Step | None] = (),
) -> tuple[frozenset[str], list[Outgoing]]:
    """Save decided payments with history and ledger, and announce those that were saved, at once.

    Each payment may occur once; give them sorted by id, so that two savers cannot deadlock.
    `announcements` are messages with their traceparent, by payment id. `steps` are what statistics
    count of the changes. It is one statement, and needs no transaction unless a change frees what
    was held. Returns the ids that were saved and the messages to publish.
    """
    rows = [
        (payment_id, subscription.route(message), message.name, message.encode(), traceparent)
        for payment_id, (message, traceparent) in announcements.items()
        for subscription in SUBSCRIPTIONS[type(message)]
    ]
    messages: list[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * 5
    records = await connection.fetch(
        _SAVE_AND_ANNOUNCE,
        *_columns(changes),
        now,
        *messages,
        *_transfer_columns(changes),
        *statistics_store.step_columns(steps),
    )
    saved = frozenset(
        record["payment_id"] for record in records if record["payment_id"] is not None
    )
    for change in changes:
        if change.frees_held_to is not None and change.payment.id in saved:
            assert connection.is_in_transaction(), "what is held goes in a statement of its own"
            await ledger_store.release_held(connection, change.payment.id, change.frees_held_to)
    if len(saved) < len(changes):
        # Rare: another writer was faster. The statement counts all or nothing.
        await statistics_store.count_saved(connection, steps, saved, now)
    return (
        saved,
        [Outgoing(*tuple(record)[1:]) for record in records if record["id"] is not None],
    )


def _transfer_columns(changes: Sequence[Change]) -> list[Sequence[Any]]:
    """Return what some changes move in the ledger, as columns."""
    rows = [
        (
            change.payment.id,
            transfer.kind,
            transfer.occasion,
            transfer.debit,
            transfer.credit,
            transfer.amount.minor_units,
            transfer.amount.currency,
            transfer.reference,
            transfer.fee,
        )
        for change in changes
        for transfer in change.transfers
    ]
    return list(zip(*rows, strict=True)) if rows else [()] * 9


def _columns(changes: Sequence[Change]) -> list[Sequence[Any]]:
    rows = [
        (
            change.payment.id,
            change.payment.version,
            change.payment.state,
            change.payment.reason,
            change.payment.validation_id,
            change.payment.gateway_payment_id,
            change.payment.checks_made,
            change.payment.next_check_at,
            change.event,
        )
        for change in changes
    ]
    return list(zip(*rows, strict=True))


_INSERT_PAYMENT: Final = """
    INSERT INTO payment (id, gateway, state, amount, currency, customer_id, product_id, customer,
                         product, return_url, metadata, reference, next_check_at, created_at,
                         expires_at, updated_at, method, method_details, priority,
                         retries_automatically)
    VALUES ($1, $2, 'created', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $13, $15, $16,
            $17, $18)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
"""


async def insert_payment(connection: Connection, new: NewPayment, reference: str) -> bool:
    """Record a payment and tell whether it is new: a repeated request finds it there."""
    inserted = await connection.fetchval(
        _INSERT_PAYMENT,
        new.id,
        new.gateway,
        new.amount.minor_units,
        new.amount.currency,
        new.customer["id"],
        new.product["id"],
        orjson.dumps(new.customer).decode(),
        orjson.dumps(new.product).decode(),
        new.return_url,
        orjson.dumps(new.metadata).decode(),
        reference,
        new.next_check_at,
        new.created_at,
        new.expires_at,
        new.method.kind,
        orjson.dumps(asdict(new.method)).decode(),
        new.priority,
        new.retries_automatically,
    )
    return inserted is not None


_INSERT_HISTORY: Final = """
    INSERT INTO payment_history (payment_id, at, event, state, reason, next_check_at)
    VALUES ($1, $2, $3, $4, $5, $6)
"""


async def insert_history(
    connection: Connection, payment: Payment, event: str, now: datetime
) -> None:
    """Add a line to a payment's story that comes with no change of its state."""
    await connection.execute(
        _INSERT_HISTORY,
        payment.id,
        now,
        event,
        payment.state,
        payment.reason,
        payment.next_check_at,
    )
