"""The story of one payment, put together from what each service has stored about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from deploy.local import story_outlook, story_words
from deploy.local.service_databases import ServiceDatabases
from deploy.local.story_words import Entry
from shared.identifiers import created_at, is_id
from shared.money import Money
from shared.web.bodies import time_text

_PAYMENT: Final = """
    SELECT payment.id, payment.gateway, method, payment.state, reason, payment.amount,
           payment.currency, payment.customer_id, payment.product_id, reference,
           gateway_payment_id, checks_made, next_check_at, payment.created_at, expires_at,
           retry.state AS retry_state, next_attempt_at, subscription_id
      FROM payment
      LEFT JOIN retry ON retry.payment_id = payment.id
     WHERE payment.id = $1
"""

_PAYMENT_OF_REFERENCE: Final = "SELECT payment_id FROM attempt WHERE reference = $1"

_PAYMENT_OF_ENROLLMENT: Final = """
    SELECT coalesce(payment_id, (
               SELECT payment_id
                 FROM further_payment
                WHERE enrollment_id = enrollment.id
                ORDER BY stored_at
                LIMIT 1)) AS payment_id, (
               SELECT subscription_id
                 FROM subscription_access
                WHERE customer_id = enrollment.customer_id
                  AND product_id = enrollment.product_id
                ORDER BY has_access DESC, stored_at DESC
                LIMIT 1) AS subscription_id
      FROM enrollment
     WHERE id = $1
"""

_ATTEMPTS: Final = """
    SELECT reference, number, state, handle, created_at
      FROM attempt
     WHERE payment_id = $1
     ORDER BY number
"""

_HISTORY: Final = """
    SELECT at, event, state, reason, next_check_at
      FROM payment_history
     WHERE payment_id = $1
     ORDER BY id
"""

_REFUNDS: Final = """
    SELECT id, amount, currency, state, requested_by, detail, handle, next_look_at, created_at
      FROM refund
     WHERE payment_id = $1
     ORDER BY id
"""

_BY_HAND: Final = """
    SELECT at, actor, action, reason
      FROM operator_action
     WHERE target = $1
     ORDER BY id
"""

# Events of a version that wrote no reference have it at the beginning of their key, and the day in
# it; ';' follows ':', so that either way it is a few pages of an index.
_NOTICES: Final = """
    SELECT received_at, source, claim, event_key
      FROM inbound_event
     WHERE gateway = $1
       AND (reference = $3
            OR event_day = $2
           AND event_key >= $3::text || ':'
           AND event_key < $3::text || ';')
     ORDER BY received_at
"""

# A dispute is told under the gateway's own name for the charge.
_NOTICES_OF_CHARGE: Final = """
    SELECT received_at, source, claim, event_key
      FROM inbound_event
     WHERE gateway = $1
       AND reference = $2
     ORDER BY received_at
"""

_MESSAGES: Final = """
    SELECT id, queue, message_name, created_at, send_again_at, sends, parked_at
      FROM outbox
     WHERE payload ->> 'paymentId' = $1
        OR payload ->> 'reference' = ANY($2::text[])
     ORDER BY id
"""

_DEAD_LETTERS: Final = """
    SELECT id, sender, message_name, reason, stored_at, state, retry_at
      FROM dead_letter
     WHERE payload::json ->> 'paymentId' = $1
        OR payload::json ->> 'reference' = ANY($2::text[])
     ORDER BY id
"""

_ENROLLMENT: Final = """
    SELECT id, state, payment_id
      FROM enrollment
     WHERE payment_id = $1
        OR id = (SELECT enrollment_id FROM further_payment WHERE payment_id = $1)
"""

_ENROLLMENT_OF_SUBSCRIPTION: Final = """
    SELECT enrollment.id, state, payment_id
      FROM subscription_access
      JOIN enrollment USING (customer_id, product_id)
     WHERE subscription_id = $1
"""

_ENROLLMENT_HISTORY: Final = """
    SELECT at, event, payment_id, subscription_id, actor, reason
      FROM enrollment_history
     WHERE enrollment_id = $1
     ORDER BY id
"""

_FURTHER_PAYMENTS: Final = """
    SELECT payment_id, effect, amount, currency, stored_at
      FROM further_payment
     WHERE enrollment_id = $1
     ORDER BY stored_at
