"""The story of one subscription: what happened to it, its periods, and what it was charged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from deploy.local import story_words, subscription_words
from deploy.local.service_databases import ServiceDatabases
from deploy.local.story_outlook import Outlook
from deploy.local.story_words import Entry
from services.scheduler.domain.periods import Interval, IntervalUnit
from shared.money import Money
from shared.web.bodies import time_text

#: Lines of the history, periods and charges that are told: the last ones of a long life.
LINES_MAX: Final = 1_000
ROWS_MAX: Final = 24

_SUBSCRIPTION: Final = """
    SELECT subscription.*, name AS plan_name, product_id, amount, currency, interval_unit,
           interval_every, gateway, dunning_days, dunning_end
      FROM subscription
      JOIN plan ON plan.id = plan_id
     WHERE subscription.id = $1
"""

_HISTORY: Final = """
    SELECT at, written_at, event, state, reason, period_start, payment_id, actor
      FROM subscription_history
     WHERE subscription_id = $1
     ORDER BY id DESC
     LIMIT $2
"""

_PERIODS: Final = """
    SELECT number, periods, period_start, period_end, state, reason, amount, currency, payment_id
      FROM billing_cycle
     WHERE subscription_id = $1
     ORDER BY period_start DESC
     LIMIT $2
"""

_CHARGES: Final = """
    SELECT id, state, reason, amount, currency, gateway_payment_id, created_at
      FROM payment
     WHERE subscription_id = $1
     ORDER BY id DESC
     LIMIT $2
"""

_PAYMENT: Final = "SELECT id, state, reason FROM payment WHERE id = $1"

_MESSAGES: Final = """
    SELECT id, queue, message_name, created_at, send_again_at, sends, parked_at
      FROM outbox
     WHERE payload ->> 'subscriptionId' = $1
     ORDER BY id
"""

_DEAD_LETTERS: Final = """
    SELECT id, sender, message_name, reason, stored_at, state, retry_at
      FROM dead_letter
     WHERE payload::json ->> 'subscriptionId' = $1
     ORDER BY id
"""

_ENROLLMENT_HISTORY: Final = """
    SELECT enrollment_id, at, event, payment_id, subscription_id, actor, reason
      FROM enrollment_history
     WHERE enrollment_id IN (
               SELECT enrollment.id
                 FROM subscription_access
                 JOIN enrollment USING (customer_id, product_id)
                WHERE subscription_access.subscription_id = $1)
     ORDER BY id
"""

#: The services that send or receive messages about subscriptions.
_WITH_MESSAGES: Final = ("scheduler", "payments", "enrollment")


class UnknownSubscriptionError(Exception):
    """No subscription has an id; the message says so."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, in real time and on a test clock in the subscription's own, too."""

    entry: Entry
    own_time: datetime | None


@dataclass(frozen=True, slots=True)
class SubscriptionStory:
    """A subscription, what happened to it in order, and what comes next."""

    subscription_id: str
    #: What it is about, in a line.
    summary: str
    is_on_clock: bool
    lines: Sequence[Line]
    #: Whether more happened before the first line.
    is_cut_off: bool
    #: The last ones, the oldest first.
    periods: Sequence[asyncpg.Record]
    charges: Sequence[asyncpg.Record]
    outlook: Outlook


