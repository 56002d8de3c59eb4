"""A payment takes the steps of the table and no other."""

from __future__ import annotations

import itertools

import pytest

from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING, TAKEN, TRANSITIONS, next_state
from shared.errors import IllegalTransitionError

PAIRS = sorted(itertools.product(PaymentState, PaymentState))
ALLOWED = [(state, wanted) for state, wanted in PAIRS if wanted in TRANSITIONS[state]]
REFUSED = [pair for pair in PAIRS if pair not in ALLOWED and pair[0] is not pair[1]]


@pytest.mark.parametrize(("state", "wanted"), REFUSED, ids=str)
def test_a_pair_outside_the_table_is_refused(state: PaymentState, wanted: PaymentState) -> None:
    with pytest.raises(IllegalTransitionError, match=f"from {state} to {wanted}"):
        next_state(state, wanted)


@pytest.mark.parametrize(("state", "wanted"), ALLOWED, ids=str)
def test_a_pair_of_the_table_is_a_step(state: PaymentState, wanted: PaymentState) -> None:
    assert next_state(state, wanted) is wanted


@pytest.mark.parametrize("state", PaymentState)
def test_to_stay_is_always_possible(state: PaymentState) -> None:
    assert next_state(state, state) is state


def test_every_state_has_a_row_and_no_row_holds_its_own_state() -> None:
    assert set(TRANSITIONS) == set(PaymentState)
    assert all(state not in following for state, following in TRANSITIONS.items())


def test_every_state_but_the_first_can_be_reached() -> None:
    reached = {PaymentState.CREATED}
    for _ in PaymentState:
        reached |= {state for known in reached for state in TRANSITIONS[known]}

    assert reached == set(PaymentState)
    assert all(PaymentState.CREATED not in following for following in TRANSITIONS.values())


def test_money_can_still_come_wherever_none_was_confirmed() -> None:
    assert all(PaymentState.SUCCEEDED in TRANSITIONS[state] for state in set(PaymentState) - TAKEN)


def test_what_was_confirmed_can_only_go_back_and_come_back() -> None:
    # Money that was held when it was given back is held again when the bank returns it.
    back = {PaymentState.REFUNDED: {PaymentState.ON_HOLD}}
    assert {s: TRANSITIONS[s] - TAKEN for s in TAKEN if TRANSITIONS[s] - TAKEN} == back


def test_a_resting_payment_waits_again_only_when_a_person_says_so() -> None:
    """Someone asks for a retry of what failed, or releases what was held."""
    again = {state: TRANSITIONS[state] - RESTING for state in RESTING}

    assert {state: found for state, found in again.items() if found} == {
        PaymentState.FAILED: {PaymentState.RETRY_SCHEDULED},
        PaymentState.ON_HOLD: {PaymentState.UNKNOWN, PaymentState.RETRY_SCHEDULED},
    }
