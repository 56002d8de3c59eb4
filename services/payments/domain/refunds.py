"""Giving money back: what a gateway's word makes of a refund, and a refund of its payment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final, assert_never

from services.payments.domain import ledger
from services.payments.domain.ledger import Transfer
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import next_state
from shared.errors import IllegalTransitionError
from shared.gateways.interface import (
    Refunded,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    RefundPending,
    Unknown,
)
from shared.money import Money


class RefundState(StrEnum):
    """Where a refund stands."""

    #: Recorded, its amount reserved; the gateway has not answered yet.
    REQUESTED = "requested"
    #: The gateway has accepted it and will carry it out.
    PENDING = "pending"
    #: The gateway did not say. It is asked again under the same reference.
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    #: No money was given back, or it came back to us.
    FAILED = "failed"


_S = RefundState

#: From each state, the states that may follow it. Migration 0006 holds the same table.
REFUND_TRANSITIONS: Final[Mapping[RefundState, frozenset[RefundState]]] = MappingProxyType(
    {
        _S.REQUESTED: frozenset(_S) - {_S.REQUESTED},
        _S.PENDING: frozenset({_S.UNKNOWN, _S.SUCCEEDED, _S.FAILED}),
        _S.UNKNOWN: frozenset({_S.PENDING, _S.SUCCEEDED, _S.FAILED}),
        # The customer's bank sent the money back: their account is closed, for example.
        _S.SUCCEEDED: frozenset({_S.FAILED}),
        _S.FAILED: frozenset(),
    }
)

#: States of a payment whose money can be given back.
REFUNDABLE: Final = frozenset({PaymentState.SUCCEEDED, PaymentState.PARTIALLY_REFUNDED})

#: States in which some of a payment's money may have been given back.
GIVEN_BACK: Final = frozenset(
    {PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED, PaymentState.DISPUTED}
)

#: Why a payment is on hold of which just the sum asked for was taken: it can be given back, whole.
HELD_WITH_ALL_MONEY: Final = frozenset({"gateway_says_risky", "late_success"})

#: Looks at a refund whose call was not answered, or not with anything that says something.
UNKNOWN_DELAYS: Final = tuple(timedelta(seconds=s) for s in (10, 30, 120, 300, 600, 1_800, 3_600))

#: Looks at one that the gateway works on: its bank takes hours, at SSLCommerz days.
PENDING_DELAYS: Final = tuple(
    timedelta(seconds=s) for s in (30, 120, 600, 3_600, 4 * 3_600, 12 * 3_600)
)

#: Looks at one that succeeded, in case the money came back and the notice of that was lost.
SUCCEEDED_DELAYS: Final = tuple(timedelta(days=d) for d in (1, 6, 23))

#: Longest word of a gateway that is kept.
_DETAIL_LENGTH_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Refund:
    """Money to give back, or given back; `id` is also our name for it at the gateway."""

    id: str
    payment_id: str
    gateway: str
    amount: Money
    state: RefundState
    #: Why, in the words of whoever asked for it.
    reason: str
    requested_by: str
    #: What was last heard of it, or what it waits for.
    detail: str | None
    #: The gateway's own name for it.
    handle: str | None
    #: Calls that may have asked the gateway for the money; committed before each of them.
    sends: int
    #: When the first of them was made; from then on the gateway may know of it.
    sent_at: datetime | None
    looks: int
    next_look_at: datetime | None
    created_at: datetime
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What of a payment's money has been given back, and what is about to be; minor units."""

    refunded: int
    reserved: int


@dataclass(frozen=True, slots=True)
class RefundChange:
    """A refund as it shall be saved, and what that makes of its payment, if anything."""

    refund: Refund
    #: What was given back of the payment once this is saved.
    refunded_total: int
    change: Change | None = None
    #: Money was given back just now: announce it.
    is_success: bool = False
    #: Money that had been given back is with us again.
    is_returned: bool = False


def left_of(payment: Payment, returned: Returned) -> int:
    """Return what can still be given back, in minor units."""
    return payment.amount.minor_units - returned.refunded - returned.reserved


def is_refundable(payment: Payment) -> bool:
    """Tell whether a payment's money is there to be given back."""
    is_held = payment.state is PaymentState.ON_HOLD and payment.reason in HELD_WITH_ALL_MONEY
    return payment.state in REFUNDABLE or is_held


def order_of(refund: Refund, payment: Payment, paid_reference: str) -> RefundOrder:
    """Return a refund as its gateway is told of it: the same each time.

    `paid_reference` is our name for the attempt under which the money was taken.
    """
    assert refund.sent_at is not None, "a refund is marked as sent before it is"
    assert payment.gateway_payment_id is not None, "money that was taken has a name"
    return RefundOrder(
        reference=refund.id,
        payment_reference=paid_reference,
        gateway_payment_id=payment.gateway_payment_id,
        amount=refund.amount,
        reason=refund.reason,
        started_at=refund.sent_at,
        handle=refund.handle,
    )


