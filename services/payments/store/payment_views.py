"""The SQL statements that read payments for people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg
import orjson

from services.payments.domain.model import Payment, PaymentState
from services.payments.store.payments import payment_of
from shared.database import Connection


@dataclass(frozen=True, slots=True)
class PaymentView:
    """A payment as the API shows it."""

    payment: Payment
    checkout_url: str | None
    return_url: str | None
    metadata: dict[str, str]
    updated_at: datetime
    refunded_amount: int


_SELECT: Final = """
    SELECT payment.id, gateway, method, payment.state, reason, amount, currency, customer_id,
           product_id, payment.reference, validation_id, gateway_payment_id, checks_made,
           next_check_at, payment.created_at, expires_at, version, priority,
           retries_automatically, subscription_id, waits_for_orders, return_url, metadata,
           updated_at, checkout_url, refunded_amount
      FROM payment
      LEFT JOIN attempt ON attempt.reference = payment.reference
"""

_FIND_VIEW: Final = f"""
    {_SELECT}
     WHERE payment.id = $1
"""


async def find_view(connection: Connection, payment_id: str) -> PaymentView | None:
    """Return a payment as the API shows it."""
    record = await connection.fetchrow(_FIND_VIEW, payment_id)
    return None if record is None else _view(record)


_PAGE: Final = """
       AND ($1::text IS NULL OR customer_id = $1)
       AND ($2::text IS NULL OR product_id = $2)
       AND ($3::text IS NULL OR payment.state = $3)
       AND ($4::text IS NULL OR gateway = $4)
       AND ($7::text IS NULL OR subscription_id = $7)
     ORDER BY payment.id DESC
     LIMIT $6
"""

# One statement for each index that can help: a plan is made once for all values, and an index
# serves no condition that may be switched off.
_LIST_ALL: Final = f"{_SELECT} WHERE payment.id < coalesce($5::text, '~') {_PAGE}"
_LIST_OF_CUSTOMER: Final = f"""
    {_SELECT} WHERE customer_id = $1 AND payment.id < coalesce($5::text, '~') {_PAGE}
"""
_LIST_OF_SUBSCRIPTION: Final = f"""
    {_SELECT} WHERE subscription_id = $7 AND payment.id < coalesce($5::text, '~') {_PAGE}
"""
_LIST_IN_STATE: Final = f"""
    {_SELECT}
     WHERE payment.state = $3 AND payment.state <> 'succeeded'
       AND payment.id < coalesce($5::text, '~') {_PAGE}
"""


async def list_views(
    connection: Connection,
    *,
    customer_id: str | None,
    product_id: str | None,
    state: str | None,
    gateway: str | None,
    subscription_id: str | None,
    before_id: str | None,
    limit: int,
) -> list[PaymentView]:
    """Return payments, newest first, that match every filter given."""
    statement = _LIST_ALL
    if subscription_id is not None:
        statement = _LIST_OF_SUBSCRIPTION
    elif customer_id is not None:
        statement = _LIST_OF_CUSTOMER
    elif state not in {None, PaymentState.SUCCEEDED}:
        statement = _LIST_IN_STATE
    records = await connection.fetch(
        statement, customer_id, product_id, state, gateway, before_id, limit, subscription_id
    )
    return [_view(record) for record in records]


def _view(record: asyncpg.Record) -> PaymentView:
    return PaymentView(
        payment_of(record),
        record["checkout_url"],
        record["return_url"],
        orjson.loads(record["metadata"]),
        record["updated_at"],
        record["refunded_amount"],
    )
