"""What a gateway's verdict makes of a payment: an outcome of a call, of whichever it was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from services.payments.domain.check_schedule import (
    CONFIRMATION_DELAYS,
    LOOKS_SKIPPED_AFTER_DECLINE,
    OPEN_LOOKED_AT_FOR,
    UNKNOWN_GIVEN_UP_AFTER,
    next_check_at,
)
from services.payments.domain.ledger import REVENUE, SURPLUS, Transfer, captured, surplus
from services.payments.domain.model import Deferred, Payment, PaymentState, Verdict
from services.payments.domain.state_machine import RESTING, TAKEN, next_state
from shared.gateways.interface import (
    ActionRequired,
    Claim,
    Declined,
    Outcome,
    Paid,
    Pending,
    Unknown,
)

#: Why a payment is on hold that an operator held. Only an operator releases it; the gateway is then
#: asked anew, so what it says until then need not be kept.
HELD_BY_OPERATOR: Final = "held_by_operator"

#: Why money is held that is not what was asked for.
CURRENCY_DIFFERS: Final = "currency_differs"
AMOUNT_DIFFERS: Final = "amount_differs"
_OTHER_SUM: Final = frozenset({CURRENCY_DIFFERS, AMOUNT_DIFFERS})

#: Why money is held that came when its payment was over.
LATE_SUCCESS: Final = "late_success"

#: States of a payment that ended without money.
_ENDED_UNPAID: Final = frozenset({PaymentState.FAILED, PaymentState.CANCELLED})

#: What is said instead of a gateway that is switched off: its payments wait until it is on again.
GATEWAY_IS_OFF: Final = "gateway_is_off"

#: How a reason begins when the time was over and the gateway had not closed what was open.
STILL_OPEN: Final = "expired_open:"

#: Longest reason that is kept.
REASON_LENGTH_MAX: Final = 300


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
    #: The money came too late: what is held goes back, where the gateway can do that.
    gives_back: bool = False


def settle(
    payment: Payment,
    verdict: Verdict,
    *,
    claim: Claim | None,
    now: datetime,
    returns_late_money: bool = False,
) -> Change | None:
    """Decide what a verdict means; None when it says nothing new.

    Args:
        payment: As last read.
        verdict: What the gateway said, or why it was not asked.
        claim: What the notice claimed that made us ask; None when nobody did.
        now: The present moment.
        returns_late_money: Whether money that comes after the end goes back.
    """
    if isinstance(verdict, Paid):
        goes_back = returns_late_money and is_over(payment, now)
        return settle_paid(payment, verdict, goes_back=goes_back)
    if isinstance(verdict, Deferred):
        return _put_off(payment, verdict, claim)
    if payment.state is PaymentState.RETRY_SCHEDULED and (
        claim != "paid" or isinstance(verdict, Declined)
    ):
        return None  # What ended the last attempt says nothing of the next.
    if payment.state in RESTING:
        return _look_again(payment, verdict, claim, now)
    return _settle_unpaid(payment, verdict, claim, now)


def _settle_unpaid(
    payment: Payment,
    verdict: Declined | Pending | ActionRequired | Unknown,
    claim: Claim | None,
    now: datetime,
) -> Change:
    match verdict:
        case Declined():
            return settle_declined(payment, verdict, claim, now)
        case Pending() | ActionRequired():
            return _settle_pending(payment, verdict, claim, now)
        case Unknown():
            return _settle_unknown(payment, verdict, claim, now)
    assert_never(verdict)


def is_over(payment: Payment, now: datetime) -> bool:
    """Tell whether a payment had ended without money, and its time was over."""
    return payment.state in _ENDED_UNPAID and now >= payment.expires_at


def is_left_open(payment: Payment, verdict: Verdict, now: datetime) -> bool:
    """Tell whether something can still be paid at the gateway while the payment's time is over."""
    return (
        isinstance(verdict, (Pending, ActionRequired))
        and verdict.reason != "not_attempted"
        and payment.state not in RESTING | {PaymentState.PROCESSING, PaymentState.RETRY_SCHEDULED}
        and now >= payment.expires_at
    )


def settle_paid(payment: Payment, verdict: Paid, *, goes_back: bool) -> Change | None:
    """Decide what confirmed money means; None when it says nothing new.

    `goes_back` says that it came too late, and is not kept.
    """
    if payment.state is PaymentState.ON_HOLD and payment.reason == HELD_BY_OPERATOR:
        return None
    # A charge with another name at the gateway than the one we know is another charge.
    is_other = payment.gateway_payment_id not in {None, verdict.gateway_payment_id}
    is_surplus = verdict.is_repeated or is_other
    reason = _objection(payment, verdict) or (LATE_SUCCESS if goes_back else None)
    # A gateway may take a doubt back; that it tells another sum than before is a doubt of its own.
    is_held = payment.state is PaymentState.ON_HOLD and (
        reason is not None
        or payment.reason == LATE_SUCCESS
        or (payment.reason in _OTHER_SUM and not is_other)
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
        gives_back=reason == LATE_SUCCESS and state is PaymentState.ON_HOLD,
    )


def _movements(
    payment: Payment, verdict: Paid, *, is_success: bool
) -> tuple[tuple[Transfer, ...], str | None]:
    """Return what a confirmation moves in the ledger, and where what was held goes, if it goes."""
    known = payment.gateway_payment_id
    transfers: tuple[Transfer, ...] = ()
    if known != verdict.gateway_payment_id:
        is_further = known is not None
        transfers = (
            captured(payment.gateway, verdict, is_held=not is_success, is_further=is_further),
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


def settle_declined(
    payment: Payment, verdict: Declined, claim: Claim | None, now: datetime
) -> Change:
    """Decide what a decline means for a payment that is not at rest."""
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
        reason=f"{verdict.kind}:{verdict.reason}"[:REASON_LENGTH_MAX],
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
    if now >= payment.expires_at and claim is None:
        reason = f"{STILL_OPEN}{verdict.reason}"[:REASON_LENGTH_MAX]
        return _rest(payment, PaymentState.FAILED, "expired", reason, now)
    return _wait(payment, PaymentState.PENDING, verdict.reason, now)


def _settle_unknown(
    payment: Payment, verdict: Unknown, claim: Claim | None, now: datetime
) -> Change:
    if claim is not None or payment.state is PaymentState.PROCESSING:
        return _settle_unconfirmed(payment, verdict.reason, claim, now)
    was_asked = verdict.reason != GATEWAY_IS_OFF
    if was_asked and now >= payment.expires_at + UNKNOWN_GIVEN_UP_AFTER:
        reason = f"expired_unknown:{verdict.reason}"[:REASON_LENGTH_MAX]
        return _rest(payment, PaymentState.FAILED, "expired", reason, now)
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
        next_check_at=due,
    )
    if now >= _looked_at_until(resting):
        resting = resting._replace(next_check_at=None)
    return Change(resting, event)


def _looked_at_until(payment: Payment) -> datetime:
    """Return until when money is looked for of a payment that has ended without any."""
    if payment.reason is not None and payment.reason.startswith(STILL_OPEN):
        return payment.expires_at + OPEN_LOOKED_AT_FOR
    return payment.expires_at


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
    if now >= _looked_at_until(payment):
        return Change(payment._replace(next_check_at=None), "closed")
    assert payment.reason is not None, "what failed says why"
    return _wait(payment, payment.state, payment.reason, now)
