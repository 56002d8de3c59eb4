"""What a gateway's word makes of a refund, and a refund of its payment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.model import PaymentState
from services.payments.domain.refunds import (
    HELD_WITH_ALL_MONEY,
    PENDING_DELAYS,
    REFUND_TRANSITIONS,
    SUCCEEDED_DELAYS,
    UNKNOWN_DELAYS,
    Refund,
    RefundState,
    Returned,
    is_refundable,
    left_of,
    order_of,
    settle_refund,
)
from shared.errors import IllegalTransitionError
from shared.gateways.interface import Refunded, RefundFailed, RefundOutcome, RefundPending, Unknown
from shared.money import Money
from tests.support.payments import NOW, PAYMENT_ID, PRICE, REFERENCE, payment_in

S = RefundState
PAID = payment_in(PaymentState.SUCCEEDED)
ALL = PRICE.minor_units
NOTHING = Returned(0, 0)


def refund_in(state: RefundState, **changes: Any) -> Refund:
    values: dict[str, Any] = {
        "id": "ref_01KE70EHG0JY1QREBD77BRA2Z9",
        "payment_id": PAYMENT_ID,
        "gateway": "sslcommerz",
        "amount": PRICE,
        "state": state,
        "reason": "changed their mind",
        "requested_by": "operator",
        "detail": None,
        "handle": None if state in {S.REQUESTED, S.UNKNOWN} else "re_1",
        "sends": 1,
        "sent_at": NOW,
        "looks": 0,
        "next_look_at": None if state is S.FAILED else NOW,
        "created_at": NOW,
        "updated_at": NOW,
        "version": 1,
    }
    return Refund(**(values | changes))


OPEN = (S.REQUESTED, S.PENDING, S.UNKNOWN)


@pytest.mark.parametrize("state", OPEN)
def test_all_of_the_money_given_back_makes_the_payment_refunded(state: RefundState) -> None:
    change = settle_refund(refund_in(state), PAID, Returned(0, ALL), Refunded("re_1"), now=NOW)

    assert change.refund.state is S.SUCCEEDED
    assert change.refund.handle == "re_1"
    assert change.is_success
    assert change.refunded_total == ALL
    assert change.change is not None
    assert change.change.event == "refunded"
    assert change.change.payment.state is PaymentState.REFUNDED


def test_a_part_makes_it_partially_refunded_and_the_rest_refunded() -> None:
    part = refund_in(S.PENDING, amount=Money(15_000, "BDT"))
    rest = refund_in(S.PENDING, amount=Money(ALL - 15_000, "BDT"))

    first = settle_refund(part, PAID, Returned(0, 15_000), Refunded("re_1"), now=NOW)
    assert first.change is not None
    half_way = first.change.payment
    second = settle_refund(rest, half_way, Returned(15_000, 0), Refunded("re_2"), now=NOW)

    assert half_way.state is PaymentState.PARTIALLY_REFUNDED
    assert first.refunded_total == 15_000
    assert second.change is not None
    assert second.change.payment.state is PaymentState.REFUNDED
    assert second.refunded_total == ALL


@pytest.mark.parametrize("state", OPEN)
def test_a_refusal_ends_the_refund_and_leaves_the_payment(state: RefundState) -> None:
    change = settle_refund(refund_in(state), PAID, NOTHING, RefundFailed("no_balance"), now=NOW)

    assert (change.refund.state, change.refund.detail) == (S.FAILED, "no_balance")
    assert change.refund.next_look_at is None
    assert not change.is_success
    assert change.change is not None
    assert change.change.payment == PAID
    assert change.change.event == "refund_failed"


@pytest.mark.parametrize(
    ("outcome", "state", "delays"),
    [
        pytest.param(Unknown("timeout"), S.UNKNOWN, UNKNOWN_DELAYS, id="no answer"),
        pytest.param(RefundPending("processing"), S.PENDING, PENDING_DELAYS, id="accepted"),
    ],
)
def test_it_is_looked_at_ever_more_rarely_and_never_given_up(
    outcome: RefundOutcome, state: RefundState, delays: tuple[timedelta, ...]
) -> None:
    refund, seen = refund_in(S.REQUESTED), []
    for _ in range(len(delays) + 2):
        refund = settle_refund(refund, PAID, NOTHING, outcome, now=NOW).refund
        assert refund.state is state
        assert refund.next_look_at is not None
        seen.append(refund.next_look_at - NOW)

    assert seen == [*delays, delays[-1], delays[-1]]


def test_what_was_accepted_stays_accepted_when_nobody_answers() -> None:
    pending = refund_in(S.PENDING, looks=2)

    change = settle_refund(pending, PAID, NOTHING, Unknown("timeout"), now=NOW)

    assert (change.refund.state, change.refund.looks) == (S.PENDING, 3)
    assert change.refund.detail == "timeout"


def test_a_handle_is_kept_once_it_is_known() -> None:
    first = settle_refund(
        refund_in(S.REQUESTED), PAID, NOTHING, RefundPending("accepted", "re_7"), now=NOW
    )
    second = settle_refund(first.refund, PAID, NOTHING, RefundPending("processing"), now=NOW)

    assert first.refund.handle == second.refund.handle == "re_7"


def test_one_that_succeeded_is_looked_at_a_few_times_more() -> None:
    refund = settle_refund(refund_in(S.PENDING), PAID, NOTHING, Refunded("re_1"), now=NOW).refund
    refunded = payment_in(PaymentState.REFUNDED)
    looks = []
    while refund.next_look_at is not None:
        looks.append(refund.next_look_at - NOW)
        change = settle_refund(refund, refunded, Returned(ALL, 0), Refunded("re_1"), now=NOW)
        assert change.change is None
        assert not change.is_success
        refund = change.refund

    assert refund.state is S.SUCCEEDED
    assert looks == list(SUCCEEDED_DELAYS)


@pytest.mark.parametrize("outcome", [Unknown("timeout"), RefundPending("requires_action")])
def test_a_look_that_says_less_takes_no_success_back(outcome: RefundOutcome) -> None:
    done = refund_in(S.SUCCEEDED)

    change = settle_refund(done, PAID, Returned(ALL, 0), outcome, now=NOW)

    assert change.refund.state is S.SUCCEEDED
    assert change.change is None


def test_a_refund_that_came_back_is_money_of_the_payment_again() -> None:
    done = refund_in(S.SUCCEEDED, amount=Money(15_000, "BDT"))
    refunded = payment_in(PaymentState.REFUNDED)

    change = settle_refund(
        done, refunded, Returned(ALL, 0), RefundFailed("expired_or_canceled_card"), now=NOW
    )

    assert change.is_returned
    assert not change.is_success
    assert change.refund.state is S.FAILED
    assert change.refunded_total == ALL - 15_000
    assert change.change is not None
    assert change.change.event == "refund_returned"
    assert change.change.payment.state is PaymentState.PARTIALLY_REFUNDED


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        pytest.param(Refunded("re_1"), S.PENDING, id="given back"),
        pytest.param(RefundFailed("lost"), S.SUCCEEDED, id="came back"),
    ],
)
def test_a_dispute_is_stronger_than_a_refund(outcome: RefundOutcome, state: RefundState) -> None:
    disputed = payment_in(PaymentState.DISPUTED, reason="disputed:fraudulent")

    change = settle_refund(refund_in(state), disputed, Returned(ALL, 0), outcome, now=NOW)

    assert change.change is not None
    assert change.change.payment == disputed


@pytest.mark.parametrize("reason", sorted(HELD_WITH_ALL_MONEY))
def test_held_money_is_given_back_whole_and_is_held_again_when_it_comes_back(reason: str) -> None:
    held = payment_in(PaymentState.ON_HOLD, reason=reason)

    given = settle_refund(refund_in(S.PENDING), held, Returned(0, ALL), Refunded("r"), now=NOW)
    assert given.change is not None
    assert given.change.payment.state is PaymentState.REFUNDED
    back = settle_refund(
        given.refund, given.change.payment, Returned(ALL, 0), RefundFailed("lost"), now=NOW
    )

    assert back.change is not None
    assert back.change.payment.state is PaymentState.ON_HOLD


@pytest.mark.parametrize("state", PaymentState)
def test_only_money_that_is_there_can_be_given_back(state: PaymentState) -> None:
    expected = state in {PaymentState.SUCCEEDED, PaymentState.PARTIALLY_REFUNDED}

    assert is_refundable(payment_in(state)) is expected
    for reason in HELD_WITH_ALL_MONEY:
        assert is_refundable(payment_in(state, reason=reason)) is (
            expected or state is PaymentState.ON_HOLD
        )


def test_what_is_reserved_is_not_left() -> None:
    assert left_of(PAID, Returned(15_000, 40_000)) == ALL - 55_000


def test_the_gateway_is_told_the_same_each_time() -> None:
    refund = refund_in(S.REQUESTED, sent_at=NOW - timedelta(hours=1))
    later = replace(refund, state=S.UNKNOWN, sends=4, looks=3, detail="timeout")

    order = order_of(refund, PAID, REFERENCE)
    assert order == order_of(later, PAID, REFERENCE)
    assert (order.reference, order.payment_reference) == (refund.id, REFERENCE)
    assert order.started_at == refund.sent_at


@pytest.mark.parametrize("state", RefundState)
def test_a_refund_that_failed_stays_so(state: RefundState) -> None:
    assert state not in REFUND_TRANSITIONS[S.FAILED]
    with pytest.raises(IllegalTransitionError):
        settle_refund(refund_in(S.FAILED), PAID, NOTHING, Refunded("re_1"), now=NOW)


def test_long_words_of_a_gateway_are_cut() -> None:
    change = settle_refund(refund_in(S.PENDING), PAID, NOTHING, RefundFailed("x" * 999), now=NOW)

    assert change.refund.detail == "x" * 300
