"""Whoever has paid is enrolled, and nobody else is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from shared.contracts.payments import PaymentSucceeded

# Money that was held for a person is given back, or disputed, without that anybody was enrolled.
# The payments of a subscription enroll nobody by themselves.
_PAID: Final = """
    SELECT id, customer_id, product_id
      FROM payment
     WHERE id > $1
       AND subscription_id IS NULL
       AND (state IN ('succeeded', 'partially_refunded')
            OR (state IN ('refunded', 'disputed')
                AND EXISTS (
                        SELECT
                          FROM payment_history
                         WHERE payment_id = payment.id
                           AND payment_history.state = 'succeeded')))
     ORDER BY id
     LIMIT $2
"""

_ENROLLED: Final = """
    SELECT payment_id, customer_id, product_id
      FROM enrollment
     WHERE payment_id = ANY($1::text[])
     UNION ALL
    SELECT further_payment.payment_id, customer_id, product_id
      FROM further_payment
      JOIN enrollment ON enrollment.id = enrollment_id
     WHERE further_payment.payment_id = ANY($1::text[])
"""

_ANNOUNCED: Final = """
    SELECT payload ->> 'paymentId' AS payment_id
      FROM outbox
     WHERE message_name = $1
       AND payload ->> 'paymentId' = ANY($2::text[])
"""

_GIVEN_UP: Final = """
    SELECT payload::json ->> 'paymentId' AS payment_id, reason
      FROM dead_letter
     WHERE message_name = $1
       AND payload::json ->> 'paymentId' = ANY($2::text[])
"""

_FIRST_PAYMENTS: Final = """
    SELECT payment_id, id AS enrollment_id
      FROM enrollment
     WHERE payment_id > $1
     ORDER BY payment_id
     LIMIT $2
"""

_FURTHER_PAYMENTS: Final = """
    SELECT payment_id, enrollment_id
      FROM further_payment
     WHERE payment_id > $1
     ORDER BY payment_id
     LIMIT $2
"""

# A refund that came back may put a payment on hold that had succeeded.
_SUCCEEDED_OF: Final = """
    SELECT id, subscription_id
      FROM payment
     WHERE id = ANY($1::text[])
       AND (state IN ('succeeded', 'partially_refunded', 'refunded', 'disputed')
            OR (state = 'on_hold'
                AND EXISTS (
                        SELECT
                          FROM payment_history
                         WHERE payment_id = payment.id
                           AND payment_history.state = 'succeeded')))
"""


async def check_enrollments(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare succeeded payments with enrollments, from both sides."""
    async for page in databases.pages("payments", _PAID, after=[""]):
        findings.checked += len(page)
        await _check_paid(databases, findings, {row["id"]: row for row in page})
    for query in (_FIRST_PAYMENTS, _FURTHER_PAYMENTS):
        async for page in databases.pages("enrollment", query, after=[""]):
            findings.checked += len(page)
            await _check_granted(databases, findings, page)


async def _check_paid(
    databases: ServiceDatabases, findings: Findings, payments: Mapping[str, asyncpg.Record]
) -> None:
    enrolled = await _enrolled(databases, list(payments))
    suspects = [id_ for id_ in payments if not enrolled[id_]]
    if suspects:
        rows = await databases.fetch("payments", _ANNOUNCED, PaymentSucceeded.name, suspects)
        announced = {row["payment_id"] for row in rows}
        findings.waiting += len(announced)
        # A receipt may have come between the two looks: then they are enrolled by now.
        silent = [id_ for id_ in suspects if id_ not in announced]
        enrolled |= await _enrolled(databases, silent)
        await _add_unenrolled(databases, findings, [id_ for id_ in silent if not enrolled[id_]])
    for id_, payment in payments.items():
        if len(enrolled[id_]) > 1:
            findings.add_violation(id_, f"has had its effect {len(enrolled[id_])} times")
        for found in enrolled[id_]:
            if any(found[field] != payment[field] for field in ("customer_id", "product_id")):
                findings.add_violation(id_, "enrolled another customer, or for another product")


async def _add_unenrolled(
    databases: ServiceDatabases, findings: Findings, payment_ids: Sequence[str]
) -> None:
    given_up = {
        row["payment_id"]: row["reason"]
        for row in await databases.fetch(
            "enrollment", _GIVEN_UP, PaymentSucceeded.name, payment_ids
        )
    }
    for id_ in payment_ids:
        problem = "has succeeded, but nobody is enrolled for it and no message is on its way"
        if id_ in given_up:
            problem = f"has succeeded, but its message is a dead letter: {given_up[id_]}"
        findings.add_violation(id_, problem)


async def _enrolled(
    databases: ServiceDatabases, payment_ids: Sequence[str]
) -> defaultdict[str, list[asyncpg.Record]]:
    found: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
    for row in await databases.fetch("enrollment", _ENROLLED, payment_ids):
        found[row["payment_id"]].append(row)
    return found


async def _check_granted(
    databases: ServiceDatabases, findings: Findings, grants: Sequence[asyncpg.Record]
) -> None:
    rows = await databases.fetch(
        "payments", _SUCCEEDED_OF, [grant["payment_id"] for grant in grants]
    )
    subscriptions = {row["id"]: row["subscription_id"] for row in rows}
    for grant in grants:
        payment_id = grant["payment_id"]
        problem = None
        if payment_id not in subscriptions:
            problem = f"rests on {payment_id}, which has not succeeded"
        elif (subscription_id := subscriptions[payment_id]) is not None:
            problem = f"rests on {payment_id}, and not on its subscription {subscription_id}"
        if problem is not None:
            findings.add_violation(grant["enrollment_id"], problem)


_DISAGREEING: Final = """
    SELECT id, state, event, count(*) OVER () AS total
      FROM enrollment
      LEFT JOIN LATERAL (
               SELECT event
                 FROM enrollment_history
                WHERE enrollment_id = enrollment.id
                  AND event NOT IN ('revocation_planned', 'revocation_cancelled')
                ORDER BY enrollment_history.id DESC
                LIMIT 1) last ON true
     WHERE state IS DISTINCT FROM CASE
               WHEN event LIKE 'revoked_%' THEN 'revoked'
               WHEN event IS NOT NULL THEN 'active'
           END
     ORDER BY id
     LIMIT $1
"""

_COUNT_ENROLLMENTS: Final = "SELECT count(*) FROM enrollment"


async def check_enrollment_history(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare each enrollment with the last line of its story."""
    findings.checked = (await databases.fetch("enrollment", _COUNT_ENROLLMENTS))[0][0]
    rows = await databases.fetch("enrollment", _DISAGREEING, EXAMPLES_MAX)
    findings.add_rows(
        rows,
        lambda row: Example(
            row["id"], f"is {row['state']}, but its history ends with {row['event'] or 'nothing'}"
        ),
    )


ENROLLED_EXACTLY_WHEN_PAID: Final = Invariant(
    name="enrolled_exactly_when_paid",
    sentence="Each succeeded payment has enrolled its customer, or was recorded as a further one; "
    "those of subscriptions enroll nobody.",
    hint="Paid but not enrolled: grant it by hand (POST /api/enrollments), saying why. Enrolled "
    "but not paid: look at the payment with `sluice explain`, and revoke by hand if need be.",
    check=check_enrollments,
    services=frozenset({"payments", "enrollment"}),
)

ENROLLMENT_HISTORY_AGREES: Final = Invariant(
    name="enrollment_history_agrees",
    sentence="Each enrollment is as the last line of its history says.",
    hint="Someone has changed the tables past Sluice: grant or revoke it by hand, saying why.",
    check=check_enrollment_history,
    services=frozenset({"enrollment"}),
)
