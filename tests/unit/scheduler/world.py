"""Subscriptions and plans for tests of the pure core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduler.domain import commands, lifecycle, outcomes
from services.scheduler.domain.model import (
    CatchUpPolicy,
    Charged,
    Cycle,
    CycleState,
    Dunning,
    DunningEnd,
    Job,
    Move,
    Plan,
    Situation,
    Subscription,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit, Rhythm, boundary
from shared.contracts.payments import ChargeFailed, ChargeProgressed, ChargeSucceeded
from shared.contracts.priorities import Priority
from shared.identifiers import new_id
from shared.money import Money

START = datetime(2026, 1, 31, 9, tzinfo=UTC)
MONTH = Interval(IntervalUnit.MONTH, 1)

#: More than any test means to do at once.
STEPS_MAX = 10_000


def a_plan(**changes: Any) -> Plan:
    """Return a monthly plan of 5 EUR: grace of 3 days, dunning after 1, 3 and 7, then cancelled."""
    plan = Plan(
        id="pln_monthly",
        product_id="course",
        product_name="A course",
        amount=Money(500, "EUR"),
        interval=MONTH,
        trial=None,
        gateway="stripe",
        grace=timedelta(days=3),
        dunning=Dunning((1, 3, 7), DunningEnd.CANCEL),
        catch_up=CatchUpPolicy.CURRENT,
        catch_up_max=12,
    )
    return plan._replace(**changes)


def a_subscription(plan: Plan, **changes: Any) -> Subscription:
    """Return a subscription as it is inserted, on the real time."""
    anchor = START
    if plan.trial is not None:
        anchor = boundary(trial_rhythm(plan), 1)
    new = Subscription(
        id="sub_one",
        customer_id="cus_one",
        plan_id=plan.id,
        next_plan_id=None,
        payment_method_id="pmt_one",
        state=SubscriptionState.ACTIVE if plan.trial is None else SubscriptionState.TRIALING,
        reason="created",
        priority=Priority.NORMAL,
        auto_pay=True,
        zone="UTC",
        anchor=anchor,
        start_at=START,
        ends_after=None,
        periods_opened=0,
        period_number=-1,
        period_start=START,
        period_end=anchor,
        cancels_at_period_end=False,
        is_unpaid=False,
        charges_made=0,
        charging=None,
        retry_at=None,
        may_still_be_paid=False,
        failed_at=None,
        dunning_step=0,
        grace_until=None,
        has_access=False,
        access_sequence=0,
        asks_to_catch_up=False,
        catches_up_until=None,
        due_at=None,
        clock_id=None,
        as_of=None,
        version=1,
    )
    return new._replace(**changes)


def trial_rhythm(plan: Plan) -> Rhythm:
    """Return the rhythm of a plan's trial."""
    assert plan.trial is not None
    return a_subscription(plan._replace(trial=None)).rhythm(plan._replace(interval=plan.trial))


