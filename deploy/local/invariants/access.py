"""Who subscribes has what the subscription gives, and nobody keeps it longer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from shared.contracts.scheduler import AccessGranted, AccessRevoked

_TOLD: Final = """
    SELECT id, access_sequence AS sequence, has_access
      FROM subscription
     WHERE id > $1
       AND access_sequence > 0
     ORDER BY id
     LIMIT $2
"""

_HEARD: Final = """
    SELECT subscription_id, sequence, has_access
      FROM subscription_access
     WHERE subscription_id = ANY($1::text[])
"""

_ON_ITS_WAY: Final = """
    SELECT DISTINCT payload ->> 'subscriptionId' AS subscription_id
      FROM outbox
     WHERE message_name = ANY($1::text[])
       AND payload ->> 'subscriptionId' = ANY($2::text[])
"""

_GIVEN_UP: Final = """
    SELECT DISTINCT payload::json ->> 'subscriptionId' AS subscription_id
      FROM dead_letter
     WHERE message_name = ANY($1::text[])
       AND payload::json ->> 'subscriptionId' = ANY($2::text[])
"""

_COUNT_GIVEN: Final = "SELECT count(*) FROM subscription_access"

# What an operator takes away stays so until the subscription gives it anew.
_WITHOUT: Final = """
    SELECT subscription_id, enrollment.id, count(*) OVER () AS total
      FROM subscription_access
      LEFT JOIN enrollment USING (customer_id, product_id)
     WHERE has_access
       AND enrollment.state IS DISTINCT FROM 'active'
       AND NOT EXISTS (
               SELECT
                 FROM enrollment_history
                WHERE enrollment_id = enrollment.id
                  AND event = 'revoked_by_hand'
                  AND at > stored_at)
     ORDER BY subscription_id
     LIMIT $1
"""

# Of enrollments that no subscription ever gave other invariants speak.
_WITHOUT_RIGHT: Final = """
    SELECT id, count(*) OVER () AS total
      FROM enrollment
     CROSS JOIN LATERAL (
               SELECT coalesce(max(line.id), 0) AS line,
                      coalesce(max(at), '-infinity') AS at
                 FROM enrollment_history line
                WHERE enrollment_id = enrollment.id
                  AND event = 'revoked_by_hand') taken_away
     WHERE state = 'active'
       AND EXISTS (
               SELECT
                 FROM subscription_access
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id)
       AND NOT EXISTS (
               SELECT
                 FROM subscription_access
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                  AND has_access
                  AND stored_at > taken_away.at)
       AND NOT EXISTS (
               SELECT
                 FROM enrollment_history line
                WHERE enrollment_id = enrollment.id
                  AND event = 'granted_by_hand'
                  AND line.id > taken_away.line)
       AND NOT EXISTS (
               SELECT
                 FROM (SELECT payment_id
                         FROM enrollment_history line
                        WHERE enrollment_id = enrollment.id
                          AND event IN ('granted', 'regranted', 'restored')
                          AND payment_id IS NOT NULL
                          AND line.id > taken_away.line
                        UNION ALL
                       SELECT payment_id
                         FROM further_payment
                        WHERE enrollment_id = enrollment.id
                          AND stored_at > taken_away.at) payment
                WHERE NOT EXISTS (
                          SELECT
                            FROM payment_reversal
                           WHERE payment_reversal.payment_id = payment.payment_id
                             AND cause IN ('refunded', 'dispute_lost')
                             AND revocation NOT IN ('waiting', 'never')))
     ORDER BY id
     LIMIT $1
"""

_MESSAGES: Final = (AccessGranted.name, AccessRevoked.name)


async def check_told(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare what subscriptions give with what enrollment has heard of it."""
    async for page in databases.pages("scheduler", _TOLD, after=[""]):
        findings.checked += len(page)
        told = {row["id"]: row for row in page}
        suspects = await _unheard(databases, told)
        if not suspects:
            continue
        on_their_way = await _named(databases, "scheduler", _ON_ITS_WAY, suspects)
        findings.waiting += len(on_their_way)
        # A receipt may have come between the two looks: then enrollment knows by now.
        silent = {id_: told[id_] for id_ in suspects if id_ not in on_their_way}
        suspects = await _unheard(databases, silent)
        given_up = await _named(databases, "enrollment", _GIVEN_UP, suspects)
        for id_, known in suspects.items():
            why = "its message is a dead letter" if id_ in given_up else "no message is on its way"
            findings.add_violation(
                id_, f"{_words(told[id_])}, but enrollment knows {_words(known)}, and {why}"
            )


async def check_followed(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare what enrollment has heard of subscriptions with its enrollments."""
    findings.checked = (await databases.fetch("enrollment", _COUNT_GIVEN))[0][0]
    findings.add_rows(
        await databases.fetch("enrollment", _WITHOUT, EXAMPLES_MAX),
        lambda row: Example(
            row["subscription_id"],
            "gives access, but "
            + (f"{row['id']} is revoked" if row["id"] is not None else "nobody is enrolled"),
        ),
    )
    findings.add_rows(
        await databases.fetch("enrollment", _WITHOUT_RIGHT, EXAMPLES_MAX),
        lambda row: Example(row["id"], "is active, but its subscription is over"),
    )


async def _unheard(
    databases: ServiceDatabases, told: Mapping[str, asyncpg.Record]
) -> dict[str, asyncpg.Record | None]:
    """Return what is known of those of which enrollment has not heard the latest.

    It may have heard more than we have read.
    """
    if not told:
        return {}
    rows = await databases.fetch("enrollment", _HEARD, list(told))
    heard = {row["subscription_id"]: row for row in rows}
    return {
        id_: known
        for id_, row in told.items()
        if (known := heard.get(id_)) is None
        or known["sequence"] < row["sequence"]
        or (known["sequence"] == row["sequence"] and known["has_access"] != row["has_access"])
    }


async def _named(
    databases: ServiceDatabases,
    service: str,
    query: str,
    suspects: Mapping[str, asyncpg.Record | None],
) -> set[str]:
    """Return those that a message is about."""
    if not suspects:
        return set()
    rows = await databases.fetch(service, query, _MESSAGES, list(suspects))
    return {row["subscription_id"] for row in rows}


def _words(row: asyncpg.Record | None) -> str:
    if row is None:
        return "nothing"
    return f"{'gives' if row['has_access'] else 'ends'} access ({row['sequence']})"


ACCESS_IS_TOLD: Final = Invariant(
    name="access_is_told",
    sentence="Enrollment has heard who may use what their subscription gives, and who no more.",
    hint="Look at the dead letters of enrollment; grant or revoke by hand (POST /api/enrollments), "
    "saying why.",
    check=check_told,
    services=frozenset({"scheduler", "enrollment"}),
)

ENROLLED_WHILE_SUBSCRIBED: Final = Invariant(
    name="enrolled_while_subscribed",
    sentence="Who has a subscription is enrolled, unless an operator has taken that away, and not "
    "for longer.",
    hint="Someone has changed the tables past Sluice: grant or revoke it by hand, saying why.",
    check=check_followed,
    services=frozenset({"enrollment"}),
)