"""

#: The services that keep an outbox and dead letters.
_WITH_MESSAGES: Final = ("scheduler", "webhook", "payments", "enrollment")


class UnknownPaymentError(Exception):
    """No payment belongs to an id; the message says why."""


@dataclass(slots=True)
class Story:
    """A payment, what happened to it in order, and what comes next."""

    payment_id: str
    #: What it is about, in a line.
    summary: str
    entries: list[Entry] = field(default_factory=list)
    now: str = ""
    next: str = ""
    because: str = ""


async def find_payment_id(databases: ServiceDatabases, given: str) -> str:
    """Return the payment of a payment's, attempt's, enrollment's or job's id.

    Raises:
        UnknownPaymentError: there is none.
    """
    if is_id(given, "pay"):
        return given
    if is_id(given, "job"):
        return f"pay_{given[4:]}"
    if is_id(given, "att"):
        rows = await databases.fetch("payments", _PAYMENT_OF_REFERENCE, given)
        missing = f"no attempt has the reference {given}"
    elif is_id(given, "enr"):
        rows = await databases.fetch("enrollment", _PAYMENT_OF_ENROLLMENT, given)
        missing = f"no enrollment has the id {given}"
    else:
        raise UnknownPaymentError(
            f"{given!r} is no id of a payment (pay_...), an attempt (att_...), an enrollment "
            "(enr_...), a job (job_...) or a subscription (sub_...)"
        )
    if not rows:
        raise UnknownPaymentError(missing)
    payment_id: str | None = rows[0]["payment_id"]
    if payment_id is None:
        subscription_id = rows[0].get("subscription_id")
        raise UnknownPaymentError(
            f"{given} was granted by hand, without a payment"
            if subscription_id is None
            else f"{given} follows the subscription {subscription_id}, not a payment: "
            f"sluice explain {subscription_id}"
        )
    return payment_id


async def tell(databases: ServiceDatabases, payment_id: str) -> Story:
    """Put together everything that is known about a payment, except personal data.

    Raises:
        UnknownPaymentError: no payment has this id.
    """
    rows = await databases.fetch("payments", _PAYMENT, payment_id)
    if not rows:
        raise UnknownPaymentError(f"no payment has the id {payment_id}")
    (payment,) = rows
    attempts = await databases.fetch("payments", _ATTEMPTS, payment_id)
    references = [attempt["reference"] for attempt in attempts]
    charge = payment["gateway_payment_id"]
    names = references if charge is None else [*references, charge]
    history = await databases.fetch("payments", _HISTORY, payment_id)
    entries = [
        *story_words.history(history),
        *story_words.attempts(attempts),
        *await _notices(databases, payment["gateway"], references, charge),
    ]
    refunds = await databases.fetch("payments", _REFUNDS, payment_id)
    entries += story_words.refunds(refunds)
    entries += story_words.by_hand(await databases.fetch("payments", _BY_HAND, payment_id))
    messages = await _of_each(databases, _MESSAGES, payment_id, names)
    entries += [story_words.message(service, row) for service, row in messages]
    dead_letters = await _of_each(databases, _DEAD_LETTERS, payment_id, names)
    entries += [story_words.dead_letter(service, row) for service, row in dead_letters]
    enrollment = await _enrollment(databases, payment_id, payment["subscription_id"])
    if enrollment is not None:
        entries += await _enrollment_story(databases, enrollment, payment_id)
    outlook = story_outlook.outlook(
        payment,
        enrollment,
        messages=[row for _, row in messages],
        dead_letters=[row for _, row in dead_letters if row["state"] == "waiting"],
    )
    return Story(
        payment_id,
        _summary(payment),
        sorted(entries, key=lambda entry: entry.at),
        outlook.now,
        outlook.next,
        outlook.because,
    )


def _summary(payment: asyncpg.Record) -> str:
    amount = Money(payment["amount"], payment["currency"])
    summary = (
        f"{amount} by {payment['gateway']} ({payment['method']}), "
        f"customer {payment['customer_id']}, product {payment['product_id']}"
    )
    if payment["subscription_id"] is not None:
        summary += f", ordered by {payment['subscription_id']}"
    return summary


async def _notices(
    databases: ServiceDatabases, gateway: str, references: Iterable[str], charge: str | None
) -> list[Entry]:
    rows = []
    for reference in references:
        day = created_at(reference).date()
        rows += await databases.fetch("webhook", _NOTICES, gateway, day, reference)
    if charge is not None:
        rows += await databases.fetch("webhook", _NOTICES_OF_CHARGE, gateway, charge)
    return [story_words.notice(gateway, row) for row in rows]


async def _of_each(
    databases: ServiceDatabases, query: str, *arguments: Any
) -> list[tuple[str, asyncpg.Record]]:
    """Run a query about messages in each service."""
    return [
        (service, row)
        for service in _WITH_MESSAGES
        if service in databases.names
        for row in await databases.fetch(service, query, *arguments)
    ]


async def _enrollment(
    databases: ServiceDatabases, payment_id: str, subscription_id: str | None
) -> asyncpg.Record | None:
    if subscription_id is None:
        rows = await databases.fetch("enrollment", _ENROLLMENT, payment_id)
    else:
        rows = await databases.fetch("enrollment", _ENROLLMENT_OF_SUBSCRIPTION, subscription_id)
    return rows[0] if rows else None


async def _enrollment_story(
    databases: ServiceDatabases, enrollment: asyncpg.Record, payment_id: str
) -> list[Entry]:
    rows = await databases.fetch("enrollment", _ENROLLMENT_HISTORY, enrollment["id"])
    entries = [story_words.enrollment(enrollment["id"], row) for row in rows]
    rows = await databases.fetch("enrollment", _FURTHER_PAYMENTS, enrollment["id"])
    return entries + [story_words.further_payment(enrollment["id"], payment_id, r) for r in rows]


def as_json(story: Story) -> dict[str, Any]:
    """Return what a machine wants to know."""
    return {
        "paymentId": story.payment_id,
        "summary": story.summary,
        "entries": [
            {
                "at": time_text(entry.at),
                "service": entry.service,
                "event": entry.event,
                "text": entry.text,
                "state": entry.state,
                "reason": entry.reason,
                "nextAt": time_text(entry.next_at),
            }
            for entry in story.entries
        ],
        "now": story.now,
        "next": story.next,
        "because": story.because,
    }