class Story:
    """One subscription, its cycles and jobs, and every move it made; time is what tests say."""

    def __init__(self, plan: Plan | None = None, *plans: Plan, **changes: Any) -> None:
        first = plan or a_plan()
        self.plans = {each.id: each for each in (first, *plans)}
        self.cycles: dict[datetime, Cycle] = {}
        self.jobs: dict[str, Job] = {}
        self.moves: list[Move] = []
        self.now = START
        self.subscription = a_subscription(first, **changes)
        self.take(commands.created(self.subscription, first, START))

    @property
    def plan(self) -> Plan:
        """Return its present plan."""
        return self.plans[self.subscription.plan_id]

    def situation(self) -> Situation:
        """Return what a decision needs now."""
        next_id = self.subscription.next_plan_id
        next_plan = None if next_id is None else self.plans[next_id]
        return Situation(self.plan, next_plan, self.now, new_id("pay", self.now))

    def take(self, move: Move | None) -> None:
        """Apply a move as the store does, with the guards of the schema."""
        if move is None:
            return
        assert move.before == self.subscription, "decided from something else"
        for cycle in move.cycles:
            known = self.cycles.get(cycle.period_start)
            assert (known is None) == cycle.is_new, "a period is opened once, before all else"
            if known is not None and known.state in {CycleState.PAID, CycleState.SKIPPED}:
                assert cycle.state is known.state, "what is paid or skipped stays so"
            payment_id = cycle.payment_id or (known.payment_id if known else None)
            self.cycles[cycle.period_start] = cycle._replace(is_new=False, payment_id=payment_id)
        if move.job is not None:
            self.jobs[move.job.payment_id] = move.job
        self.subscription = move.after
        self.moves.append(move)

    def pass_until(self, moment: datetime) -> None:
        """Do all that is due until a moment, each at its time."""
        for _ in range(STEPS_MAX):
            due = self.subscription.due_at
            if due is None or due > moment:
                self.now = moment
                return
            self.now = max(self.now, due)
            self.take(lifecycle.take_due(self.subscription, self.situation()))
        raise AssertionError(f"due for ever: {self.events()[-5:]}")

    def wake_at(self, moment: datetime) -> None:
        """Do all that is due at a moment, after a time in which nobody did anything."""
        self.now = moment
        for _ in range(STEPS_MAX):
            due = self.subscription.due_at
            if due is None or due > moment:
                return
            self.take(lifecycle.take_due(self.subscription, self.situation()))
        raise AssertionError(f"due for ever: {self.events()[-5:]}")

    def charged(self, payment_id: str) -> Charged:
        """Return a charge as it stands."""
        job = self.jobs[payment_id]
        return Charged(job, self.cycles[job.period_start])

    def charging(self) -> str:
        """Return the payment in flight."""
        assert self.subscription.charging is not None, "nothing is charging"
        return self.subscription.charging

    def progress(self, payment_id: str, step: Any, attempts: int = 1) -> None:
        """Hear how far a charge has come."""
        message = ChargeProgressed(
            payment_id=payment_id,
            subscription_id=self.subscription.id,
            attempts_made=attempts,
            step=step,
            progressed_at=self.now,
        )
        job = self.jobs[payment_id]
        self.take(outcomes.progressed(self.subscription, self.plan, job, message, self.now))

    def pay(self, payment_id: str | None = None, attempts: int = 1) -> None:
        """Hear that the money of a charge is there."""
        payment_id = payment_id or self.charging()
        message = ChargeSucceeded(
            payment_id=payment_id,
            subscription_id=self.subscription.id,
            attempts_made=attempts,
            amount=self.plan.amount.minor_units,
            currency=self.plan.amount.currency,
            gateway=self.plan.gateway,
            gateway_payment_id=f"gw_{payment_id}",
            succeeded_at=self.now,
        )
        self.take(
            outcomes.succeeded(
                self.subscription, self.plan, self.charged(payment_id), message, self.now
            )
        )

    def fail(
        self,
        payment_id: str | None = None,
        *,
        kind: str = "insufficient_funds",
        attempts: int = 1,
        retry_after: timedelta | None = None,
        may_still_be_paid: bool = False,
        waits_for_order: bool | None = None,
        failed_at: datetime | None = None,
    ) -> None:
        """Hear that a try of a charge failed, by default at this moment."""
        payment_id = payment_id or self.charging()
        message = ChargeFailed(
            payment_id=payment_id,
            subscription_id=self.subscription.id,
            attempts_made=attempts,
            kind=kind,
            code="51",
            customer_advice="add_funds",
            retry_after_seconds=None if retry_after is None else retry_after.total_seconds(),
            waits_for_order=retry_after is not None and self.subscription.clock_id is not None
            if waits_for_order is None
            else waits_for_order,
            may_still_be_paid=may_still_be_paid,
            failed_at=failed_at or self.now,
        )
        self.take(
            outcomes.failed(
                self.subscription, self.plan, self.charged(payment_id), message, self.now
            )
        )

    def state(self) -> SubscriptionState:
        """Return where the subscription stands."""
        return self.subscription.state

    def events(self) -> list[str]:
        """Return what happened, in order."""
        return [move.event for move in self.moves]

    def counted(self) -> dict[str, int]:
        """Return how often each thing was counted."""
        found: dict[str, int] = {}
        for move in self.moves:
            for count in move.counts:
                found[count.what] = found.get(count.what, 0) + 1
        return found

    def messages(self) -> list[str]:
        """Return the names of what was sent, in order, without their owner and version."""
        return [m.name.split(".")[1] for move in self.moves for m in move.messages]
