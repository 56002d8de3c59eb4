"""A breaker opens when most calls fail, asks with a few probes, and closes or opens again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.breaker import (
    HOLD_MAX,
    NO_LONGER_FORCED,
    PROBES_FAILED,
    PROBES_SUCCEEDED,
    TOO_MANY_FAILURES,
    Breaker,
    BreakerForce,
    BreakerPolicy,
    BreakerState,
    CallCounts,
    advanced,
    forced,
    hand_out_probes,
    held,
    probed,
)
from tests.support.clocks import START

POLICY = BreakerPolicy()
CLOSED = Breaker("stripe")
NOTHING = CallCounts()


def opened() -> Breaker:
    return advanced(CLOSED, CallCounts(10, 10), POLICY, START)


def half_opened() -> Breaker:
    return advanced(opened(), NOTHING, POLICY, START + POLICY.open_for)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (CallCounts(10, 6), BreakerState.OPEN),
        (CallCounts(1_000, 501), BreakerState.OPEN),
        (CallCounts(10, 5), BreakerState.CLOSED),
        (CallCounts(9, 9), BreakerState.CLOSED),
        (NOTHING, BreakerState.CLOSED),
    ],
    ids=["more than half", "hardly more than half", "half", "too few calls", "no calls"],
)
def test_it_opens_when_more_than_half_of_enough_calls_fail(
    seen: CallCounts, expected: BreakerState
) -> None:
    assert advanced(CLOSED, seen, POLICY, START).state is expected


def test_an_open_one_says_why_and_when_probes_begin() -> None:
    breaker = opened()

    assert breaker.reason == TOO_MANY_FAILURES
    assert (breaker.since, breaker.until) == (START, START + timedelta(seconds=60))


@given(seconds=st.floats(0, 59.999))
def test_it_stays_open_for_its_time_whatever_late_answers_say(seconds: float) -> None:
    breaker = opened()

    assert advanced(breaker, CallCounts(50), POLICY, START + timedelta(seconds=seconds)) is breaker


def test_after_its_time_a_few_probes_are_made() -> None:
    breaker = half_opened()

    assert breaker.state is BreakerState.HALF_OPEN
    handed = []
    for _ in range(8):
        breaker, got = hand_out_probes(breaker, POLICY, workers=4, now=START + POLICY.open_for)
        handed.append(got)
    assert handed == [2, 2, 1, 0, 0, 0, 0, 0]


def test_a_worker_alone_gets_all_probes() -> None:
    assert hand_out_probes(half_opened(), POLICY, workers=1, now=START + POLICY.open_for)[1] == 5


@pytest.mark.parametrize("breaker", [CLOSED, opened()], ids=["closed", "open"])
def test_only_a_half_open_one_has_probes(breaker: Breaker) -> None:
    assert hand_out_probes(breaker, POLICY, workers=1, now=START) == (breaker, 0)
    assert probed(breaker, CallCounts(3, 3)) is breaker


@pytest.mark.parametrize(
    ("results", "state", "reason"),
    [
        ([CallCounts(3)], BreakerState.CLOSED, PROBES_SUCCEEDED),
        ([CallCounts(5, 2)], BreakerState.CLOSED, PROBES_SUCCEEDED),
        ([CallCounts(1, 1), CallCounts(1, 1), CallCounts(1, 1)], BreakerState.OPEN, PROBES_FAILED),
        ([CallCounts(2, 1), CallCounts(3, 2)], BreakerState.OPEN, PROBES_FAILED),
    ],
    ids=["majority succeeds", "two may fail", "majority fails one by one", "three of five fail"],
)
def test_the_majority_of_its_probes_closes_or_opens_it(
    results: list[CallCounts], state: BreakerState, reason: str
) -> None:
    breaker, now = half_opened(), START + POLICY.open_for
    for result in results:
        assert breaker.state is BreakerState.HALF_OPEN
        breaker = advanced(probed(breaker, result), NOTHING, POLICY, now)

    assert (breaker.state, breaker.reason) == (state, reason)
    assert breaker.until == (now + POLICY.open_for if state is BreakerState.OPEN else None)
    assert breaker.probes == NOTHING


def test_two_of_five_probes_decide_nothing() -> None:
    breaker = probed(half_opened(), CallCounts(4, 2))

    assert advanced(breaker, NOTHING, POLICY, START + POLICY.open_for) is breaker


def test_probes_that_nobody_made_are_handed_out_again() -> None:
    began_at = START + POLICY.open_for
    breaker, _ = hand_out_probes(half_opened(), POLICY, workers=1, now=began_at)
    breaker = probed(breaker, CallCounts(2))

    late = began_at + POLICY.probes_lost_after / 2
    assert hand_out_probes(replace(breaker, probes_handed_out=0), POLICY, workers=1, now=late) == (
        replace(breaker, probes_handed_out=0),
        0,
    )
    renewed = advanced(breaker, NOTHING, POLICY, began_at + POLICY.probes_lost_after)

    assert renewed.state is BreakerState.HALF_OPEN
    assert renewed.probe_round == breaker.probe_round + 1
    assert renewed.probes_handed_out == 0
    assert renewed.probes == CallCounts(2)


@pytest.mark.parametrize("breaker", [CLOSED, opened(), half_opened()], ids=lambda b: b.state)
@pytest.mark.parametrize("wanted", BreakerForce)
def test_a_forced_one_stays_as_it_is(breaker: Breaker, wanted: BreakerForce) -> None:
    later = START + timedelta(days=1)
    kept = forced(breaker, wanted, "the bank said so", later)

    assert (kept.state, kept.force, kept.reason) == (wanted.value, wanted, "the bank said so")
    assert kept.until is None
    assert advanced(kept, CallCounts(99, 99), POLICY, later + timedelta(days=1)) is kept


def test_one_that_was_forced_open_begins_with_probes() -> None:
    free = forced(forced(CLOSED, BreakerForce.OPEN, "repair", START), None, "", START)

    assert (free.state, free.force, free.reason) == (BreakerState.HALF_OPEN, None, NO_LONGER_FORCED)


def test_one_that_was_forced_closed_decides_for_itself_from_then_on() -> None:
    free = forced(forced(opened(), BreakerForce.CLOSED, "repair", START), None, "", START)

    assert (free.state, free.force, free.since) == (BreakerState.CLOSED, None, START)
    assert advanced(free, CallCounts(10, 10), POLICY, START).state is BreakerState.OPEN


def test_letting_one_decide_that_does_so_already_changes_nothing() -> None:
    breaker = opened()

    assert forced(breaker, None, "", START) is breaker


def test_a_gateway_says_when_to_come_back() -> None:
    breaker = held(CLOSED, 30, START)

    assert breaker.held_until == START + timedelta(seconds=30)
    assert held(breaker, 10, START) is breaker
    assert held(breaker, 31, START).held_until == START + timedelta(seconds=31)
    assert held(breaker, 10**9, START).held_until == START + HOLD_MAX


def test_an_operator_who_forces_one_closed_does_not_wait_for_the_gateway() -> None:
    breaker = forced(held(CLOSED, 30, START), BreakerForce.CLOSED, "their clock is wrong", START)

    assert breaker.held_until is None
    assert held(breaker, 30, START) is breaker


@given(
    rounds=st.lists(
        st.tuples(st.floats(0, 30), st.integers(0, 30), st.integers(0, 30)), max_size=60
    )
)
def test_however_it_flaps_it_is_open_for_its_time_and_its_rounds_have_few_probes(
    rounds: list[tuple[float, int, int]],
) -> None:
    breaker, now = CLOSED, START
    handed: dict[int, int] = {}
    for seconds, calls, failures in rounds:
        now += timedelta(seconds=seconds)
        seen = CallCounts(calls, min(calls, failures))
        before = breaker
        breaker = advanced(probed(breaker, seen), seen, POLICY, now)
        if before.state is BreakerState.OPEN and breaker is not before:
            assert before.until is not None
            assert now >= before.until
        breaker, got = hand_out_probes(breaker, POLICY, workers=2, now=now)
        handed[breaker.probe_round] = handed.get(breaker.probe_round, 0) + got

    assert all(got <= POLICY.probes for got in handed.values())
