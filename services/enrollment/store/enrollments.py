"""SQL of enrollments, what granted them, and their history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import asyncpg

from services.enrollment.domain.model import (
    Enrollment,
    EnrollmentState,
    Grant,
    PaymentEffect,
    PlannedRevocation,
)
from services.enrollment.domain.revocation import Cause
from shared.database import Connection
from shared.partitions import PartitionedTable

#: Enrollments are kept for good and stay unique over all time, so they are not cut by it.
PARTITIONED_TABLES: Final[tuple[PartitionedTable, ...]] = ()

# Both unique constraints may refuse a row; which one is found out for the few that were refused.
# A payment may have gone back before it arrives here: the table of those is small, and who waits
# there is woken.
_INSERT_GRANTS: Final = """
    WITH new AS (
        INSERT INTO enrollment (id, customer_id, product_id, payment_id, state)
        SELECT id, customer_id, product_id, payment_id, 'active'
          FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
            AS given (id, customer_id, product_id, payment_id)
            ON CONFLICT DO NOTHING
     RETURNING id, payment_id
    ), heard_of_before AS (
        UPDATE payment_reversal
           SET revocation = 'waiting', reason = 'granted_late', due_at = coalesce(due_at, $5)
          FROM new
         WHERE payment_reversal.payment_id = new.payment_id
           AND revocation IN ('waiting', 'ungranted')
    )
    INSERT INTO enrollment_history (enrollment_id, event, payment_id)
    SELECT id, 'granted', payment_id
      FROM new
 RETURNING payment_id
"""


async def insert_grants(
    connection: Connection, grants: Sequence[Grant], now: datetime
) -> frozenset[str]:
    """Enroll, and return the payments that were the first for their product.

    Give the grants sorted by customer and product, so that two writers cannot deadlock.
    """
    rows = [(grant.id, grant.customer_id, grant.product_id, grant.payment_id) for grant in grants]
    records = await connection.fetch(_INSERT_GRANTS, *zip(*rows, strict=True), now)
    return frozenset(record["payment_id"] for record in records)


_IS_KNOWN_PAYMENT: Final = """
    SELECT EXISTS (SELECT FROM enrollment WHERE payment_id = $1)
        OR EXISTS (SELECT FROM further_payment WHERE payment_id = $1)
"""


async def is_known_payment(connection: Connection, payment_id: str) -> bool:
    """Tell whether a payment has had its effect."""
    return bool(await connection.fetchval(_IS_KNOWN_PAYMENT, payment_id))


_LOCK: Final = """
    SELECT id, customer_id, product_id, payment_id, state, created_at, updated_at
      FROM enrollment
     WHERE customer_id = $1
       AND product_id = $2
       FOR UPDATE
"""


async def lock_enrollment(
    connection: Connection, customer_id: str, product_id: str
) -> Enrollment | None:
    """Read an enrollment and keep others from changing it until the transaction ends."""
    record = await connection.fetchrow(_LOCK, customer_id, product_id)
    return None if record is None else _enrollment(record)


_LOCK_BY_ID: Final = """
    SELECT id, customer_id, product_id, payment_id, state, created_at, updated_at
      FROM enrollment
     WHERE id = $1
       FOR UPDATE
"""


async def lock_enrollment_by_id(connection: Connection, enrollment_id: str) -> Enrollment | None:
    """Read an enrollment and keep others from changing it until the transaction ends."""
    record = await connection.fetchrow(_LOCK_BY_ID, enrollment_id)
    return None if record is None else _enrollment(record)


_INSERT_FURTHER_PAYMENT: Final = """
    INSERT INTO further_payment (payment_id, enrollment_id, effect, amount, currency)
    VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT DO NOTHING
"""


async def insert_further_payment(
    connection: Connection, grant: Grant, enrollment_id: str, effect: PaymentEffect
) -> None:
    """Record a payment for a product that the customer had, or had had, before."""
    await connection.execute(
        _INSERT_FURTHER_PAYMENT,
        grant.payment_id,
        enrollment_id,
        effect,
        grant.amount,
        grant.currency,
    )


_INSERT_BY_HAND: Final = """
    INSERT INTO enrollment (id, customer_id, product_id, state)
    VALUES ($1, $2, $3, 'active')
        ON CONFLICT DO NOTHING
 RETURNING id
