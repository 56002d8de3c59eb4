"""Whatever happens to a subscription, in any order: each period is billed once, or on record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.scheduler.domain import commands
from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import (
    OVER,
    CatchUpPolicy,
    CycleState,
    Dunning,
    DunningEnd,
    JobStatus,
    Move,
    Plan,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit, period_at
from shared.contracts.scheduler import AccessGranted, AccessRevoked, ChargeSubscription
from tests.unit.scheduler.world import START, Story, a_plan

INTERVALS = [
    Interval(IntervalUnit.DAY, 1),
    Interval(IntervalUnit.WEEK, 1),
    Interval(IntervalUnit.MONTH, 1),
    Interval(IntervalUnit.HOUR, 36),
]

plans = st.builds(
    a_plan,
    interval=st.sampled_from(INTERVALS),
    trial=st.sampled_from([None, None, Interval(IntervalUnit.DAY, 10)]),
    grace=st.sampled_from([timedelta(0), timedelta(days=3), timedelta(days=40)]),
    dunning=st.builds(Dunning, st.sampled_from([(), (1,), (1, 3, 7)]), st.sampled_from(DunningEnd)),
    catch_up=st.sampled_from(CatchUpPolicy),
    catch_up_max=st.sampled_from([1, 3, 12]),
)


class Life(RuleBasedStateMachine):
    """A subscription in the hands of time, customers, operators and a payments service."""

    @initialize(
        plan=plans,
        other=plans,
        zone=st.sampled_from(["UTC", "Europe/Paris", "Pacific/Apia"]),
        is_on_clock=st.booleans(),
        ends_after=st.sampled_from([None, None, 3]),
        auto_pay=st.sampled_from([True, True, True, False]),
    )
    def begin(
        self,
        plan: Plan,
        other: Plan,
        zone: str,
        *,
        is_on_clock: bool,
        ends_after: int | None,
        auto_pay: bool,
    ) -> None:
        self.story = Story(
            plan,
            other._replace(id="pln_other"),
            zone=zone,
            ends_after=ends_after,
            auto_pay=auto_pay,
            clock_id="clk_one" if is_on_clock else None,
            as_of=START if is_on_clock else None,
        )
        self.paid: list[str] = []

    # What time does.

    @rule(hours=st.integers(0, 24 * 40))
    def time_passes(self, hours: int) -> None:
        self.story.pass_until(self.story.now + timedelta(hours=hours))

    @precondition(lambda self: self.story.subscription.clock_id is None)
    @rule(days=st.integers(1, 200))
    def nobody_works_for_a_while(self, days: int) -> None:
        self.story.wake_at(self.story.now + timedelta(days=days))

    # What payments tells.

    @precondition(lambda self: self.story.subscription.charging is not None)
    @rule(attempts=st.integers(1, 3))
    def the_money_comes(self, attempts: int) -> None:
        payment = self.story.charging()
        attempts = max(attempts, self.story.jobs[payment].attempts_made)
        self.story.pay(payment, attempts=attempts)
        self.paid.append(payment)

    @precondition(lambda self: self.story.subscription.charging is not None)
    @rule(
        kind=st.sampled_from(["insufficient_funds", "card_declined", "network_error"]),
        wait=st.sampled_from([None, None, timedelta(seconds=2), timedelta(days=1)]),
        may_still_be_paid=st.booleans(),
    )
    def a_try_fails(self, kind: str, wait: timedelta | None, *, may_still_be_paid: bool) -> None:
        payment = self.story.charging()
        self.story.fail(
            payment,
            kind=kind,
            attempts=self.story.jobs[payment].attempts_made + 1,
            retry_after=wait,
            may_still_be_paid=may_still_be_paid and wait is None,
        )

    @precondition(lambda self: self.story.jobs)
    @rule(data=st.data(), what=st.sampled_from(["paid", "failed", "accepted", "sent", "held"]))
    def something_comes_late_or_twice(self, data: st.DataObject, what: Any) -> None:
        payment = data.draw(st.sampled_from(sorted(self.story.jobs)))
        job = self.story.jobs[payment]
        if what == "paid":
            self.story.pay(payment, attempts=max(1, job.attempts_made))
            self.paid.append(payment)
        elif what == "failed" and job.status in {JobStatus.FAILED, JobStatus.COMPLETED}:
            self.story.fail(payment, attempts=job.attempts_made)
        elif what in {"accepted", "sent", "held"}:
            self.story.progress(payment, what, attempts=job.attempts_made)

    # What people do.

    @rule(
        what=st.sampled_from(
            [
                *("pause", "resume", "resume", "trigger", "cancel_later", "keep", "other_plan"),
                *("same_plan", "auto_pay", "no_auto_pay", "method", "bill_every", "bill_current"),
            ]
        )
    )
    def somebody_does_something(self, what: str) -> None:
        try:
            move = self._do(what)
        except NotNowError:
            return
        self.story.take(move)

    @rule(really=st.sampled_from([False, False, False, True]))
    def somebody_cancels(self, *, really: bool) -> None:
        story = self.story
        if really and story.state() not in OVER:
            story.take(
                commands.cancel(story.subscription, story.plan, story.now, at_period_end=False)
            )

    def _do(self, what: str) -> Move:
        story = self.story
        s, plan, now, situation = story.subscription, story.plan, story.now, story.situation()
        other = story.plans["pln_other"]
        moves: dict[str, Callable[[], Move]] = {
            "pause": lambda: commands.pause(s, plan, now),
            "resume": lambda: commands.resume(s, situation),
            "trigger": lambda: commands.trigger(s, situation),
            "cancel_later": lambda: commands.cancel(s, plan, now, at_period_end=True),
            "keep": lambda: commands.keep(s, plan, now),
            "other_plan": lambda: commands.change_plan(s, plan, other, now),
            "same_plan": lambda: commands.change_plan(s, plan, plan, now),
            "auto_pay": lambda: commands.set_auto_pay(s, plan, now, auto_pay=True),
            "no_auto_pay": lambda: commands.set_auto_pay(s, plan, now, auto_pay=False),
            "method": lambda: commands.set_payment_method(s, plan, "pmt_two", now),
            "bill_every": lambda: commands.catch_up(s, situation, CatchUpPolicy.EVERY),
            "bill_current": lambda: commands.catch_up(s, situation, CatchUpPolicy.CURRENT),
        }
        return moves[what]()

    # What must always hold.

    @invariant()
    def periods_follow_each_other(self) -> None:
        cycles = [cycle for _, cycle in sorted(self.story.cycles.items())]
        ends = [cycle.period_end for cycle in cycles]
        assert ends[:-1] == [cycle.period_start for cycle in cycles[1:]]
        if cycles:
            assert ends[-1] == self.story.subscription.period_end

    @invariant()
    def what_was_billed_begins_on_the_beat(self) -> None:
        s = self.story.subscription
        if s.period_number >= 0:
            period = period_at(s.rhythm(self.story.plan), s.period_start)
            assert (period.start, period.end) == (s.period_start, s.period_end)

    @invariant()
    def money_is_where_it_belongs(self) -> None:
        story = self.story
        once = set(self.paid)
        paid = [cycle for cycle in story.cycles.values() if cycle.state is CycleState.PAID]
        assert len(once) == len(paid) + story.counted().get("paid_twice", 0)
        done = {job.payment_id for job in story.jobs.values() if job.status is JobStatus.COMPLETED}
        assert done == once
        assert {cycle.payment_id for cycle in paid} <= once

    @invariant()
    def nothing_is_asked_for_that_is_paid(self) -> None:
        story, asked = self.story, set()
        for move in story.moves:
            for message in move.messages:
                if isinstance(message, ChargeSubscription):
                    assert message.payment_id not in asked
                    asked.add(message.payment_id)
                    assert move.before.charging is None
        open_jobs = [
            job
            for job in story.jobs.values()
            if job.status not in {JobStatus.COMPLETED, JobStatus.FAILED}
        ]
        charging = story.subscription.charging
        # A charge that was cancelled, its period being paid otherwise, has its end yet to come.
        assert charging is None or charging in {job.payment_id for job in open_jobs}

    @invariant()
    def it_always_waits_for_something(self) -> None:
        s = self.story.subscription
        if s.state in OVER:
            assert s.due_at is None
            assert not s.has_access
        elif s.state is not SubscriptionState.PAUSED:
            assert s.due_at is not None or s.charging is not None or s.asks_to_catch_up
        if s.state is SubscriptionState.PAST_DUE:
            assert s.is_unpaid
        if s.state is SubscriptionState.ACTIVE and not s.is_unpaid and s.period_number >= 0:
            assert s.has_access

    @invariant()
    def the_word_on_access_is_the_last_one_sent(self) -> None:
        said = [
            message
            for move in self.story.moves
            for message in move.messages
            if isinstance(message, AccessGranted | AccessRevoked)
        ]
        s = self.story.subscription
        assert [message.sequence for message in said] == list(range(1, len(said) + 1))
        assert s.access_sequence == len(said)
        assert s.has_access == (bool(said) and isinstance(said[-1], AccessGranted))


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