def settle_refund(
    refund: Refund, payment: Payment, returned: Returned, outcome: RefundOutcome, *, now: datetime
) -> RefundChange:
    """Decide what a gateway's answer makes of a refund and of its payment.

    Args:
        refund: As last read.
        payment: As it stands now.
        returned: What has been given back of it so far.
        outcome: What the gateway said.
        now: The present moment.
    """
    match outcome:
        case Refunded():
            return _succeeded(refund, payment, returned, outcome.handle, now)
        case RefundFailed():
            return _failed(refund, payment, returned, outcome.reason, now)
        case RefundPending():
            heard = replace(refund, handle=refund.handle or outcome.handle)
            return _waiting(heard, returned, RefundState.PENDING, outcome.reason, now)
        case Unknown():
            return _waiting(refund, returned, RefundState.UNKNOWN, outcome.reason, now)
    assert_never(outcome)


def _waiting(
    refund: Refund, returned: Returned, state: RefundState, detail: str, now: datetime
) -> RefundChange:
    if refund.state is RefundState.SUCCEEDED:
        return RefundChange(_looked_at(refund, now), returned.refunded)
    if state is RefundState.UNKNOWN and refund.state is RefundState.PENDING:
        # What was accepted stays accepted; that nobody answers now says nothing else.
        state = RefundState.PENDING
    looks = refund.looks + 1 if state is refund.state else 1
    delays = PENDING_DELAYS if state is RefundState.PENDING else UNKNOWN_DELAYS
    waiting = replace(
        refund,
        state=_next(refund.state, state),
        detail=detail[:_DETAIL_LENGTH_MAX],
        looks=looks,
        next_look_at=now + delays[min(looks, len(delays)) - 1],
        updated_at=now,
    )
    return RefundChange(waiting, returned.refunded)


def _looked_at(refund: Refund, now: datetime) -> Refund:
    """Plan the next look at a refund that succeeded, for as long as its money may come back."""
    looks = refund.looks + 1
    is_last = looks >= len(SUCCEEDED_DELAYS)
    return replace(
        refund, looks=looks, next_look_at=None if is_last else now + SUCCEEDED_DELAYS[looks]
    )


def _succeeded(
    refund: Refund, payment: Payment, returned: Returned, handle: str, now: datetime
) -> RefundChange:
    if refund.state is RefundState.SUCCEEDED:
        return RefundChange(_looked_at(refund, now), returned.refunded)
    done = replace(
        refund,
        state=_next(refund.state, RefundState.SUCCEEDED),
        detail=None,
        handle=handle,
        looks=0,
        next_look_at=now + SUCCEEDED_DELAYS[0],
        updated_at=now,
    )
    total = returned.refunded + refund.amount.minor_units
    is_held = payment.state is PaymentState.ON_HOLD
    booked = ledger.refunded(refund.gateway, refund.id, refund.amount, was_held=is_held)
    return RefundChange(done, total, _changed(payment, total, "refunded", booked), is_success=True)


def _failed(
    refund: Refund, payment: Payment, returned: Returned, reason: str, now: datetime
) -> RefundChange:
    is_returned = refund.state is RefundState.SUCCEEDED
    ended = replace(
        refund,
        state=_next(refund.state, RefundState.FAILED),
        detail=reason[:_DETAIL_LENGTH_MAX],
        next_look_at=None,
        updated_at=now,
    )
    if not is_returned:
        change = Change(payment, "refund_failed")
        return RefundChange(ended, returned.refunded, change)
    total = returned.refunded - refund.amount.minor_units
    state = state_with(payment, total)
    booked = ledger.refund_returned(
        refund.gateway, refund.id, refund.amount, was_held=state is PaymentState.ON_HOLD
    )
    change = _changed(payment, total, "refund_returned", booked)
    return RefundChange(ended, total, change, is_returned=True)


def _changed(payment: Payment, refunded_total: int, event: str, booked: Transfer) -> Change:
    """Return a payment of which so much has been given back."""
    state = next_state(payment.state, state_with(payment, refunded_total))
    return Change(payment._replace(state=state), event, transfers=(booked,))


def state_with(payment: Payment, refunded_total: int) -> PaymentState:
    """Return the state of a payment of which so much has been given back; a dispute is stronger."""
    if payment.state is PaymentState.DISPUTED:
        return payment.state
    return undisputed_state(payment, refunded_total)


def undisputed_state(payment: Payment, refunded_total: int) -> PaymentState:
    """Return the state of a payment whose money was taken and which is not disputed."""
    if refunded_total == payment.amount.minor_units:
        return PaymentState.REFUNDED
    if payment.reason in HELD_WITH_ALL_MONEY:
        return PaymentState.ON_HOLD
    return PaymentState.PARTIALLY_REFUNDED if refunded_total else PaymentState.SUCCEEDED


def _next(state: RefundState, wanted: RefundState) -> RefundState:
    if wanted is not state and wanted not in REFUND_TRANSITIONS[state]:
        raise IllegalTransitionError(f"a refund must not go from {state} to {wanted}")
    return wanted
