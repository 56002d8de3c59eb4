"""Charging cards: what becomes of an intent when it is confirmed, or when its time has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import structlog

from services.simulator import ledger
from services.simulator.behaviours import DELAY_SECONDS, Behaviour
from services.simulator.ledger import Charge
from services.simulator.profiles import AT_LAST, Fate, Plan
from services.simulator.stripe import answers, events, store
from services.simulator.stripe.cards import DECLINES, Authentication, Decline
from services.simulator.stripe.domain import Intent, IntentStatus
from services.simulator.stripe.runtime import Runtime, new_id
from services.simulator.stripe.scenarios import (
    DECLINE_OF,
    EXPIRED,
    FAILED,
    LATE_FAILURE,
    LATE_SUCCESS,
    NEVER_CONFIRMS,
    PAID,
    scenario_of,
)
from shared.database import Connection
from shared.money import Money

log = structlog.get_logger()

_AUTHENTICATION_FAILED: Final = Decline(
    code="payment_intent_authentication_failure",
    decline_code=None,
    advice_code=None,
    message="The provided PaymentMethod has failed authentication. You can provide payment_method"
    "_data or a new PaymentMethod to attempt to fulfill this PaymentIntent again.",
)

_NO_METHOD: Final = IntentStatus.REQUIRES_PAYMENT_METHOD

#: Where an intent comes to after a while of processing.
_DUE_AFTER: Final[Mapping[str, IntentStatus]] = MappingProxyType(
    {LATE_SUCCESS: IntentStatus.SUCCEEDED, LATE_FAILURE: _NO_METHOD}
)

#: Wishes whose money waits for an authentication that nobody gives.
_UNAUTHENTICATED: Final = frozenset({NEVER_CONFIRMS, EXPIRED})


def wish_of(intent: Intent, plan: Plan | None) -> str:
    """Return what charging leads to by the amount or by the recorded fate."""
    wish = scenario_of(intent.amount).wish
    if wish == PAID and plan is not None:
        return NEVER_CONFIRMS if plan.fate is Fate.NEVER_CONFIRMS else plan.wish
    return wish


def charge(
    intent: Intent,
    wish: str,
    now: datetime,
    *,
    is_authenticated: bool = False,
    late_seconds: float = DELAY_SECONDS[Behaviour.LATE],
) -> tuple[Intent, Decline | None]:
    """Decide what a confirmed intent with a payment method comes to, and why if it is declined.

    The payment method decides first, then the wish. Pure but for the new identifier.
    """
    card = intent.card
    assert card is not None, "a confirmed intent has a payment method"
    due = now + timedelta(seconds=late_seconds)
    plain = replace(
        intent, last_payment_error=None, due_at=None, due_status=None, latest_charge=new_id("ch")
    )
    if wish == AT_LAST:
        return _taken(plain), None
    decline = _AUTHENTICATION_FAILED if wish == FAILED else card.decline
    must_authenticate = card.authentication is not Authentication.NEVER or wish in _UNAUTHENTICATED
    if decline is None and must_authenticate and not is_authenticated:
        return _unauthenticated(plain, wish, due)
    if decline is None and wish in DECLINE_OF:
        decline = DECLINES[DECLINE_OF[wish]]
    if decline is not None:
        return _declined(plain, decline), decline
    if wish in _DUE_AFTER:
        later = _DUE_AFTER[wish]
        return replace(plain, status=IntentStatus.PROCESSING, due_at=due, due_status=later), None
    return (cancel(plain, "expired", now) if wish == EXPIRED else _taken(plain)), None


def cancel(intent: Intent, reason: str | None, now: datetime) -> Intent:
    """Return the intent as canceled."""
    return replace(
        intent,
        status=IntentStatus.CANCELED,
        cancellation_reason=reason,
        canceled_at=now,
        due_at=None,
        due_status=None,
    )


def come_due(intent: Intent, now: datetime) -> Intent:
    """Bring an intent to the status that its time has come for."""
    assert intent.due_status is not None, "it is claimed by its time"
    if intent.due_status is IntentStatus.CANCELED:
        return cancel(intent, "expired", now)
    settled = replace(intent, due_at=None, due_status=None)
    if intent.due_status is _NO_METHOD:
        return _declined(settled, DECLINES["generic_decline"])
    return _taken(settled)


async def record(
    runtime: Runtime,
    connection: Connection,
    intent: Intent,
    before: IntentStatus | None,
    now: datetime,
) -> None:
    """Write what an intent has come to, the ledger and the events; `before` is none if it is new.

    The caller holds the row, and wakes the senders after the commit.
    """
    if before is None:
        await store.insert_intent(connection, intent)
    else:
        await store.save_intent(connection, intent, expected=before)
    if intent.status is IntentStatus.SUCCEEDED:
        price = Money(intent.amount_received, intent.currency.upper())
        await ledger.insert_charge(
            connection,
            Charge(
                gateway="stripe",
                reference=intent.reference,
                gateway_payment_id=intent.id,
                charge=price,
                price=price,
                charged_at=now,
            ),
        )
    await events.announce_intent(runtime, connection, intent)
    log.info("intent_moved", reference=intent.reference, status=intent.status.value)


def _taken(intent: Intent) -> Intent:
    if intent.capture_method == "manual":
        return replace(intent, status=IntentStatus.REQUIRES_CAPTURE)
    return replace(intent, status=IntentStatus.SUCCEEDED, amount_received=intent.amount)


def _declined(intent: Intent, decline: Decline) -> Intent:
    error = answers.payment_error(intent, decline)
    return replace(intent, status=_NO_METHOD, last_payment_error=error)


def _unauthenticated(intent: Intent, wish: str, due: datetime) -> tuple[Intent, Decline | None]:
    if wish == EXPIRED:
        intent = replace(intent, due_at=due, due_status=IntentStatus.CANCELED)
    if intent.is_off_session:
        decline = DECLINES["authentication_required"]
        return _declined(intent, decline), decline
    return replace(intent, status=IntentStatus.REQUIRES_ACTION, latest_charge=None), None
