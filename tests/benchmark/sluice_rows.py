"""Rows that a run of Sluice finds: a history of paid payments, and payments about to be paid.

The statements follow the services' migrations. They write what `POST /api/payments`, a notice and
an enrollment would have left behind, without the 70,000 calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tests.benchmark.makers import ExpectedPayment
from tests.benchmark.servers import Database

# Five looks of the reconciler (30, 60, 120, 300 and 600 s apart) lie behind a payment of twenty
# minutes; the next is half an hour after the fifth, so none falls into a run. A payment is
# looked at only while its notice is missing, and no notice is missing here.
CHECKS_MADE: Final = 5
NEXT_CHECK_AFTER_SECONDS: Final = 30 + 60 + 120 + 300 + 600 + 1_800

# $1 to $3 are the payments' ULIDs, amounts and moments; $4 is their state.
INSERT_PAYMENTS: Final = """
INSERT INTO payments.payment
       (id, gateway, state, reason, amount, currency, customer_id, product_id, customer, product,
        return_url, metadata, reference, validation_id, gateway_payment_id, checks_made,
        next_check_at, created_at, expires_at, updated_at, version, priority)
SELECT 'pay_' || ulid, 'sslcommerz', $4::text,
       CASE WHEN $4 = 'pending' THEN 'customer_must_pay' END,
       amount, 'BDT', 'cus_' || ulid, 'course-' || n % 50,
       jsonb_build_object('id', 'cus_' || ulid, 'name', 'Test User',
                          'email', 'user' || n || '@example.com', 'phone', '+8801700000000'),
       jsonb_build_object('id', 'course-' || n % 50, 'name', 'Course ' || n % 50),
       NULL, jsonb_build_object('source', 'web', 'campaign', 'autumn'), 'att_' || ulid,
       CASE WHEN $4 = 'succeeded' THEN ulid || lpad(amount::text, 10, '0') END,
       CASE WHEN $4 = 'succeeded' THEN 'bank' || ulid END,
       CASE WHEN $4 = 'pending' THEN $5::int ELSE 0 END,
       CASE WHEN $4 = 'pending' THEN created_at + make_interval(secs => $6) END,
       created_at, created_at + interval '1 day', created_at,
       CASE WHEN $4 = 'pending' THEN 2 + $5 ELSE 3 END,
       CASE WHEN amount > 200000 THEN 'high' WHEN amount >= 100000 THEN 'medium' ELSE 'normal' END
  FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) WITH ORDINALITY
    AS given (ulid, amount, created_at, n)
"""
INSERT_ATTEMPTS: Final = """
INSERT INTO payments.attempt
       (reference, payment_id, number, state, handle, checkout_url, created_at)
SELECT 'att_' || ulid, 'pay_' || ulid, 1, 'open', md5(ulid),
       'https://sandbox.sslcommerz.com/EasyCheckOut/test' || md5(ulid), created_at
  FROM unnest($1::text[], $2::timestamptz[]) AS given (ulid, created_at)
"""
# $3 are the events and the states they led to.
INSERT_HISTORY: Final = """
INSERT INTO payments.payment_history (payment_id, at, event, state)
SELECT 'pay_' || ulid, created_at, event, state
  FROM unnest($1::text[], $2::timestamptz[]) AS given (ulid, created_at)
 CROSS JOIN unnest($3::text[], $4::text[]) AS step (event, state)
"""
INSERT_EVENTS: Final = """
INSERT INTO webhook.inbound_event
       (gateway, event_key, event_day, source, claim, received_at, body)
SELECT 'sslcommerz',
       'att_' || ulid || ':VALID:' || ulid || lpad(amount::text, 10, '0'),
       (created_at AT TIME ZONE 'UTC')::date, 'notice', 'paid', created_at,
       convert_to(repeat('field=value&', 100), 'UTF8')
  FROM unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS given (ulid, amount, created_at)
"""
INSERT_ENROLLMENTS: Final = """
  WITH enrolled AS (
       INSERT INTO enrollment.enrollment
              (id, customer_id, product_id, payment_id, state, created_at, updated_at)
       SELECT 'enr_' || ulid, 'cus_' || ulid, 'course-' || n % 50, 'pay_' || ulid, 'active',
              created_at, created_at
         FROM unnest($1::text[], $2::timestamptz[]) WITH ORDINALITY AS given (ulid, created_at, n)
    RETURNING id, payment_id, created_at
       )
INSERT INTO enrollment.enrollment_history (enrollment_id, at, event, payment_id)
SELECT id, created_at, 'granted', payment_id FROM enrolled
"""


def insert_paid(database: Database, payments: Sequence[ExpectedPayment]) -> None:
    """Insert payments that were paid and enrolled when they were created."""
    ulids, amounts, moments = _columns(payments)
    database.execute(
        INSERT_PAYMENTS, ulids, amounts, moments, "succeeded", CHECKS_MADE, NEXT_CHECK_AFTER_SECONDS
    )
    database.execute(INSERT_ATTEMPTS, ulids, moments)
    database.execute(
        INSERT_HISTORY,
        ulids,
        moments,
        ["created", "checkout_opened", "confirmed"],
        ["created", "pending", "succeeded"],
    )
    database.execute(INSERT_EVENTS, ulids, amounts, moments)
    database.execute(INSERT_ENROLLMENTS, ulids, moments)


def insert_awaited(database: Database, payments: Sequence[ExpectedPayment]) -> None:
    """Insert payments whose customers are on the gateway's page."""
    ulids, amounts, moments = _columns(payments)
    database.execute(
        INSERT_PAYMENTS, ulids, amounts, moments, "pending", CHECKS_MADE, NEXT_CHECK_AFTER_SECONDS
    )
    database.execute(INSERT_ATTEMPTS, ulids, moments)
    database.execute(
        INSERT_HISTORY, ulids, moments, ["created", "checkout_opened"], ["created", "pending"]
    )


def _columns(
    payments: Sequence[ExpectedPayment],
) -> tuple[list[str], list[int], list[datetime]]:
    return (
        [payment.ulid for payment in payments],
        [payment.amount_minor for payment in payments],
        [
            datetime.fromtimestamp(payment.created_milliseconds / 1_000, tz=UTC)
            for payment in payments
        ],
    )
