"""What people may do to a subscription, and when they may not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from services.scheduler.domain import commands
from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import (
    CatchUpPolicy,
    CycleState,
    Dunning,
    DunningEnd,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit
from tests.unit.scheduler.world import START, Story, a_plan

DAYS = timedelta(days=1)
FEBRUARY = datetime(2026, 2, 28, 9, tzinfo=UTC)
MARCH = datetime(2026, 3, 31, 9, tzinfo=UTC)


def paid(story: Story) -> Story:
    story.pass_until(START)
    story.pay()
    return story


def pause(story: Story) -> None:
    story.take(commands.pause(story.subscription, story.plan, story.now))


def resume(story: Story) -> None:
    story.take(commands.resume(story.subscription, story.situation()))


def cancel(story: Story, *, at_period_end: bool = False) -> None:
    move = commands.cancel(story.subscription, story.plan, story.now, at_period_end=at_period_end)
    story.take(move)


def trigger(story: Story) -> None:
    story.take(commands.trigger(story.subscription, story.situation()))


def refused(what: Callable[[Story], None], story: Story) -> str:
    with pytest.raises(NotNowError) as caught:
        what(story)
    assert caught.value.details is not None
    return str(caught.value.details["reason"])


def test_a_paused_one_keeps_what_is_paid_and_bills_nothing() -> None:
    story = paid(Story())
    pause(story)
    story.pass_until(FEBRUARY - DAYS)
    assert story.subscription.has_access
    story.pass_until(MARCH + DAYS)
    assert not story.subscription.has_access
    assert len(story.jobs) == 1
    assert refused(pause, story) == "is_paused"


def test_resumed_in_its_period_it_goes_on() -> None:
    story = paid(Story())
    pause(story)
    story.pass_until(START + 5 * DAYS)
    resume(story)
    assert story.state() is SubscriptionState.ACTIVE
    assert story.subscription.due_at == FEBRUARY
    assert len(story.jobs) == 1


def test_resumed_later_the_running_period_is_billed_and_the_others_are_skipped() -> None:
    story = paid(Story(a_plan(catch_up=CatchUpPolicy.EVERY)))
    pause(story)
    story.pass_until(datetime(2026, 5, 5, tzinfo=UTC))
    resume(story)
    assert story.subscription.period_start == datetime(2026, 4, 30, 9, tzinfo=UTC)
    assert story.cycles[FEBRUARY].state is CycleState.SKIPPED
    assert story.cycles[FEBRUARY].periods == 2
    assert len(story.jobs) == 2


def test_resumed_after_dunning_it_is_charged_at_once() -> None:
    story = Story(a_plan(dunning=Dunning((1,), DunningEnd.PAUSE)))
    story.pass_until(START)
    story.fail(kind="card_declined")
    story.pass_until(START + 5 * DAYS)
    assert story.state() is SubscriptionState.PAUSED
    resume(story)
    story.pay()
    assert story.state() is SubscriptionState.ACTIVE
    assert story.subscription.has_access
    assert story.cycles[START].state is CycleState.PAID


def test_resumed_after_dunning_and_its_period_the_old_one_stays_given_up() -> None:
    story = Story(a_plan(dunning=Dunning((1,), DunningEnd.PAUSE)))
    story.pass_until(START)
    story.fail(kind="card_declined")
    story.pass_until(FEBRUARY + DAYS)
    resume(story)
    assert story.cycles[START].state is CycleState.UNCOLLECTIBLE
    assert story.cycles[FEBRUARY].state is CycleState.CHARGING


def test_a_charge_in_flight_outlives_a_pause() -> None:
    story = Story()
    story.pass_until(START)
    pause(story)
    story.pay()
    assert story.state() is SubscriptionState.PAUSED
    assert story.subscription.has_access
    resume(story)
    assert len(story.jobs) == 1


def test_a_trial_may_be_paused_and_resumed() -> None:
    story = Story(a_plan(trial=Interval(IntervalUnit.WEEK, 1)))
    story.pass_until(START + DAYS)
    pause(story)
    story.pass_until(START + 2 * DAYS)
    resume(story)
    assert story.state() is SubscriptionState.TRIALING
    assert story.subscription.due_at == START + 7 * DAYS


def test_cancelled_now_it_loses_access_and_its_charge_is_cancelled() -> None:
    story = paid(Story())
    story.pass_until(FEBRUARY)
    cancel(story)
    assert not story.subscription.has_access
    assert "cancel_charge" in story.messages()
    assert story.subscription.due_at is None
    story.fail(kind="cancelled")
    assert story.cycles[FEBRUARY].state is CycleState.UNCOLLECTIBLE
    assert refused(cancel, story) == "is_cancelled"


def test_money_that_was_on_its_way_when_it_was_cancelled_is_recorded() -> None:
    story = paid(Story())
    story.pass_until(FEBRUARY)
    cancel(story)
    story.pay()
    assert story.cycles[FEBRUARY].state is CycleState.PAID
    assert story.counted()["paid_late"] == 1
    assert story.state() is SubscriptionState.CANCELLED


def test_cancelled_at_its_end_a_period_is_used_up() -> None:
    story = paid(Story())
    cancel(story, at_period_end=True)
    story.pass_until(FEBRUARY - DAYS)
    assert story.subscription.has_access
    story.pass_until(FEBRUARY)
    assert story.state() is SubscriptionState.CANCELLED
    assert len(story.jobs) == 1


def test_a_planned_cancellation_can_be_taken_back() -> None:
    story = paid(Story())
    cancel(story, at_period_end=True)
    story.take(commands.keep(story.subscription, story.plan, story.now))
    story.pass_until(FEBRUARY)
    assert story.state() is SubscriptionState.ACTIVE


def test_only_an_unpaid_period_without_a_charge_can_be_charged_by_hand() -> None:
    story = Story()
    story.pass_until(START)
    assert refused(trigger, story) == "charge_unresolved"
    story.fail(may_still_be_paid=True)
    assert refused(trigger, story) == "may_still_be_paid"
    story.fail(next(iter(story.jobs)))
    trigger(story)
    story.pay()
    assert refused(trigger, story) == "nothing_due"
    cancel(story)
    assert refused(trigger, story) == "is_cancelled"


def test_what_auto_pay_left_can_be_charged_by_hand() -> None:
    story = Story(auto_pay=False)
    story.pass_until(START)
    trigger(story)
    story.pay()
    assert story.state() is SubscriptionState.ACTIVE
    story.pass_until(FEBRUARY)
    assert story.subscription.reason == "auto_pay_off"
    story.take(commands.set_auto_pay(story.subscription, story.plan, story.now, auto_pay=True))
    story.pass_until(FEBRUARY + DAYS)
    assert story.subscription.charging is not None


def test_another_means_of_payment_is_charged_by_dunning_again() -> None:
    story = Story()
    story.pass_until(START)
    story.fail(kind="card_declined")
    story.pass_until(START + DAYS)
    move = commands.set_payment_method(story.subscription, story.plan, "pmt_two", story.now)
    story.take(move)
    story.pass_until(START + 3 * DAYS)
    assert story.subscription.charging is not None


def test_without_its_means_of_payment_nothing_is_charged_any_more() -> None:
    story = paid(Story())
    story.pass_until(FEBRUARY)
    story.fail(retry_after=timedelta(days=1))
    move = commands.lose_payment_method(story.subscription, story.plan, story.now)
    story.take(move)
    assert story.messages()[-1] == "cancel_charge"
    story.fail(kind="cancelled")
    story.pass_until(MARCH)
    assert len(story.jobs) == 2
    assert story.state() is SubscriptionState.CANCELLED
    assert commands.lose_payment_method(story.subscription, story.plan, story.now) is None


def test_another_plan_comes_with_the_next_period_and_can_be_taken_back() -> None:
    story = paid(Story(a_plan(), a_plan(id="pln_other")))
    other = story.plans["pln_other"]
    for wanted, expected in [(other, "pln_other"), (story.plan, None), (other, "pln_other")]:
        move = commands.change_plan(story.subscription, story.plan, wanted, story.now)
        story.take(move)
        assert story.subscription.next_plan_id == expected
    story.pass_until(FEBRUARY)
    assert story.subscription.plan_id == "pln_other"


@pytest.mark.parametrize("policy", [CatchUpPolicy.EVERY, CatchUpPolicy.CURRENT])
def test_whoever_is_asked_decides_what_is_billed(policy: CatchUpPolicy) -> None:
    story = paid(Story(a_plan(catch_up=CatchUpPolicy.ASK)))
    story.wake_at(datetime(2026, 5, 5, tzinfo=UTC))
    move = commands.catch_up(story.subscription, story.situation(), policy)
    story.take(move)
    is_every = policy is CatchUpPolicy.EVERY
    assert story.subscription.period_start == (
        FEBRUARY if is_every else datetime(2026, 4, 30, 9, tzinfo=UTC)
    )
    with pytest.raises(NotNowError):
        commands.catch_up(story.subscription, story.situation(), policy)
    while story.subscription.charging:
        story.pay()
        story.wake_at(story.now)
    assert story.subscription.due_at == datetime(2026, 5, 31, 9, tzinfo=UTC)
    assert len(story.jobs) == (4 if is_every else 2)