"""


async def insert_by_hand(
    connection: Connection, enrollment_id: str, customer_id: str, product_id: str
) -> bool:
    """Enroll without a payment; False when the customer is or was enrolled before."""
    inserted = await connection.fetchval(_INSERT_BY_HAND, enrollment_id, customer_id, product_id)
    return inserted is not None


_SET_STATE: Final = """
    UPDATE enrollment SET state = $2, updated_at = clock_timestamp() WHERE id = $1
"""

_INSERT_HISTORY: Final = """
    INSERT INTO enrollment_history (enrollment_id, event, payment_id, actor, reason)
    VALUES ($1, $2, $3, $4, $5)
"""


async def change_state(
    connection: Connection,
    enrollment_id: str,
    state: EnrollmentState,
    *,
    event: str,
    payment_id: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> None:
    """Set the state of a locked enrollment and write down who did it and why."""
    await connection.execute(_SET_STATE, enrollment_id, state)
    await connection.execute(_INSERT_HISTORY, enrollment_id, event, payment_id, actor, reason)


async def add_to_history(
    connection: Connection, enrollment_id: str, event: str, *, payment_id: str, reason: str
) -> None:
    """Write down what was decided about a locked enrollment without changing its state."""
    await connection.execute(_INSERT_HISTORY, enrollment_id, event, payment_id, None, reason)


# What gives the right: a grant by hand, a payment that did not go back, or a subscription; of what
# came before an operator took the enrollment away nothing does. $2: a payment that went back counts
# as long as that has not taken anything away yet, or never will.
_IS_HELD: Final = """
    WITH taken_away AS (
        SELECT coalesce(max(id), 0) AS id, coalesce(max(at), '-infinity') AS at
          FROM enrollment_history
         WHERE enrollment_id = $1
           AND event = 'revoked_by_hand'
    ), payment AS (
        SELECT payment_id
          FROM enrollment_history
         WHERE enrollment_id = $1
           AND event IN ('granted', 'regranted', 'restored')
           AND payment_id IS NOT NULL
           AND id > (SELECT id FROM taken_away)
         UNION ALL
        SELECT payment_id
          FROM further_payment
         WHERE enrollment_id = $1
           AND stored_at > (SELECT at FROM taken_away)
    )
    SELECT EXISTS (
               SELECT
                 FROM enrollment_history
                WHERE enrollment_id = $1
                  AND event = 'granted_by_hand'
                  AND id > (SELECT id FROM taken_away))
        OR EXISTS (
               SELECT
                 FROM payment
                WHERE NOT EXISTS (
                          SELECT
                            FROM payment_reversal
                           WHERE payment_reversal.payment_id = payment.payment_id
                             AND cause IN ('refunded', 'dispute_lost')
                             AND NOT ($2 AND revocation IN ('waiting', 'never'))))
        OR EXISTS (
               SELECT
                 FROM enrollment
                 JOIN subscription_access USING (customer_id, product_id)
                WHERE enrollment.id = $1
                  AND has_access
                  AND stored_at > (SELECT at FROM taken_away))
"""


async def is_held(connection: Connection, enrollment_id: str, *, until_taken: bool = False) -> bool:
    """Tell whether anything gives the customer the right to a locked enrollment.

    Args:
        connection: In the transaction that holds the lock.
        enrollment_id: Whose right it is, and to what.
        until_taken: Count a payment that went back for as long as its revocation waits, or if by
            policy there is none.
    """
    return bool(await connection.fetchval(_IS_HELD, enrollment_id, until_taken))


_FIND: Final = """
    SELECT enrollment.id, enrollment.customer_id, enrollment.product_id, enrollment.payment_id,
           state, created_at, updated_at, planned.payment_id AS planned_payment_id, cause, due_at,
           subscription_id
      FROM enrollment
      LEFT JOIN LATERAL (
               SELECT payment_id, cause, due_at
                 FROM payment_reversal
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                  AND due_at IS NOT NULL
                  AND state = 'active'
                ORDER BY due_at
                LIMIT 1) planned ON true
      LEFT JOIN LATERAL (
               SELECT subscription_id
                 FROM subscription_access
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                ORDER BY has_access DESC, stored_at DESC
                LIMIT 1) subscribed ON true
     WHERE enrollment.id = $1
