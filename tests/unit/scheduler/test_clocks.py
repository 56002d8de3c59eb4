"""What time it is for a subscription on a test clock, and when it may be put on one."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from services.scheduler.domain.clocks import (
    LAST_MOMENT,
    VirtualClock,
    attached,
    is_in_flight,
    left_without_clock,
    moment_of_command,
    moment_when_due,
)
from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import SubscriptionState
from tests.unit.scheduler.world import START, a_plan, a_subscription

DAY = timedelta(days=1)
PLAN = a_plan()
CLOCK = VirtualClock(
    "clk_1", "a clock", START, None, is_advancing=False, created_at=START, removed_at=None
)
ON_CLOCK = a_subscription(PLAN, clock_id="clk_1", as_of=START, due_at=START + DAY)


def test_a_standing_clock_shows_the_same_whatever_time_it_is() -> None:
    assert CLOCK.moment(START + 100 * DAY) == START


def test_a_running_clock_goes_with_the_real_time_and_never_back() -> None:
    running = CLOCK._replace(runs_since=START + 10 * DAY)

    assert running.moment(START + 12 * DAY) == START + 2 * DAY
    # The clock of the machine was set back meanwhile.
    assert running.moment(START) == START
    assert running._replace(now=LAST_MOMENT).moment(START + 12 * DAY) == LAST_MOMENT


def test_time_stands_still_while_an_answer_is_awaited() -> None:
    charging = ON_CLOCK._replace(charging="pay_1", due_at=None)
    ahead = CLOCK._replace(now=START + 50 * DAY)

    assert is_in_flight(charging)
    assert not is_in_flight(charging._replace(retry_at=START + DAY))
    assert moment_of_command(charging, ahead, START) == START


def test_who_acts_has_the_time_of_the_clock_once_the_subscription_is_there() -> None:
    assert moment_of_command(ON_CLOCK, CLOCK, START) == START
    half = CLOCK._replace(now=START + DAY / 2)
    assert moment_of_command(ON_CLOCK, half, START) == START + DAY / 2
    with pytest.raises(NotNowError) as refused:
        moment_of_command(ON_CLOCK, CLOCK._replace(now=START + DAY), START)
    assert refused.value.details["reason"] == "clock_is_advancing"


def test_what_is_due_happens_when_it_was_due_and_never_before_the_last_thing() -> None:
    assert moment_when_due(ON_CLOCK) == START + DAY
    assert moment_when_due(ON_CLOCK._replace(as_of=START + 2 * DAY)) == START + 2 * DAY


def test_a_subscription_goes_on_from_the_last_thing_that_happened_to_it() -> None:
    alone = a_subscription(PLAN)
    later = CLOCK._replace(now=START + 5 * DAY)

    move = attached(alone, PLAN, later, START, START)

    assert move is not None
    assert (move.after.clock_id, move.after.as_of) == ("clk_1", START)
    assert attached(move.after, PLAN, later, START, START) is None


@pytest.mark.parametrize(
    ("changes", "last", "reason"),
    [
        ({"clock_id": "clk_2", "as_of": START}, START, "is_on_another_clock"),
        ({"charging": "pay_1"}, START, "charge_unresolved"),
        ({}, START + DAY, "clock_is_behind"),
    ],
)
def test_it_is_not_put_where_its_time_would_be_wrong(
    changes: dict[str, object], last: datetime, reason: str
) -> None:
    with pytest.raises(NotNowError) as refused:
        attached(a_subscription(PLAN, **changes), PLAN, CLOCK, last, START)
    assert refused.value.details["reason"] == reason


def test_the_end_of_a_clock_is_the_end_of_what_lives_on_it() -> None:
    move = left_without_clock(ON_CLOCK, PLAN)

    assert move is not None
    assert move.after.state is SubscriptionState.CANCELLED
    assert move.now == START
    assert left_without_clock(move.after, PLAN) is None
