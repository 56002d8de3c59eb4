"""What a customer's bank takes back: how a dispute moves, and what that makes of its payment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from services.payments.domain import ledger
from services.payments.domain.ledger import Transfer
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.refunds import undisputed_state
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import TAKEN, next_state
from shared.gateways.disputes import Disputed, DisputeState
from shared.money import Money


class Step(StrEnum):
    """What has happened in a dispute, as far as it concerns money; the names go into histories."""

    OPENED = "dispute_opened"
    #: One that was lost is heard again. The money stays where it is.
    REOPENED = "dispute_reopened"
    WON = "dispute_won"
    LOST = "dispute_lost"


_S = DisputeState

#: The steps from what is known of a dispute (None: nothing) to how it stands. Notices get lost and
#: overtake each other, so a dispute may be seen first when it is over. An inquiry moves no money.
STEPS: Final[Mapping[tuple[DisputeState | None, DisputeState], tuple[Step, ...]]] = (
    MappingProxyType(
        {
            (None, _S.OPENED): (Step.OPENED,),
            (None, _S.LOST): (Step.OPENED, Step.LOST),
            (_S.INQUIRY, _S.OPENED): (Step.OPENED,),
            (_S.INQUIRY, _S.LOST): (Step.OPENED, Step.LOST),
            (_S.OPENED, _S.WON): (Step.WON,),
            (_S.OPENED, _S.LOST): (Step.LOST,),
            (_S.WON, _S.OPENED): (Step.OPENED,),
            (_S.WON, _S.LOST): (Step.OPENED, Step.LOST),
            (_S.LOST, _S.OPENED): (Step.REOPENED,),
            (_S.LOST, _S.WON): (Step.REOPENED, Step.WON),
        }
    )
)

#: States in which the bank has the money.
WITH_THE_BANK: Final = frozenset({DisputeState.OPENED, DisputeState.LOST})

#: Looks at one that is open, in case the notice of its end was lost. Banks take weeks.
OPEN_DELAYS: Final = (timedelta(hours=6), timedelta(days=1))

#: Looks at one that was decided, in case it is heard again.
DECIDED_DELAYS: Final = (timedelta(days=7), timedelta(days=23), timedelta(days=30))

#: The next look when the gateway did not say.
UNANSWERED_DELAY: Final = timedelta(minutes=10)

#: What a payment whose dispute is lost has as its reason.
LOST_REASON: Final = "dispute_lost"

#: A reason that outlives a dispute: somebody still has to give that money back.
_LASTING_REASON: Final = "surplus_charge"


@dataclass(frozen=True, slots=True)
class Dispute:
    """A dispute as we know it; `id` is ours, `handle` the gateway's."""

    id: str
    payment_id: str
    gateway: str
    handle: str
    #: What the bank claims; fixed as soon as money has moved.
    amount: Money
    state: DisputeState
    reason: str
    #: What the gateway charged for it so far, if it tells.
    fee: Money | None
    looks: int
    next_look_at: datetime | None
    opened_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int


def steps_to(known: Dispute | None, told: Disputed) -> tuple[Step, ...]:
    """Return what has happened since a dispute was last seen."""
    return STEPS.get((None if known is None else known.state, told.state), ())


def dispute_from(
    known: Dispute | None, told: Disputed, *, new_id: str, payment: Payment, now: datetime
) -> Dispute:
    """Return a dispute as it shall be saved.

    Args:
        known: As last read, if it was seen before.
        told: How it stands.
        new_id: Its id if it was not.
        payment: Whose money it is about.
        now: The present moment.
    """
    state, amount = told.state, told.amount
    if known is not None and known.state is not DisputeState.INQUIRY:
        amount = known.amount
        if state is DisputeState.INQUIRY:
            state = known.state  # Only an old answer says so: what was moved is told as such.
    looks = 0 if known is None or known.state is not state else known.looks + 1
    return Dispute(
        id=new_id if known is None else known.id,
        payment_id=payment.id,
        gateway=payment.gateway,
        handle=told.handle,
        amount=amount,
        state=state,
        reason=told.reason,
        fee=told.fee or (None if known is None else known.fee),
        looks=looks,
        next_look_at=_next_look_at(state, looks, now),
        opened_at=told.opened_at,
        created_at=now if known is None else known.created_at,
        updated_at=now,
        version=0 if known is None else known.version,
    )


def _next_look_at(state: DisputeState, looks: int, now: datetime) -> datetime | None:
    if state in {DisputeState.INQUIRY, DisputeState.OPENED}:
        return now + OPEN_DELAYS[min(looks, len(OPEN_DELAYS) - 1)]
    return now + DECIDED_DELAYS[looks] if looks < len(DECIDED_DELAYS) else None


def take_step(
    step: Step, dispute: Dispute, payment: Payment, *, refunded_total: int, is_held_by_others: bool
) -> Change:
    """Return what a step makes of the payment.

    Args:
        step: What has happened.
        dispute: In which dispute.
        payment: As it stands before the step.
        refunded_total: What has been given back of it, in minor units.
        is_held_by_others: Whether the bank has its money by another dispute, too.
    """
    booked = (booking_of(step, dispute),)
    if payment.state not in TAKEN:
        # Held money stays held: a person looks at it anyway, and nothing was given for it.
        return Change(payment, step, transfers=booked)
    match step:
        case Step.OPENED | Step.REOPENED:
            changed = _disputed(payment, f"disputed:{dispute.reason}")
        case Step.LOST:
            changed = _disputed(payment, LOST_REASON)
        case Step.WON if is_held_by_others:
            changed = payment
        case Step.WON:
            state = undisputed_state(payment, refunded_total)
            reason = payment.reason if payment.reason == _LASTING_REASON else None
            changed = payment._replace(state=next_state(payment.state, state), reason=reason)
        case _:
            assert_never(step)
    return Change(changed, step, transfers=booked)


def _disputed(payment: Payment, reason: str) -> Payment:
    return payment._replace(
        state=next_state(payment.state, PaymentState.DISPUTED),
        reason=payment.reason if payment.reason == _LASTING_REASON else reason,
    )


def booking_of(step: Step, dispute: Dispute) -> Transfer:
    """Return what a step moves in the ledger; a dispute may take each step again."""
    occasion = f"{dispute.id}:{dispute.version}"
    match step:
        case Step.OPENED:
            return ledger.dispute_opened(dispute.gateway, occasion, dispute.amount)
        case Step.REOPENED:
            return ledger.dispute_reopened(occasion, dispute.amount)
        case Step.WON:
            return ledger.dispute_won(dispute.gateway, occasion, dispute.amount)
        case Step.LOST:
            return ledger.dispute_lost(occasion, dispute.amount)
    assert_never(step)


def fee_change(known: Dispute | None, dispute: Dispute, payment: Payment) -> Change | None:
    """Return what to book when the gateway charges more or less for a dispute than it did."""
    if dispute.fee is None:
        return None
    before = known.fee if known is not None else None
    booked = before.minor_units if before and before.currency == dispute.fee.currency else 0
    more = dispute.fee.minor_units - booked
    if more == 0:
        return None
    occasion, amount = f"{dispute.id}:{dispute.version}", Money(abs(more), dispute.fee.currency)
    fee = ledger.fee(dispute.gateway, occasion, amount)
    if more < 0:  # Some are given back with the money.
        fee = fee._replace(debit=fee.credit, credit=fee.debit)
    return Change(payment, "dispute_fee", transfers=(fee,))
