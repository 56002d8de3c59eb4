"""A payment takes the steps of the table and no other; nothing follows success."""

from __future__ import annotations

import itertools

import pytest

from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING, TRANSITIONS, next_state
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


def test_only_success_is_final_and_every_other_state_can_become_it() -> None:
    final = {state for state, following in TRANSITIONS.items() if not following}

    assert final == {PaymentState.SUCCEEDED}
    assert all(
        PaymentState.SUCCEEDED in following
        for state, following in TRANSITIONS.items()
        if state not in final
    )


def test_a_resting_payment_never_begins_to_wait_again() -> None:
    assert all(TRANSITIONS[state] <= RESTING for state in RESTING)
