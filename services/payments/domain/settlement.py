"""What a gateway's verdict makes of a payment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.payments.domain.check_schedule import (
    CONFIRMATION_DELAYS,
    LOOKS_SKIPPED_AFTER_DECLINE,
    next_check_at,
)
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.state_machine import RESTING, next_state
from shared.gateways.interface import Claim, Declined, Paid, Pending, Unknown, Verdict


@dataclass(frozen=True, slots=True)
class Change:
    """A payment as it shall be saved, and what happened, for its history."""

    payment: Payment
    event: str

    #: The money was confirmed just now: announce it.
    is_success: bool = False
    #: The gateway took money more than once: someone must refund one.
    is_surplus: bool = False


def settle(
    payment: Payment, verdict: Verdict, *, claim: Claim | None, now: datetime
) -> Change | None:
    """Decide what a verdict means; None when it says nothing new.

    Args:
        payment: As last read.
        verdict: What the gateway said.
        claim: What the notice claimed that made us ask; None when nobody did.
        now: The present moment.
    """
    match verdict:
        case Paid():
            return _settle_paid(payment, verdict)
        case _ if payment.state in RESTING:
            return _look_again(payment, claim, now)
        case Declined():
            return _settle_declined(payment, verdict, claim, now)
        case Pending():
            return _settle_pending(payment, verdict, claim, now)
        case Unknown():
            return _settle_unknown(payment, verdict, claim, now)
    assert_never(verdict)


def _settle_paid(payment: Payment, verdict: Paid) -> Change | None:
    # A charge with another name at the gateway than the one we know is another charge.
    is_other = payment.gateway_payment_id not in {None, verdict.gateway_payment_id}
    is_surplus = verdict.is_repeated or is_other
    reason = _objection(payment, verdict)
    is_held = payment.state is PaymentState.ON_HOLD and reason is not None
    if payment.state is PaymentState.SUCCEEDED or is_held:
        if not is_surplus or payment.reason == "surplus_charge":
            return None
        return Change(
            payment._replace(reason="surplus_charge"), "surplus_charge_found", is_surplus=True
        )
    if reason is None:
        state, event = PaymentState.SUCCEEDED, "confirmed"
        if payment.state in RESTING:
            event = "confirmed_late" if payment.state is not PaymentState.ON_HOLD else "released"
    else:
        state, event = PaymentState.ON_HOLD, "held"
    settled = payment._replace(
        state=next_state(payment.state, state),
        reason="surplus_charge" if is_surplus and reason is None else reason,
        validation_id=verdict.validation_id,
        gateway_payment_id=verdict.gateway_payment_id,
        next_check_at=None,
    )
    return Change(
        settled,
        event,
        is_success=state is PaymentState.SUCCEEDED,
        is_surplus=is_surplus,
    )


def _objection(payment: Payment, verdict: Paid) -> str | None:
    """Return why money that was taken must not be released yet."""
    if verdict.amount.currency != payment.amount.currency:
        return "currency_differs"
    if verdict.amount != payment.amount:
        return "amount_differs"
    return "gateway_says_risky" if verdict.is_risky else None


def _settle_declined(
    payment: Payment, verdict: Declined, claim: Claim | None, now: datetime
) -> Change:
    # On the hosted page a customer may try again after a decline. So it ends the payment only when
    # the gateway's notice says the same, or when the time is over.
    if claim in {"failed", "cancelled", "expired"}:
        state = PaymentState.CANCELLED if verdict.is_cancelled else PaymentState.FAILED
        return _rest(payment, state, "declined", verdict.reason, now)
    if now >= payment.expires_at:
        return _rest(payment, PaymentState.FAILED, "expired", verdict.reason, now)
    return _wait(payment, _calm(payment), f"declined_once:{verdict.reason}"[:200], now)


def _settle_pending(
    payment: Payment, verdict: Pending, claim: Claim | None, now: datetime
) -> Change:
    if claim == "paid" or payment.state is PaymentState.PROCESSING:
        return _settle_unconfirmed(payment, verdict.reason, claim, now)
    if verdict.reason == "not_attempted":
        if claim in {"failed", "cancelled", "expired"}:
            state = PaymentState.CANCELLED if claim == "cancelled" else PaymentState.FAILED
            return _rest(payment, state, "declined", f"notice_{claim}", now)
        if now >= payment.expires_at:
            return _rest(payment, PaymentState.FAILED, "expired", "never_attempted", now)
    return _wait(payment, _calm(payment), verdict.reason, now)


def _settle_unknown(
    payment: Payment, verdict: Unknown, claim: Claim | None, now: datetime
) -> Change:
    if claim is not None or payment.state is PaymentState.PROCESSING:
        return _settle_unconfirmed(payment, verdict.reason, claim, now)
    return _wait(payment, payment.state, verdict.reason, now)


def _settle_unconfirmed(
    payment: Payment, reason: str, claim: Claim | None, now: datetime
) -> Change:
    """A notice waits for its confirmation: soon and often at first, then like any doubt."""
    is_new = payment.state is not PaymentState.PROCESSING
    if is_new and claim is not None:
        return _wait(payment._replace(checks_made=0), PaymentState.PROCESSING, reason, now)
    if payment.checks_made < len(CONFIRMATION_DELAYS):
        return _wait(payment, PaymentState.PROCESSING, reason, now)
    state = next_state(payment.state, PaymentState.UNKNOWN)
    waiting = payment._replace(
        state=state,
        reason=reason,
        checks_made=0,
        next_check_at=next_check_at(state, 0, now),
    )
    return Change(waiting, "confirmation_stays_out")


def _calm(payment: Payment) -> PaymentState:
    """Return the waiting state once the gateway has said that the customer must act."""
    is_open = payment.state is not PaymentState.CREATED
    return PaymentState.PENDING if is_open else PaymentState.CREATED


def _wait(payment: Payment, state: PaymentState, reason: str, now: datetime) -> Change:
    waiting = payment._replace(
        state=next_state(payment.state, state),
        reason=reason,
        checks_made=payment.checks_made + 1,
        next_check_at=next_check_at(state, payment.checks_made + 1, now),
    )
    return Change(waiting, "checked")


def _rest(payment: Payment, state: PaymentState, event: str, reason: str, now: datetime) -> Change:
    """End a payment without money; until it expires it is looked at, ever more rarely.

    On the hosted page a customer may try again and pay after a decline, and the notice of that may
    be lost like any other.
    """
    is_over = now >= payment.expires_at
    resting = payment._replace(
        state=next_state(payment.state, state),
        reason=reason,
        checks_made=LOOKS_SKIPPED_AFTER_DECLINE,
        next_check_at=None if is_over else next_check_at(state, LOOKS_SKIPPED_AFTER_DECLINE, now),
    )
    return Change(resting, event)


def _look_again(payment: Payment, claim: Claim | None, now: datetime) -> Change | None:
    """Plan the next look at a failed or cancelled payment for which no money was found."""
    if payment.next_check_at is None or claim is not None:
        return None
    if now >= payment.expires_at:
        return Change(payment._replace(next_check_at=None), "closed")
    assert payment.reason is not None, "what failed says why"
    return _wait(payment, payment.state, payment.reason, now)
