"""What a gateway's verdict makes of a payment: an outcome of a call, of whichever it was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from services.payments.domain.check_schedule import (
    CONFIRMATION_DELAYS,
    LOOKS_SKIPPED_AFTER_DECLINE,
    next_check_at,
)
from services.payments.domain.ledger import REVENUE, SURPLUS, Transfer, captured, surplus
from services.payments.domain.model import Deferred, Payment, PaymentState, Verdict
from services.payments.domain.state_machine import RESTING, TAKEN, next_state
from shared.gateways.interface import (
    ActionRequired,
    Claim,
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

#: Why a payment is on hold that an operator held. Only an operator releases it; the gateway is then
#: asked anew, so what it says until then need not be kept.
HELD_BY_OPERATOR: Final = "held_by_operator"

#: Why money is held that is not what was asked for.
CURRENCY_DIFFERS: Final = "currency_differs"
AMOUNT_DIFFERS: Final = "amount_differs"
_OTHER_SUM: Final = frozenset({CURRENCY_DIFFERS, AMOUNT_DIFFERS})

#: Longest reason that is kept.
_REASON_LENGTH_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Change:
    """A payment as it shall be saved, and what happened, for its history."""

    payment: Payment
    event: str

    #: The money was confirmed just now: announce it.
    is_success: bool = False
    #: The gateway took money more than once: someone must refund one.
    is_surplus: bool = False
    #: What it moves in the ledger.
    transfers: tuple[Transfer, ...] = ()
    #: The account to which what the ledger holds of the payment goes; it is saved in a transaction
    #: then.
    frees_held_to: str | None = None


def settle_start(payment: Payment, outcome: Outcome, *, now: datetime) -> Change | None:
    """Decide what the answer to an order makes of its payment; None when more is known by now.

    Args:
        payment: As last read; a notice may have changed it while the gateway was called.
        outcome: What `start` returned, or a look-up that took its place.
        now: The present moment.
    """
    if isinstance(outcome, Paid):
        return _settle_paid(payment, outcome)
    if payment.state not in _AWAITING_START:
        return None
    match outcome:
        case ActionRequired() | Pending():
            return _accepted(payment, outcome, now)
        case Declined(kind=FailureKind.CONFIGURATION):
            return _refused(payment, outcome)
        case Declined():
            return _settle_declined(payment, outcome, None, now)
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
        reason=f"gateway_refused:{outcome.reason}"[:_REASON_LENGTH_MAX],
        next_check_at=None,
    )
    return Change(failed, f"{_wanted(payment)}_refused")


def _unanswered(payment: Payment, outcome: Unknown, now: datetime) -> Change:
    """Ask later what became of an order whose answer was lost."""
    state = next_state(payment.state, PaymentState.UNKNOWN)
    unknown = payment._replace(
        state=state,
        reason=f"{_wanted(payment)}_unknown:{outcome.reason}"[:_REASON_LENGTH_MAX],
        next_check_at=next_check_at(payment.method, state, payment.checks_made, now),
    )
    return Change(unknown, f"{_wanted(payment)}_unknown")


def _wanted(payment: Payment) -> str:
    return "checkout" if payment.method == "checkout" else "charge"


def settle(
    payment: Payment, verdict: Verdict, *, claim: Claim | None, now: datetime
) -> Change | None:
    """Decide what a verdict means; None when it says nothing new.

    Args:
        payment: As last read.
        verdict: What the gateway said, or why it was not asked.
        claim: What the notice claimed that made us ask; None when nobody did.
        now: The present moment.
    """
    match verdict:
        case Paid():
            return _settle_paid(payment, verdict)
        case Deferred():
            return _put_off(payment, verdict, claim)
        case _ if payment.state is PaymentState.RETRY_SCHEDULED and claim != "paid":
            return None  # What ended the last attempt says nothing of the next.
        case Declined() if payment.state is PaymentState.RETRY_SCHEDULED:
            return None
        case _ if payment.state in RESTING:
            return _look_again(payment, verdict, claim, now)
        case Declined():
            return _settle_declined(payment, verdict, claim, now)
        case Pending() | ActionRequired():
            return _settle_pending(payment, verdict, claim, now)
        case Unknown():
            return _settle_unknown(payment, verdict, claim, now)
    assert_never(verdict)


def _settle_paid(payment: Payment, verdict: Paid) -> Change | None:
    if payment.state is PaymentState.ON_HOLD and payment.reason == HELD_BY_OPERATOR:
        return None
    # A charge with another name at the gateway than the one we know is another charge.
    is_other = payment.gateway_payment_id not in {None, verdict.gateway_payment_id}
    is_surplus = verdict.is_repeated or is_other
    reason = _objection(payment, verdict)
    # A gateway may take a doubt back; that it tells another sum than before is a doubt of its own.
    is_held = payment.state is PaymentState.ON_HOLD and (
        reason is not None or (payment.reason in _OTHER_SUM and not is_other)
    )
    if payment.state in TAKEN or is_held:
        if not is_surplus or payment.reason == "surplus_charge":
            return None
        return Change(
            payment._replace(reason="surplus_charge"),
            "surplus_charge_found",
            is_surplus=True,
            transfers=(surplus(payment.gateway, verdict, is_other=is_other),),
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
    is_success = state is PaymentState.SUCCEEDED
    transfers, frees_held_to = _movements(payment, verdict, is_success=is_success)
    return Change(
        settled,
        event,
        is_success=is_success,
        is_surplus=is_surplus,
        transfers=transfers,
        frees_held_to=frees_held_to,
    )


def _movements(
    payment: Payment, verdict: Paid, *, is_success: bool
) -> tuple[tuple[Transfer, ...], str | None]:
    """Return what a confirmation moves in the ledger, and where what was held goes, if it goes."""
    known = payment.gateway_payment_id
    transfers: tuple[Transfer, ...] = ()
    if known != verdict.gateway_payment_id:
        transfers = captured(
            payment.gateway, verdict, is_held=not is_success, is_further=known is not None
        )
    if verdict.is_repeated:
        transfers += (surplus(payment.gateway, verdict, is_other=False),)
    if known is None or not is_success:
        return transfers, None
    # Another charge that is in order takes the place of the one that is held.
    return transfers, REVENUE if known == verdict.gateway_payment_id else SURPLUS


def _put_off(payment: Payment, deferred: Deferred, claim: Claim | None) -> Change | None:
    """Plan a look that could not be made; it counts as none.

    A notice of money makes its payment wait like any notice whose confirmation stays out.
    """
    is_resting = payment.state in RESTING
    if is_resting and payment.next_check_at is None:
        return None
    if claim == "paid" and not is_resting and payment.state is not PaymentState.PROCESSING:
        payment = payment._replace(
            state=next_state(payment.state, PaymentState.PROCESSING), checks_made=0
        )
    waiting = payment._replace(
        reason=payment.reason if is_resting else deferred.reason, next_check_at=deferred.until
    )
    return Change(waiting, "put_off")


def _objection(payment: Payment, verdict: Paid) -> str | None:
    """Return why money that was taken must not be released yet."""
    if verdict.amount.currency != payment.amount.currency:
        return CURRENCY_DIFFERS
    if verdict.amount != payment.amount:
        return AMOUNT_DIFFERS
    return "gateway_says_risky" if verdict.is_risky else None


def _settle_declined(
    payment: Payment, verdict: Declined, claim: Claim | None, now: datetime
) -> Change:
    if verdict.is_final:
        return _end(payment, verdict)
    # On the hosted page a customer may try again after a decline. So it ends the payment only when
    # the gateway's notice says the same, or when the time is over.
    if claim in {"failed", "cancelled", "expired"}:
        state = PaymentState.CANCELLED if verdict.is_cancelled else PaymentState.FAILED
        return _rest(payment, state, "declined", verdict.reason, now)
    if now >= payment.expires_at:
        return _rest(payment, PaymentState.FAILED, "expired", verdict.reason, now)
    return _wait(payment, PaymentState.PENDING, f"declined_once:{verdict.reason}"[:200], now)


def _end(payment: Payment, verdict: Declined) -> Change:
    """End a payment for which no money can come any more: nobody looks at it again."""
    state = PaymentState.CANCELLED if verdict.is_cancelled else PaymentState.FAILED
    ended = payment._replace(
        state=next_state(payment.state, state),
        reason=f"{verdict.kind}:{verdict.reason}"[:_REASON_LENGTH_MAX],
        next_check_at=None,
    )
    return Change(ended, "declined")


def _settle_pending(
    payment: Payment, verdict: Pending | ActionRequired, claim: Claim | None, now: datetime
) -> Change:
    if claim == "paid" or payment.state is PaymentState.PROCESSING:
        return _settle_unconfirmed(payment, verdict.reason, claim, now)
    if verdict.reason == "not_attempted":
        if claim in {"failed", "cancelled", "expired"}:
            state = PaymentState.CANCELLED if claim == "cancelled" else PaymentState.FAILED
            return _rest(payment, state, "declined", f"notice_{claim}", now)
        if now >= payment.expires_at:
            return _rest(payment, PaymentState.FAILED, "expired", "never_attempted", now)
        is_open = payment.state is not PaymentState.CREATED
        state = PaymentState.PENDING if is_open else PaymentState.CREATED
        return _wait(payment, state, verdict.reason, now)
    return _wait(payment, PaymentState.PENDING, verdict.reason, now)


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
        next_check_at=next_check_at(payment.method, state, 0, now),
    )
    return Change(waiting, "confirmation_stays_out")


def _wait(payment: Payment, state: PaymentState, reason: str, now: datetime) -> Change:
    waiting = payment._replace(
        state=next_state(payment.state, state),
        reason=reason,
        checks_made=payment.checks_made + 1,
        next_check_at=next_check_at(payment.method, state, payment.checks_made + 1, now),
    )
    return Change(waiting, "checked")


def _rest(payment: Payment, state: PaymentState, event: str, reason: str, now: datetime) -> Change:
    """End a payment without money; until it expires it is looked at, ever more rarely.

    On the hosted page a customer may try again and pay after a decline, and the notice of that may
    be lost like any other.
    """
    due = next_check_at(payment.method, state, LOOKS_SKIPPED_AFTER_DECLINE, now)
    resting = payment._replace(
        state=next_state(payment.state, state),
        reason=reason,
        checks_made=LOOKS_SKIPPED_AFTER_DECLINE,
        next_check_at=None if now >= payment.expires_at else due,
    )
    return Change(resting, event)


def _look_again(
    payment: Payment, verdict: Outcome, claim: Claim | None, now: datetime
) -> Change | None:
    """Plan the next look at a failed or cancelled payment for which no money was found."""
    if payment.next_check_at is None:
        return None
    if isinstance(verdict, Declined) and verdict.is_final:
        return Change(payment._replace(next_check_at=None), "closed")
    if claim is not None:
        return None
    if now >= payment.expires_at:
        return Change(payment._replace(next_check_at=None), "closed")
    assert payment.reason is not None, "what failed says why"
    return _wait(payment, payment.state, payment.reason, now)