"""


async def find_enrollment(connection: Connection, enrollment_id: str) -> Enrollment | None:
    """Return an enrollment with the revocation that waits for it and its subscription, if any."""
    record = await connection.fetchrow(_FIND, enrollment_id)
    return None if record is None else _with_more(record)


# A payment is found through the enrollment that it paid for first, or through a further payment.
_LIST: Final = """
    SELECT enrollment.id, enrollment.customer_id, enrollment.product_id, enrollment.payment_id,
           state, created_at, updated_at, planned.payment_id AS planned_payment_id, cause, due_at,
           subscription_id
      FROM enrollment
      LEFT JOIN LATERAL (
               SELECT payment_id, cause, due_at
                 FROM payment_reversal
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                  AND due_at IS NOT NULL
                  AND state = 'active'
                ORDER BY due_at
                LIMIT 1) planned ON true
      LEFT JOIN LATERAL (
               SELECT subscription_id
                 FROM subscription_access
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                ORDER BY has_access DESC, stored_at DESC
                LIMIT 1) subscribed ON true
     WHERE ($1::text IS NULL OR enrollment.customer_id = $1)
       AND ($2::text IS NULL OR enrollment.product_id = $2)
       AND ($3::text IS NULL OR enrollment.payment_id = $3 OR enrollment.id IN (
               SELECT enrollment_id FROM further_payment WHERE further_payment.payment_id = $3))
       AND enrollment.id < coalesce($4::text, '~')
     ORDER BY enrollment.id DESC
     LIMIT $5
"""

# At most one. A statement of its own: there are far too many enrollments to look through them.
_LIST_OF_SUBSCRIPTION: Final = """
    SELECT enrollment.id, customer_id, product_id, enrollment.payment_id, state, created_at,
           updated_at, planned.payment_id AS planned_payment_id, cause, due_at, subscription_id
      FROM subscription_access
      JOIN enrollment USING (customer_id, product_id)
      LEFT JOIN LATERAL (
               SELECT payment_id, cause, due_at
                 FROM payment_reversal
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                  AND due_at IS NOT NULL
                  AND state = 'active'
                ORDER BY due_at
                LIMIT 1) planned ON true
     WHERE subscription_id = $6
       AND ($1::text IS NULL OR customer_id = $1)
       AND ($2::text IS NULL OR product_id = $2)
       AND ($3::text IS NULL OR enrollment.payment_id = $3 OR enrollment.id IN (
               SELECT enrollment_id FROM further_payment WHERE further_payment.payment_id = $3))
       AND enrollment.id < coalesce($4::text, '~')
     LIMIT $5
"""


async def list_enrollments(
    connection: Connection,
    *,
    customer_id: str | None,
    product_id: str | None,
    payment_id: str | None,
    subscription_id: str | None,
    before_id: str | None,
    limit: int,
) -> list[Enrollment]:
    """Return enrollments, newest first, that match every filter given."""
    filters = (customer_id, product_id, payment_id, before_id, limit)
    if subscription_id is None:
        records = await connection.fetch(_LIST, *filters)
    else:
        records = await connection.fetch(_LIST_OF_SUBSCRIPTION, *filters, subscription_id)
    return [_with_more(record) for record in records]


def _with_more(record: asyncpg.Record) -> Enrollment:
    planned = None
    if record["due_at"] is not None:
        planned = PlannedRevocation(
            record["planned_payment_id"], Cause(record["cause"]), record["due_at"]
        )
    return replace(
        _enrollment(record), revocation=planned, subscription_id=record["subscription_id"]
    )


def _enrollment(record: asyncpg.Record) -> Enrollment:
    return Enrollment(
        id=record["id"],
        customer_id=record["customer_id"],
        product_id=record["product_id"],
        payment_id=record["payment_id"],
        state=EnrollmentState(record["state"]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )
