"""Money that went back is heard of, and what it paid for is taken away, by policy or in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from shared.contracts.payments import DisputeLost, DisputeWon, PaymentRefunded, RefundReturned

_WENT_BACK: Final = """
    SELECT id
      FROM payment
     WHERE id > $1
       AND (state = 'refunded' OR (state = 'disputed' AND reason = 'dispute_lost'))
       AND EXISTS (
               SELECT
                 FROM payment_history
                WHERE payment_id = payment.id
                  AND payment_history.state = 'succeeded')
     ORDER BY id
     LIMIT $2
"""

_HEARD_OF: Final = """
    SELECT DISTINCT payment_id
      FROM payment_reversal
     WHERE payment_id = ANY($1::text[])
       AND cause IN ('refunded', 'dispute_lost')
"""

_TAKEN_AWAY: Final = """
    SELECT payment_id, occasion
      FROM payment_reversal
     WHERE (payment_id, occasion) > ($1, $2)
       AND cause IN ('refunded', 'dispute_lost')
     ORDER BY payment_id, occasion
     LIMIT $3
"""

_STILL_GONE: Final = """
    SELECT id
      FROM payment
     WHERE id = ANY($1::text[])
       AND (refunded_amount = amount
            OR EXISTS (
                   SELECT
                     FROM dispute
                    WHERE payment_id = payment.id
                      AND dispute.state IN ('opened', 'lost')))
"""

_ON_ITS_WAY: Final = """
    SELECT DISTINCT payload ->> 'paymentId' AS payment_id
      FROM outbox
     WHERE message_name = ANY($1::text[])
       AND payload ->> 'paymentId' = ANY($2::text[])
"""

_GIVEN_UP: Final = """
    SELECT DISTINCT payload::json ->> 'paymentId' AS payment_id
      FROM dead_letter
     WHERE message_name = ANY($1::text[])
       AND payload::json ->> 'paymentId' = ANY($2::text[])
"""

_COUNT_WAITING: Final = "SELECT count(*) FROM payment_reversal WHERE due_at IS NOT NULL"

# The worker looks every second; with this it may be restarted in between.
_OVERDUE: Final = """
    SELECT payment_id, occasion, due_at, count(*) OVER () AS total
      FROM payment_reversal
     WHERE due_at < clock_timestamp() - interval '10 minutes'
     ORDER BY due_at
     LIMIT $1
"""

_TAKES: Final = (PaymentRefunded.name, DisputeLost.name)
_GIVES: Final = (RefundReturned.name, DisputeWon.name)


async def check_revocations(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare what went back with what enrollment knows of it, from both sides."""
    async for page in databases.pages("payments", _WENT_BACK, after=[""]):
        findings.checked += len(page)
        await _check_heard_of(databases, findings, [row["id"] for row in page])
    pages = databases.pages("enrollment", _TAKEN_AWAY, after=("", ""), key_length=2)
    async for page in pages:
        findings.checked += len(page)
        await _check_still_gone(databases, findings, sorted({row["payment_id"] for row in page}))
    findings.waiting += (await databases.fetch("enrollment", _COUNT_WAITING))[0][0]
    findings.add_rows(
        await databases.fetch("enrollment", _OVERDUE, EXAMPLES_MAX),
        lambda row: Example(
            row["payment_id"], f"({row['occasion']}) was to be acted on at {row['due_at']}"
        ),
    )


async def _check_heard_of(
    databases: ServiceDatabases, findings: Findings, payment_ids: Sequence[str]
) -> None:
    silent = await _without(databases, "enrollment", _HEARD_OF, payment_ids)
    if not silent:
        return
    on_their_way = await _named(databases, "payments", _ON_ITS_WAY, _TAKES, silent)
    findings.waiting += len(on_their_way)
    # A receipt may have come between the two looks: then enrollment knows by now.
    silent = [id_ for id_ in silent if id_ not in on_their_way]
    given_up = await _named(databases, "enrollment", _GIVEN_UP, _TAKES, silent)
    for id_ in await _without(databases, "enrollment", _HEARD_OF, silent):
        why = "its message is a dead letter" if id_ in given_up else "no message is on its way"
        findings.add_violation(id_, f"went back, but enrollment does not know of it, and {why}")


async def _check_still_gone(
    databases: ServiceDatabases, findings: Findings, payment_ids: Sequence[str]
) -> None:
    suspects = await _without(databases, "payments", _STILL_GONE, payment_ids)
    on_their_way = await _named(databases, "payments", _ON_ITS_WAY, _GIVES, suspects)
    findings.waiting += len(on_their_way)
    suspects = [id_ for id_ in suspects if id_ not in on_their_way]
    rows = await databases.fetch("enrollment", _HEARD_OF, suspects) if suspects else []
    for row in rows:
        findings.add_violation(
            row["payment_id"], "counts as gone at enrollment, but its money is ours"
        )


async def _without(
    databases: ServiceDatabases, service: str, query: str, payment_ids: Sequence[str]
) -> list[str]:
    """Return those that a query does not find."""
    if not payment_ids:
        return []
    found = {row[0] for row in await databases.fetch(service, query, payment_ids)}
    return [id_ for id_ in payment_ids if id_ not in found]


async def _named(
    databases: ServiceDatabases,
    service: str,
    query: str,
    messages: Sequence[str],
    payment_ids: Sequence[str],
) -> set[str]:
    """Return those that a message of one of these names is about."""
    if not payment_ids:
        return set()
    rows = await databases.fetch(service, query, messages, payment_ids)
    return {row["payment_id"] for row in rows}


REVOKED_EXACTLY_WHEN_GONE: Final = Invariant(
    name="revoked_exactly_when_gone",
    sentence="Enrollment knows of all money that went back, and of no other, and acts on it in "
    "time.",
    hint="Look at the payment with `sluice explain`; take the enrollment away or grant it by hand, "
    "saying why. Something overdue: is a worker of enrollment running?",
    check=check_revocations,
    services=frozenset({"payments", "enrollment"}),
)