async def tell_subscription(databases: ServiceDatabases, subscription_id: str) -> SubscriptionStory:
    """Put together everything that is known about a subscription.

    Raises:
        UnknownSubscriptionError: there is none of this id.
    """
    rows = await databases.fetch("scheduler", _SUBSCRIPTION, subscription_id)
    if not rows:
        raise UnknownSubscriptionError(f"no subscription has the id {subscription_id}")
    (subscription,) = rows
    is_on_clock = subscription["clock_id"] is not None
    history = await databases.fetch("scheduler", _HISTORY, subscription_id, LINES_MAX + 1)
    lines = [_line(row, is_on_clock=is_on_clock) for row in reversed(history[:LINES_MAX])]
    others, dead_letters = await _of_other_services(databases, subscription_id)
    payment = None
    if subscription["charging"] is not None:
        payments = await databases.fetch("payments", _PAYMENT, subscription["charging"])
        payment = payments[0] if payments else None
    waiting = [row for row in dead_letters if row["state"] == "waiting"]
    # Sorting keeps the order of what happened in one moment.
    told = sorted([*lines, *(Line(entry, None) for entry in others)], key=_when)
    return SubscriptionStory(
        subscription_id,
        _summary(subscription),
        is_on_clock,
        told,
        len(history) > LINES_MAX,
        (await databases.fetch("scheduler", _PERIODS, subscription_id, ROWS_MAX))[::-1],
        (await databases.fetch("payments", _CHARGES, subscription_id, ROWS_MAX))[::-1],
        subscription_words.outlook(subscription, payment, dead_letters=waiting),
    )


def _when(line: Line) -> datetime:
    return line.entry.at


def _line(row: asyncpg.Record, *, is_on_clock: bool) -> Line:
    entry = Entry(
        row["written_at"],
        "scheduler",
        row["event"],
        subscription_words.history(row),
        state=row["state"],
        reason=subscription_words.reason(row["reason"]),
    )
    return Line(entry, row["at"] if is_on_clock else None)


async def _of_other_services(
    databases: ServiceDatabases, subscription_id: str
) -> tuple[list[Entry], list[asyncpg.Record]]:
    rows = await databases.fetch("enrollment", _ENROLLMENT_HISTORY, subscription_id)
    entries = [story_words.enrollment(row["enrollment_id"], row) for row in rows]
    dead_letters = []
    for service in _WITH_MESSAGES:
        rows = await databases.fetch(service, _MESSAGES, subscription_id)
        entries += [story_words.message(service, row) for row in rows]
        rows = await databases.fetch(service, _DEAD_LETTERS, subscription_id)
        entries += [story_words.dead_letter(service, row) for row in rows]
        dead_letters += rows
    return entries, dead_letters


def _summary(s: asyncpg.Record) -> str:
    interval = Interval(IntervalUnit(s["interval_unit"]), s["interval_every"])
    summary = (
        f"{s['plan_name']}: {Money(s['amount'], s['currency'])} every {interval} by "
        f"{s['gateway']}, customer {s['customer_id']}, product {s['product_id']}, anchor "
        f"{s['anchor']:%Y-%m-%d %H:%M} UTC in {s['zone']}"
    )
    return summary if s["clock_id"] is None else f"{summary}, on test clock {s['clock_id']}"


def as_json(story: SubscriptionStory) -> dict[str, Any]:
    """Return what a machine wants to know."""
    return {
        "subscriptionId": story.subscription_id,
        "summary": story.summary,
        "entries": [
            {
                "at": time_text(line.entry.at),
                "ownTime": time_text(line.own_time),
                "service": line.entry.service,
                "event": line.entry.event,
                "text": line.entry.text,
                "state": line.entry.state,
                "reason": line.entry.reason,
            }
            for line in story.lines
        ],
        "isCutOff": story.is_cut_off,
        "periods": [
            {
                "number": row["number"],
                "start": time_text(row["period_start"]),
                "end": time_text(row["period_end"]),
                "state": row["state"],
                "reason": row["reason"],
                "amount": row["amount"],
                "currency": row["currency"],
                "paymentId": row["payment_id"],
            }
            for row in story.periods
        ],
        "charges": [
            {
                "paymentId": row["id"],
                "state": row["state"],
                "reason": row["reason"],
                "gatewayReference": row["gateway_payment_id"],
                "createdAt": time_text(row["created_at"]),
            }
            for row in story.charges
        ],
        "now": story.outlook.now,
        "next": story.outlook.next,
        "because": story.outlook.because,
    }
