"""How a dispute moves, and what that makes of its payment."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.disputes import (
    DECIDED_DELAYS,
    OPEN_DELAYS,
    STEPS,
    Dispute,
    Step,
    dispute_from,
    steps_to,
    take_step,
)
from services.payments.domain.model import Payment, PaymentState
from shared.gateways.disputes import Disputed, DisputeState
from shared.money import Money
from tests.support.payments import NOW, PRICE, REFERENCE, payment_in

D = DisputeState
PAID = payment_in(PaymentState.SUCCEEDED)
ID = "dsp_01KE70EHG0JY1QREBD77BRA2Z9"


def told(state: DisputeState, **changes: Any) -> Disputed:
    values: dict[str, Any] = {
        "handle": "du_1",
        "state": state,
        "amount": PRICE,
        "reason": "fraudulent",
        "reference": REFERENCE,
        "gateway_payment_id": "bank_1",
        "opened_at": NOW,
    }
    return Disputed(**(values | changes))


def seen(*states: DisputeState) -> Dispute:
    """Return a dispute that was seen in these states, one after the other."""
    known: Dispute | None = None
    for state in states:
        known = dispute_from(known, told(state), new_id=ID, payment=PAID, now=NOW)
    assert known is not None
    return known


def walk(*states: DisputeState, payment: Payment = PAID, refunded: int = 0) -> Payment:
    """Return what becomes of a payment whose dispute is seen in these states."""
    known: Dispute | None = None
    for state in states:
        steps = steps_to(known, told(state))
        known = dispute_from(known, told(state), new_id=ID, payment=payment, now=NOW)
        for step in steps:
            payment = take_step(
                step, known, payment, refunded_total=refunded, is_held_by_others=False
            ).payment
    return payment


@pytest.mark.parametrize(
    ("states", "state", "reason"),
    [
        ((D.INQUIRY,), PaymentState.SUCCEEDED, None),
        ((D.INQUIRY, D.WON), PaymentState.SUCCEEDED, None),
        ((D.OPENED,), PaymentState.DISPUTED, "disputed:fraudulent"),
        ((D.INQUIRY, D.OPENED), PaymentState.DISPUTED, "disputed:fraudulent"),
        ((D.OPENED, D.WON), PaymentState.SUCCEEDED, None),
        ((D.WON,), PaymentState.SUCCEEDED, None),
        ((D.OPENED, D.LOST), PaymentState.DISPUTED, "dispute_lost"),
        ((D.LOST,), PaymentState.DISPUTED, "dispute_lost"),
        ((D.OPENED, D.LOST, D.OPENED), PaymentState.DISPUTED, "disputed:fraudulent"),
        ((D.LOST, D.WON), PaymentState.SUCCEEDED, None),
        ((D.OPENED, D.WON, D.OPENED, D.LOST), PaymentState.DISPUTED, "dispute_lost"),
        ((D.OPENED, D.INQUIRY), PaymentState.DISPUTED, "disputed:fraudulent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_payment_follows_its_dispute(
    states: tuple[DisputeState, ...], state: PaymentState, reason: str | None
) -> None:
    payment = walk(*states)

    assert (payment.state, payment.reason) == (state, reason)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_whatever_is_seen_money_moves_in_turns(length: int) -> None:
    """Opened and decided take turns, so that nothing is booked twice or from nowhere."""
    allowed = {
        None: {Step.OPENED},
        Step.OPENED: {Step.WON, Step.LOST},
        Step.REOPENED: {Step.WON, Step.LOST},
        Step.WON: {Step.OPENED},
        Step.LOST: {Step.REOPENED},
    }
    for states in itertools.product(DisputeState, repeat=length):
        known: Dispute | None = None
        last: Step | None = None
        for state in states:
            for step in steps_to(known, told(state)):
                assert step in allowed[last], states
                last = step
            known = dispute_from(known, told(state), new_id=ID, payment=PAID, now=NOW)


def test_what_is_seen_again_is_no_step() -> None:
    assert not [step for (before, now), step in STEPS.items() if before is now]


@pytest.mark.parametrize(
    ("refunded", "state"),
    [
        (0, PaymentState.SUCCEEDED),
        (1, PaymentState.PARTIALLY_REFUNDED),
        (PRICE.minor_units, PaymentState.REFUNDED),
    ],
)
def test_a_dispute_that_is_won_leaves_what_refunds_made(refunded: int, state: PaymentState) -> None:
    assert walk(D.OPENED, D.WON, refunded=refunded).state is state


def test_won_it_stays_disputed_while_another_dispute_holds_the_money() -> None:
    disputed = walk(D.OPENED)

    change = take_step(
        Step.WON, seen(D.OPENED, D.WON), disputed, refunded_total=0, is_held_by_others=True
    )

    assert change.payment == disputed
    assert change.event == "dispute_won"


@pytest.mark.parametrize("step", Step)
def test_held_money_stays_held(step: Step) -> None:
    held = payment_in(PaymentState.ON_HOLD)

    change = take_step(step, seen(D.OPENED), held, refunded_total=0, is_held_by_others=False)

    assert change.payment == held
    assert change.event == step


def test_a_surplus_charge_is_not_forgotten() -> None:
    payment = walk(D.OPENED, D.WON, payment=PAID._replace(reason="surplus_charge"))

    assert (payment.state, payment.reason) == (PaymentState.SUCCEEDED, "surplus_charge")


def test_the_amount_may_change_until_money_has_moved() -> None:
    less = Money(100, "BDT")
    inquiry = seen(D.INQUIRY)
    opened = dispute_from(inquiry, told(D.OPENED, amount=less), new_id="x", payment=PAID, now=NOW)
    won = dispute_from(opened, told(D.WON, amount=PRICE), new_id="x", payment=PAID, now=NOW)

    assert (opened.amount, won.amount) == (less, less)
    assert (opened.id, won.id) == (ID, ID)


def test_a_fee_that_is_no_longer_told_is_kept() -> None:
    fee = Money(1_500, "USD")
    opened = dispute_from(None, told(D.OPENED, fee=fee), new_id=ID, payment=PAID, now=NOW)
    won = dispute_from(opened, told(D.WON), new_id=ID, payment=PAID, now=NOW)

    assert won.fee == fee


def test_an_open_one_is_looked_at_for_ever_and_a_decided_one_for_a_while() -> None:
    opened = [seen(*[D.OPENED] * times).next_look_at for times in range(1, 5)]
    decided = [seen(*[D.LOST] * times).next_look_at for times in range(1, 5)]

    assert opened == [NOW + OPEN_DELAYS[0], *[NOW + timedelta(days=1)] * 3]
    assert decided == [*(NOW + delay for delay in DECIDED_DELAYS), None]
