"""What is counted of subscriptions, and what the counts add up to, against figures made by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta

import pytest

from services.scheduler.domain import commands
from services.scheduler.domain.analytics import (
    LIVING,
    STATE_COUNTS,
    Amount,
    Counted,
    Figures,
    Stream,
    Sum,
    analyse,
    counted,
)
from services.scheduler.domain.model import Move, SubscriptionState
from tests.unit.scheduler.world import START, Story, a_plan

DAY = timedelta(days=1)
JANUARY, FEBRUARY, MARCH = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)
EUROS: Stream = ("stripe", "EUR")
FRANCS: Stream = ("fapshi", "XAF")


def sums_of(moves: list[Move]) -> dict[str, int]:
    """Return how often each thing was counted, whenever and of whatever plan."""
    found: Counter[str] = Counter()
    for each in counted(moves):
        found[each.what] += each.times
    return {what: times for what, times in found.items() if times}


def test_equal_things_of_one_day_and_plan_are_one_row_with_their_money() -> None:
    first, second = Story(id="sub_one"), Story(id="sub_two")
    for story in (first, second):
        story.pass_until(START)
    second.pay()

    rows = counted([*first.moves, *second.moves])

    sums = {"started": (2, 0), "is_active": (2, 0), "opened": (2, 1_000), "paid_at_once": (1, 500)}
    assert set(rows) == {
        Counted(START.date(), first.plan.id, what, is_test=False, times=times, amount=amount)
        for what, (times, amount) in sums.items()
    }


def test_a_move_that_changes_nothing_that_is_counted_leaves_no_row() -> None:
    story = Story()
    story.take(commands.set_auto_pay(story.subscription, story.plan, START, auto_pay=False))

    assert counted(story.moves[1:]) == []


def test_a_subscription_that_recovers_is_counted_in_every_state_it_was_in_and_left() -> None:
    story = Story()
    story.pass_until(START)
    story.fail()
    assert sums_of(story.moves)["is_past_due"] == 1
    story.pass_until(START + DAY)
    story.pay()

    assert sums_of(story.moves) == {
        "started": 1,
        "is_active": 1,
        "opened": 1,
        "failed": 1,
        "paid_by_dunning": 1,
        "recovered": 1,
    }
    by_day = {(each.day, each.what): each.times for each in counted(story.moves)}
    first, second = START.date(), START.date() + DAY
    # On the first day it became active and past due, on the second the other way round.
    assert [by_day.get((first, what)) for what in ("is_active", "is_past_due")] == [None, 1]
    assert [by_day.get((second, what)) for what in ("is_active", "is_past_due")] == [1, -1]


def test_a_subscription_that_nobody_pays_churns() -> None:
    story = Story()
    story.pass_until(START)
    for _ in range(4):
        story.fail()
        story.pass_until(START + 30 * DAY)

    found = sums_of(story.moves)
    assert found.pop("failed") == 4
    assert found == {
        "started": 1,
        "opened": 1,
        "written_off": 1,
        "churned": 1,
        "is_cancelled": 1,
    }


def test_another_plan_takes_a_subscription_from_one_count_to_the_other() -> None:
    story = Story(a_plan(), a_plan(id="pln_other"), next_plan_id="pln_other")
    assert {each.plan_id for each in counted(story.moves)} == {"pln_monthly"}
    story.pass_until(START)

    (move,) = story.moves[1:]
    rows = {(each.plan_id, each.what): each.times for each in counted([move])}
    assert rows == {
        ("pln_monthly", "is_active"): -1,
        ("pln_other", "is_active"): 1,
        ("pln_other", "opened"): 1,
    }


def test_on_a_test_clock_all_is_counted_apart_on_the_day_of_the_clock() -> None:
    story = Story(clock_id="clk_one", as_of=START)
    story.pass_until(START + 40 * DAY)

    assert {each.is_test for each in counted(story.moves)} == {True}
    move = story.moves[-1]
    attached = replace(
        move,
        before=move.before._replace(clock_id=None, as_of=None),
        after=move.before,
        counts=(),
    )
    assert {(each.what, each.is_test, each.times) for each in counted([attached])} == {
        ("is_active", False, -1),
        ("is_active", True, 1),
    }


def sum_(start: date | None, what: str, times: int, amount: int = 0, of: Stream = EUROS) -> Sum:
    return Sum(start, of, what, times, amount)


def test_figures_are_added_up_by_bucket_by_gateway_and_by_currency() -> None:
    card: Stream = ("stripe", "XAF")
    found = analyse(
        [
            sum_(JANUARY, "opened", 4, 2_000),
            sum_(JANUARY, "paid_at_once", 2, 1_000),
            sum_(JANUARY, "paid_by_retry", 1, 500),
            sum_(FEBRUARY, "opened", 4, 2_000),
            sum_(FEBRUARY, "paid_by_dunning", 1, 500),
            sum_(FEBRUARY, "recovered", 1, 500),
            sum_(FEBRUARY, "opened", 1, 5_000, of=FRANCS),
            sum_(FEBRUARY, "paid_at_once", 1, 5_000, of=FRANCS),
            sum_(FEBRUARY, "opened", 1, 7_000, of=card),
        ],
        [],
    )

    paid = ("paid_at_once", "paid_by_retry", "paid_by_dunning")
    assert {key: each.of(*paid) for key, each in found.buckets.items()} == {
        (JANUARY, EUROS): Amount(3, 1_500),
        (FEBRUARY, FRANCS): Amount(1, 5_000),
        (FEBRUARY, EUROS): Amount(1, 500),
        (FEBRUARY, card): Amount(0, 0),
    }
    assert [key for key, _ in found.buckets.items()] == sorted(found.buckets)
    assert found.buckets[JANUARY, EUROS].success_rate == 75
    assert found.streams[EUROS].success_rate == 50
    assert {key: each.of("opened") for key, each in found.currencies.items()} == {
        "EUR": Amount(8, 4_000),
        "XAF": Amount(2, 12_000),
    }, "never across currencies"
    assert found.currencies["XAF"].success_rate == 50


def test_how_many_there_were_is_counted_back_from_how_many_there_are() -> None:
    """In March there are 12 active and 3 past due; 5 began in February, 2 were cancelled."""
    now = [sum_(None, "is_active", 12), sum_(None, "is_past_due", 3), sum_(None, "is_cancelled", 9)]
    found = analyse(
        [
            sum_(JANUARY, "started", 10),
            sum_(JANUARY, "is_active", 10),
            sum_(FEBRUARY, "started", 5),
            sum_(FEBRUARY, "is_active", 1),
            sum_(FEBRUARY, "is_past_due", 2),
            sum_(FEBRUARY, "churned", 2),
            sum_(FEBRUARY, "is_cancelled", 2),
            sum_(None, "is_active", -1),
            sum_(None, "is_past_due", 1),
            sum_(None, "is_cancelled", 1),
        ],
        now,
    )

    before = {key[0]: each.living_before for key, each in found.buckets.items()}
    assert before == {JANUARY: 2, FEBRUARY: 12}
    assert found.buckets[FEBRUARY, EUROS].churn_rate == pytest.approx(100 * 2 / 17)
    assert found.streams[EUROS].living_before == found.currencies["EUR"].living_before == 2
    assert found.streams[EUROS].churn_rate == pytest.approx(100 * 2 / 17)
    assert found.states == {
        SubscriptionState.TRIALING: 0,
        SubscriptionState.ACTIVE: 12,
        SubscriptionState.PAST_DUE: 3,
        SubscriptionState.PAUSED: 0,
        SubscriptionState.CANCELLED: 9,
        SubscriptionState.ENDED: 0,
    }


def test_a_gateway_at_which_nothing_happened_is_shown_with_what_it_has() -> None:
    found = analyse([], [sum_(None, "is_paused", 7, of=FRANCS)])

    assert found.buckets == {}
    assert found.streams[FRANCS] == Figures(living_before=7)
    assert found.currencies["XAF"].churn_rate == 0


def test_of_nothing_there_is_no_rate() -> None:
    assert (Figures().success_rate, Figures().churn_rate) == (None, None)


def test_all_states_are_counted_and_only_those_that_are_over_are_not_alive() -> None:
    over = set(STATE_COUNTS) - set(LIVING)

    assert over == {"is_cancelled", "is_ended"}
    assert len(STATE_COUNTS) == len(SubscriptionState)
