"""What happens to a subscription when its time has come, and when a charge has its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.scheduler.domain.model import (
    CatchUpPolicy,
    CycleState,
    Dunning,
    DunningEnd,
    JobStatus,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit
from shared.contracts.scheduler import DunningStepReached
from tests.unit.scheduler.world import START, Story, a_plan

DAYS = timedelta(days=1)
FEBRUARY = datetime(2026, 2, 28, 9, tzinfo=UTC)
MARCH = datetime(2026, 3, 31, 9, tzinfo=UTC)
TRIAL = Interval(IntervalUnit.WEEK, 2)


def test_the_first_period_is_charged_at_once_and_gives_access_when_it_is_paid() -> None:
    story = Story()
    story.pass_until(START)
    assert not story.subscription.has_access
    story.pay()
    assert story.subscription.has_access
    assert story.subscription.due_at == FEBRUARY
    assert story.messages() == ["subscription_changed", "charge_subscription", "access_granted"]


def test_each_period_is_charged_when_it_begins() -> None:
    story = Story()
    for month in range(1, 13):
        story.pass_until(START + 31 * month * DAYS)
        if story.subscription.charging:
            story.pay()
    starts = sorted(story.cycles)
    assert [(start.month, start.day) for start in starts[:4]] == [
        (1, 31),
        (2, 28),
        (3, 31),
        (4, 30),
    ]
    assert {cycle.state for cycle in story.cycles.values()} == {CycleState.PAID}


def test_a_trial_gives_access_and_bills_at_its_end() -> None:
    story = Story(a_plan(trial=TRIAL))
    story.pass_until(START)
    assert story.state() is SubscriptionState.TRIALING
    assert story.subscription.has_access
    assert not story.cycles
    story.pass_until(START + 14 * DAYS)
    assert story.state() is SubscriptionState.ACTIVE
    assert sorted(story.cycles) == [START + 14 * DAYS]


def test_nothing_is_charged_beside_an_unresolved_charge() -> None:
    story = Story()
    story.pass_until(START)
    first = story.charging()
    story.pass_until(START + 100 * DAYS)
    assert story.subscription.charging == first
    assert len(story.cycles) == 1
    story.pay()
    assert story.subscription.due_at == FEBRUARY


@pytest.mark.parametrize(
    ("policy", "billed", "skipped"),
    [(CatchUpPolicy.EVERY, 4, []), (CatchUpPolicy.CURRENT, 1, [3])],
)
def test_after_a_downtime_the_plan_says_what_is_billed(
    policy: CatchUpPolicy, billed: int, skipped: list[int]
) -> None:
    story = Story(a_plan(catch_up=policy))
    story.pass_until(START)
    story.pay()
    story.wake_at(datetime(2026, 6, 5, tzinfo=UTC))  # Those of February, March and April went by.
    while story.subscription.charging:
        story.pay()
        story.wake_at(story.now)
    states = [cycle for _, cycle in sorted(story.cycles.items())]
    assert [cycle.periods for cycle in states if cycle.state is CycleState.SKIPPED] == skipped
    assert sum(cycle.state is CycleState.PAID for cycle in states) == billed + 1
    ends, starts = [c.period_end for c in states[:-1]], [c.period_start for c in states[1:]]
    assert ends == starts
    assert story.subscription.due_at == datetime(2026, 6, 30, 9, tzinfo=UTC)


def test_to_catch_up_has_a_limit() -> None:
    story = Story(a_plan(catch_up=CatchUpPolicy.EVERY, catch_up_max=2))
    story.pass_until(START)
    story.pay()
    story.wake_at(datetime(2026, 6, 5, tzinfo=UTC))
    opened = [cycle for cycle in story.cycles.values() if cycle.state is CycleState.SKIPPED]
    assert [cycle.periods for cycle in opened] == [2]
    story.pay()
    story.wake_at(story.now)
    assert story.subscription.period_start == datetime(2026, 5, 31, 9, tzinfo=UTC)


def test_a_plan_that_asks_bills_nothing_until_somebody_answers() -> None:
    story = Story(a_plan(catch_up=CatchUpPolicy.ASK))
    story.pass_until(START)
    story.pay()
    story.wake_at(datetime(2026, 6, 5, tzinfo=UTC))
    assert story.subscription.asks_to_catch_up
    assert story.subscription.due_at is None
    assert len(story.cycles) == 1


def test_one_period_that_is_a_little_late_is_billed_whatever_the_policy() -> None:
    story = Story(a_plan(catch_up=CatchUpPolicy.ASK))
    story.pass_until(START)
    story.pay()
    story.wake_at(FEBRUARY + 2 * DAYS)
    assert story.subscription.charging is not None


def test_it_ends_after_its_periods() -> None:
    story = Story(ends_after=2)
    story.pass_until(START)
    story.pay()
    story.pass_until(FEBRUARY)
    story.pay()
    story.pass_until(MARCH)
    assert story.state() is SubscriptionState.ENDED
    assert not story.subscription.has_access
    assert story.subscription.due_at is None
    assert len(story.cycles) == 2


def test_another_plan_of_the_same_interval_keeps_the_anchor() -> None:
    story = Story(a_plan(), a_plan(id="pln_other"), next_plan_id="pln_other")
    story.subscription = story.subscription._replace(next_plan_id=None)
    story.pass_until(START)
    story.pay()
    story.subscription = story.subscription._replace(next_plan_id="pln_other")
    story.pass_until(FEBRUARY)
    assert story.subscription.plan_id == "pln_other"
    assert story.subscription.anchor == START
    assert story.subscription.period_end == MARCH


def test_another_interval_begins_at_the_end_of_the_period() -> None:
    weekly = a_plan(id="pln_weekly", interval=Interval(IntervalUnit.WEEK, 1))
    story = Story(a_plan(), weekly)
    story.pass_until(START)
    story.pay()
    story.subscription = story.subscription._replace(next_plan_id="pln_weekly")
    story.pass_until(FEBRUARY)
    assert story.subscription.anchor == FEBRUARY
    assert story.subscription.period_start == FEBRUARY
    assert story.subscription.period_end == FEBRUARY + 7 * DAYS


def test_a_retry_within_a_minute_makes_nobody_past_due() -> None:
    story = Story()
    story.pass_until(START)
    story.fail(kind="network_error", retry_after=timedelta(seconds=2))
    assert story.state() is SubscriptionState.ACTIVE
    assert story.jobs[story.charging()].status is JobStatus.DELAYED


def test_a_later_retry_makes_it_past_due_and_its_success_active() -> None:
    story = Story()
    story.pass_until(START)
    story.fail(retry_after=DAYS)
    assert story.state() is SubscriptionState.PAST_DUE
    story.pass_until(START + DAYS)
    story.pay(attempts=2)
    assert story.state() is SubscriptionState.ACTIVE
    assert story.subscription.anchor == START
    assert story.counted()["paid_by_retry"] == 1


def test_on_a_test_clock_a_retry_is_ordered_when_its_time_comes() -> None:
    story = Story(clock_id="clk_one", as_of=START)
    story.pass_until(START)
    story.fail(retry_after=DAYS)
    assert story.subscription.due_at == START + DAYS
    story.pass_until(START + DAYS)
    assert story.messages()[-1] == "retry_charge"
    assert story.subscription.retry_at is None


def test_access_outlasts_an_unpaid_period_by_the_grace() -> None:
    story = Story(a_plan(grace=5 * DAYS))
    story.pass_until(START)
    story.pay()
    story.pass_until(FEBRUARY)
    story.fail()
    story.pass_until(FEBRUARY + 4 * DAYS)
    assert story.subscription.has_access
    story.pass_until(FEBRUARY + 5 * DAYS)
    assert not story.subscription.has_access


def test_dunning_asks_again_on_its_days_and_then_ends_it() -> None:
    story = Story()
    story.pass_until(START)
    asked = []
    story.fail()
    for day in range(1, 10):
        story.pass_until(START + day * DAYS)
        if story.subscription.charging:
            asked.append(day)
            story.fail()
            story.pass_until(story.now)
    assert asked == [1, 3, 7]
    assert story.state() is SubscriptionState.CANCELLED
    steps = [m for move in story.moves for m in move.messages if isinstance(m, DunningStepReached)]
    assert [(each.step, each.steps, each.action) for each in steps] == [
        (1, 4, "charged"),
        (2, 4, "charged"),
        (3, 4, "charged"),
        (4, 4, "cancelled"),
    ]
    assert next(iter(story.cycles.values())).state is CycleState.UNCOLLECTIBLE


def test_dunning_may_end_in_a_pause() -> None:
    story = Story(a_plan(dunning=Dunning((), DunningEnd.PAUSE)))
    story.pass_until(START)
    story.fail()
    story.pass_until(START + 3 * DAYS)  # Nothing ends before its grace is over.
    assert story.state() is SubscriptionState.PAUSED
    assert not story.subscription.has_access


def test_a_payment_on_the_way_recovers_it_with_its_anchor() -> None:
    story = Story()
    story.pass_until(START)
    story.fail()
    story.pass_until(START + 3 * DAYS)
    story.fail()
    story.pass_until(START + 7 * DAYS)
    story.pay()
    assert story.state() is SubscriptionState.ACTIVE
    assert story.subscription.has_access
    assert story.subscription.due_at == FEBRUARY
    assert story.counted()["paid_by_dunning"] == story.counted()["recovered"] == 1


@pytest.mark.parametrize("kind", ["card_declined", "authentication_failed"])
def test_what_will_not_be_charged_is_not_asked_again(kind: str) -> None:
    story = Story()
    story.pass_until(START)
    story.fail(kind=kind)
    story.pass_until(START + 20 * DAYS)
    assert len(story.jobs) == 1
    assert story.events().count("dunning_announced") == 3
    assert story.state() is SubscriptionState.CANCELLED


def test_nothing_is_charged_beside_what_the_customer_can_still_pay() -> None:
    story = Story()
    story.pass_until(START)
    story.fail(may_still_be_paid=True)
    story.pass_until(START + 2 * DAYS)
    assert len(story.jobs) == 1
    first = next(iter(story.jobs))
    story.fail(first)  # Told again: by now it is closed.
    story.pass_until(START + 3 * DAYS)
    assert len(story.jobs) == 2


def test_without_auto_pay_a_period_is_unpaid_until_somebody_charges_it() -> None:
    story = Story(auto_pay=False)
    story.pass_until(START + 2 * DAYS)
    assert story.state() is SubscriptionState.PAST_DUE
    assert story.subscription.reason == "auto_pay_off"
    assert not story.jobs


def test_money_that_comes_late_pays_its_period() -> None:
    story = Story()
    story.pass_until(START)
    first = story.charging()
    story.fail()
    story.pay(first)
    assert story.state() is SubscriptionState.ACTIVE
    assert story.cycles[START].payment_id == first


def test_late_money_beside_a_further_charge_cancels_that_and_a_second_one_is_told() -> None:
    story = Story()
    story.pass_until(START)
    first = story.charging()
    story.fail()
    story.pass_until(START + DAYS)
    second = story.charging()
    story.pay(first)
    assert "cancel_charge" in story.messages()
    story.pay(second)
    assert story.counted()["paid_twice"] == 1
    assert story.cycles[START].payment_id == first


def test_money_of_a_period_that_was_given_up_is_recorded() -> None:
    story = Story()
    story.pass_until(START)
    first = story.charging()
    story.fail(kind="card_declined")
    story.pass_until(START + 20 * DAYS)
    story.pay(first)
    assert story.state() is SubscriptionState.CANCELLED
    assert not story.subscription.has_access
    assert story.cycles[START].state is CycleState.PAID
    assert story.counted()["paid_late"] == 1


def test_progress_only_grows_and_ends_with_the_job() -> None:
    story = Story()
    story.pass_until(START)
    payment = story.charging()
    seen = [story.jobs[payment].progress]
    for step in ("sent", "accepted", "sent"):
        story.progress(payment, step)
        seen.append(story.jobs[payment].progress)
    story.pay()
    story.progress(payment, "held")
    seen.append(story.jobs[payment].progress)
    assert seen == [10, 50, 50, 50, 100]
    assert story.jobs[payment].gateway_reference == f"gw_{payment}"


def test_a_repeated_outcome_changes_nothing() -> None:
    story = Story()
    story.pass_until(START)
    payment = story.charging()
    story.pay()
    moves = len(story.moves)
    story.pay(payment)
    story.fail(payment)
    assert len(story.moves) == moves


def test_one_that_asks_before_its_first_period_waits_too() -> None:
    story = Story(a_plan(catch_up=CatchUpPolicy.ASK), state=SubscriptionState.TRIALING)
    story.wake_at(datetime(2026, 6, 5, tzinfo=UTC))
    assert story.subscription.asks_to_catch_up
    assert story.subscription.due_at is None


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_zone_whose_rules_change_leaves_no_gap_and_no_overlap(hours: int) -> None:
    story = Story()
    story.pass_until(START)
    story.pay()
    promised = FEBRUARY + timedelta(hours=hours)  # By the rules of that time.
    story.subscription = story.subscription._replace(period_end=promised, due_at=promised)
    story.cycles[START] = story.cycles[START]._replace(period_end=promised)
    story.pass_until(promised)
    assert story.subscription.period_start == promised
    assert story.subscription.period_end == MARCH
