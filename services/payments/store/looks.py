"""The SQL statements about looks at gateways that are due."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from services.payments.domain.model import Payment
from services.payments.store.payments import payment_of
from shared.contracts.priorities import Priority
from shared.database import Connection

#: How long a look at the gateway may hold a payment; longer than any gateway time-out.
CHECK_LEASE_SECONDS: Final = 60


# Claimed by a lease on the database's clock; the due time itself is business time.
_CLAIM_DUE: Final = """
    UPDATE payment
       SET check_leased_until = clock_timestamp() + make_interval(secs => $6)
     WHERE id = ANY (ARRAY(
               SELECT due.id
                 FROM unnest($3::text[], $4::int[]) AS allowed (gateway, most)
                CROSS JOIN LATERAL (
                      SELECT id, next_check_at
                        FROM payment
                       WHERE payment.gateway = allowed.gateway
                         AND priority = $2
                         AND next_check_at <= $1
                         AND (check_leased_until IS NULL
                              OR check_leased_until < clock_timestamp())
                       ORDER BY next_check_at
                       LIMIT allowed.most
                         FOR UPDATE SKIP LOCKED) AS due
                ORDER BY due.next_check_at
                LIMIT $5))
 RETURNING id, gateway, method, state, reason, amount, currency, customer_id, product_id, reference,
           validation_id, gateway_payment_id, checks_made, next_check_at, created_at, expires_at,
           version, priority, retries_automatically, subscription_id, waits_for_orders
"""


async def claim_due(
    connection: Connection,
    now: datetime,
    priority: Priority,
    allowed: Mapping[str, int],
    limit: int,
) -> list[Payment]:
    """Take payments of one priority whose next look is due; others leave them alone for a while.

    Args:
        connection: In a transaction.
        now: Business time.
        priority: Whose turn it is.
        allowed: The gateways that may be asked, each with the most of its payments to take.
        limit: The most to take in all.
    """
    records = await connection.fetch(
        _CLAIM_DUE, now, priority, [*allowed], [*allowed.values()], limit, CHECK_LEASE_SECONDS
    )
    return [payment_of(record) for record in records]
