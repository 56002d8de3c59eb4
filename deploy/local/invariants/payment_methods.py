"""The scheduler knows the means of payment that there are, and which are gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import asyncpg

from deploy.local.invariants.findings import Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored

_STORED: Final = """
    SELECT id, customer_id, gateway, kind, removed_at IS NOT NULL AS is_removed
      FROM payment_method
     WHERE id > $1
     ORDER BY id
     LIMIT $2
"""

_KNOWN: Final = """
    SELECT id, customer_id, gateway, kind, removed_at IS NOT NULL AS is_removed
      FROM payment_method
     WHERE id = ANY($1::text[])
"""

_ON_ITS_WAY: Final = """
    SELECT DISTINCT payload ->> 'paymentMethodId' AS id
      FROM outbox
     WHERE message_name = ANY($1::text[])
       AND payload ->> 'paymentMethodId' = ANY($2::text[])
"""

_MESSAGES: Final = (PaymentMethodStored.name, PaymentMethodRemoved.name)


async def check(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare the means of payment of payments with those that the scheduler was told of."""
    async for page in databases.pages("payments", _STORED, after=[""]):
        findings.checked += len(page)
        stored = {row["id"]: row for row in page}
        suspects = await _differing(databases, stored)
        if not suspects:
            continue
        rows = await databases.fetch("payments", _ON_ITS_WAY, _MESSAGES, list(suspects))
        on_their_way = {row["id"] for row in rows}
        findings.waiting += len(on_their_way)
        # A receipt may have come between the two looks: then the scheduler knows by now.
        silent = {id_: stored[id_] for id_ in suspects if id_ not in on_their_way}
        for id_, known in (await _differing(databases, silent)).items():
            findings.add_violation(
                id_, f"{_words(stored[id_])}, but the scheduler knows {_words(known)}"
            )


async def _differing(
    databases: ServiceDatabases, stored: Mapping[str, asyncpg.Record]
) -> dict[str, asyncpg.Record | None]:
    """Return what the scheduler knows of those of which it knows something else, or nothing.

    One that is gone may have been told of as gone only.
    """
    if not stored:
        return {}
    rows = await databases.fetch("scheduler", _KNOWN, list(stored))
    known = {row["id"]: row for row in rows}
    return {
        id_: found
        for id_, row in stored.items()
        if (found := known.get(id_)) is None
        or found["is_removed"] < row["is_removed"]
        or (not row["is_removed"] and not found["is_removed"] and tuple(found) != tuple(row))
    }


def _words(row: asyncpg.Record | None) -> str:
    if row is None:
        return "nothing"
    if row["is_removed"]:
        return "it is removed"
    return f"a {row['kind']} of {row['gateway']} and {row['customer_id']}"


METHODS_ARE_TOLD: Final = Invariant(
    name="methods_are_told",
    sentence="The scheduler has heard of every stored means of payment, and of those removed.",
    hint="Look at the dead letters of the scheduler; what is charged with a removed one fails.",
    check=check,
    services=frozenset({"payments", "scheduler"}),
)
