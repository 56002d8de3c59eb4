"""What the answer to an order makes of its payment."""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from services.payments.domain.check_schedule import next_check_at
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import (
    REASON_LENGTH_MAX,
    Change,
    is_over,
    settle_declined,
    settle_paid,
)
from services.payments.domain.state_machine import next_state
from shared.gateways.interface import (
    ActionRequired,
    Declined,
    FailureKind,
    Outcome,
    Paid,
    Pending,
    Unknown,
)

#: States in which what `start` returned is the best that is known.
_AWAITING_START: Final = frozenset(
    {
        PaymentState.CREATED,
        PaymentState.PENDING,
        PaymentState.UNKNOWN,
    }
)


def settle_start(
    payment: Payment, outcome: Outcome, *, now: datetime, returns_late_money: bool = False
) -> Change | None:
    """Decide what the answer to an order makes of its payment; None when more is known by now.

    Args:
        payment: As last read; a notice may have changed it while the gateway was called.
        outcome: What `start` returned, or a look-up that took its place.
        now: The present moment.
        returns_late_money: Whether money that comes after the end goes back.
    """
    if isinstance(outcome, Paid):
        return settle_paid(payment, outcome, goes_back=returns_late_money and is_over(payment, now))
    if payment.state not in _AWAITING_START:
        return None
    match outcome:
        case ActionRequired() | Pending():
            return _accepted(payment, outcome, now)
        case Declined(kind=FailureKind.CONFIGURATION):
            return _refused(payment, outcome)
        case Declined():
            return settle_declined(payment, outcome, None, now)
        case Unknown():
            return _unanswered(payment, outcome, now)
    assert_never(outcome)


def _accepted(payment: Payment, outcome: ActionRequired | Pending, now: datetime) -> Change:
    """Wait for the customer, from whom the gateway now expects something, or for a network."""
    state = next_state(payment.state, PaymentState.PENDING)
    if isinstance(outcome, ActionRequired):
        # The first look was planned when the payment was recorded.
        return Change(payment._replace(state=state, reason=outcome.reason), "checkout_opened")
    accepted = payment._replace(
        state=state,
        reason=outcome.reason,
        checks_made=0,
        next_check_at=next_check_at(payment.method, state, 0, now),
    )
    return Change(accepted, "accepted")


def _refused(payment: Payment, outcome: Declined) -> Change:
    """End a payment that the gateway would not even begin."""
    failed = payment._replace(
        state=next_state(payment.state, PaymentState.FAILED),
        reason=f"gateway_refused:{outcome.reason}"[:REASON_LENGTH_MAX],
        next_check_at=None,
    )
    return Change(failed, f"{_wanted(payment)}_refused")


def _unanswered(payment: Payment, outcome: Unknown, now: datetime) -> Change:
    """Ask later what became of an order whose answer was lost."""
    state = next_state(payment.state, PaymentState.UNKNOWN)
    unknown = payment._replace(
        state=state,
        reason=f"{_wanted(payment)}_unknown:{outcome.reason}"[:REASON_LENGTH_MAX],
        next_check_at=next_check_at(payment.method, state, payment.checks_made, now),
    )
    return Change(unknown, f"{_wanted(payment)}_unknown")


def _wanted(payment: Payment) -> str:
    return "checkout" if payment.method == "checkout" else "charge"
