"""From the acknowledged notice to its payment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING
from shared.contracts.webhook import NoticeReceived
from shared.identifiers import is_id

# Events of a version that wrote no reference have it in their key: reference, status and validation
# id; a foreign reference may hold colons.
_EVENTS: Final = """
    SELECT gateway, event_key, event_day,
           coalesce(reference,
                    left(substring(event_key FROM '^(.*):[^:]*:[^:]*$'), 100),
                    event_key) AS reference
      FROM inbound_event
     WHERE (gateway, event_key, event_day) > ($1, $2, $3)
     ORDER BY gateway, event_key, event_day
     LIMIT $4
"""

_STORED_TWICE: Final = """
    SELECT gateway, event_key, count(*) AS copies, count(*) OVER () AS total
      FROM inbound_event
     GROUP BY gateway, event_key
    HAVING count(*) > 1
     ORDER BY gateway, event_key
     LIMIT $1
"""

PAYMENTS_OF_REFERENCES: Final = """
    SELECT attempt.reference, payment.id, payment.state, payment.reason, payment.next_check_at,
           payment.gateway_payment_id
      FROM attempt
      JOIN payment ON payment.id = attempt.payment_id
     WHERE attempt.reference = ANY($1::text[])
"""

NOTICES_IN_OUTBOX: Final = """
    SELECT payload ->> 'reference' AS reference, parked_at
      FROM outbox
     WHERE message_name = $1
       AND payload ->> 'reference' = ANY($2::text[])
"""

_NOTICES_GIVEN_UP: Final = """
    SELECT DISTINCT payload::json ->> 'reference' AS reference
      FROM dead_letter
     WHERE message_name = $1
       AND payload::json ->> 'reference' = ANY($2::text[])
"""


async def check_events(databases: ServiceDatabases, findings: Findings) -> None:
    """Follow every stored event to its payment."""
    repeated = await databases.fetch("webhook", _STORED_TWICE, EXAMPLES_MAX)
    findings.add_rows(
        repeated, lambda row: Example(row["event_key"], f"is stored {row['copies']} times")
    )
    pages = databases.pages("webhook", _EVENTS, after=("", "", date.min), key_length=3)
    async for page in pages:
        findings.checked += len(page)
        ours = [row for row in page if is_id(row["reference"], "att")]
        if len(ours) < len(page):
            # Another system may have the same account at the gateway; payments counts its notices.
            findings.classes["of another system"] += len(page) - len(ours)
        await _check_page(databases, findings, {row["reference"]: row for row in ours})


async def _check_page(
    databases: ServiceDatabases, findings: Findings, events: Mapping[str, asyncpg.Record]
) -> None:
    suspects = await _without_next_step(databases, list(events), findings)
    if not suspects:
        return
    in_outbox = {
        row["reference"]: row["parked_at"]
        for row in await databases.fetch(
            "webhook", NOTICES_IN_OUTBOX, NoticeReceived.name, list(suspects)
        )
    }
    given_up = {
        row["reference"]
        for row in await databases.fetch(
            "payments", _NOTICES_GIVEN_UP, NoticeReceived.name, list(suspects)
        )
    }
    findings.classes["dead letter"] += len(given_up & suspects.keys())
    # A receipt may have come between the two looks: the payment is then settled by now.
    unexplained = [each for each in suspects if each not in in_outbox and each not in given_up]
    still = await _without_next_step(databases, unexplained, None)
    for reference, problem in suspects.items():
        if reference in still:
            findings.add_violation(events[reference]["event_key"], problem)
        elif in_outbox.get(reference) is not None:
            findings.add_violation(events[reference]["event_key"], "its message is parked")
        elif reference in in_outbox:
            findings.waiting += 1


async def _without_next_step(
    databases: ServiceDatabases, references: Sequence[str], findings: Findings | None
) -> dict[str, str]:
    """Return what is wrong with those references whose payment is lost or stuck."""
    rows = await databases.fetch("payments", PAYMENTS_OF_REFERENCES, references)
    payments = {row["reference"]: row for row in rows}
    wrong = {}
    for reference in references:
        payment = payments.get(reference)
        if payment is None:
            wrong[reference] = "was received, but there is no payment with its reference"
        elif payment["state"] in RESTING | {PaymentState.RETRY_SCHEDULED}:
            continue  # A retry has a time of its own.
        elif payment["next_check_at"] is None:
            wrong[reference] = f"its payment {payment['id']} is {payment['state']} for ever"
        elif findings is not None:
            findings.waiting += 1
    return wrong


EVENTS_ARE_CARRIED_ON: Final = Invariant(
    name="events_are_carried_on",
    sentence="Every acknowledged notice is stored once, and its payment is settled or has a time.",
    hint="The message of this notice is lost: have the gateway send the notice again, and look at "
    "the payment with `sluice explain`.",
    check=check_events,
    services=frozenset({"webhook", "payments"}),
)
