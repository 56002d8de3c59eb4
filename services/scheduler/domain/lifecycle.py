"""What happens to a subscription when its time has come.

Every function decides about one subscription as last read, at one moment, and returns what follows.
On a test clock the moment is the time at which it was due, else the present.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.scheduler.domain.model import (
    CatchUpPolicy,
    Count,
    Cycle,
    CycleState,
    DunningEnd,
    Move,
    Plan,
    Situation,
    Subscription,
    SubscriptionState,
)
from services.scheduler.domain.periods import (
    Period,
    Rhythm,
    boundary,
    period_after,
    period_at,
)
from services.scheduler.domain.steps import (
    FUTILE,
    Occasion,
    charge,
    end,
    granted,
    moved,
    present_cycle,
    revoked,
    skipped_cycle,
    why_not_charged,
)
from shared.contracts.base import Message
from shared.contracts.priorities import priority_of
from shared.contracts.scheduler import DunningStepReached, RetryCharge


def take_due(s: Subscription, situation: Situation) -> Move:
    """Do the first thing that is due; what is due after it has the move's next due time.

    The subscription's `due_at` is not after `situation.now`.
    """
    plan, _, now, _ = situation
    if s.cancels_at_period_end and now >= s.period_end:
        return end(s, plan, now, SubscriptionState.CANCELLED, "cancelled_at_period_end")
    if s.charging is not None:
        return _while_charging(s, plan, now)
    match s.state:
        case SubscriptionState.TRIALING if not s.has_access and now < s.period_end:
            after, messages = granted(s, plan, now)
            return moved(s, after, plan, now, "trial_began", messages=messages)
        case SubscriptionState.PAUSED:
            return _revoke(s, plan, now)
        case SubscriptionState.PAST_DUE:
            return _while_past_due(s, situation)
        case _:
            return begin_next_period(s, situation)


def _while_charging(s: Subscription, plan: Plan, now: datetime) -> Move:
    if s.retry_at is None or now < s.retry_at:
        return _revoke(s, plan, now)
    assert s.charging is not None, "a retry is one of a charge"
    order = RetryCharge(payment_id=s.charging, subscription_id=s.id)
    return moved(s, s._replace(retry_at=None), plan, now, "retry_ordered", messages=(order,))


def _while_past_due(s: Subscription, situation: Situation) -> Move:
    plan, _, now, _ = situation
    is_over_grace = s.grace_until is not None and now >= s.grace_until
    if s.has_access and is_over_grace:
        return _revoke(s, plan, now)
    if s.dunning_step >= len(plan.dunning.days):
        return _give_up(s, plan, now)
    after = s._replace(dunning_step=s.dunning_step + 1)
    is_futile = s.may_still_be_paid or s.reason in FUTILE
    if is_futile or why_not_charged(s) is not None:
        message = _dunning_step(after, plan, now, "announced")
        return moved(s, after, plan, now, "dunning_announced", messages=(message,))
    return charge_again(s, after, situation, "dunning")


def _revoke(s: Subscription, plan: Plan, now: datetime) -> Move:
    reason = "paused" if s.state is SubscriptionState.PAUSED else "past_due"
    after, messages = revoked(s, plan, now, reason)
    return moved(s, after, plan, now, "access_revoked", messages=messages)


def begin_next_period(
    s: Subscription, situation: Situation, *, policy: CatchUpPolicy | None = None
) -> Move:
    """Open the period that is to be billed now, by the plan's policy where several went by.

    `policy` is that of whoever decided otherwise. The present period is over and settled.
    """
    plan, next_plan, now, _ = situation
    before = s
    access: tuple[Message, ...] = ()
    if s.ends_after is not None and s.periods_opened >= s.ends_after:
        return end(s, plan, now, SubscriptionState.ENDED, "ran_its_periods")
    if next_plan is not None:
        s = _on_next_plan(s, plan, next_plan)
        if s.has_access and next_plan.product_id != plan.product_id:
            # Whoever follows takes the product before away: one word of it, which none overtakes.
            s, access = granted(s._replace(has_access=False), next_plan, now)
        plan = next_plan
        situation = situation._replace(plan=plan)
    rhythm = s.rhythm(plan)
    first = _following(s, rhythm)
    present = first if now < first.end else period_at(rhythm, now)
    behind = present.number - first.number
    if policy is None:
        is_decided = s.catches_up_until is not None and first.start < s.catches_up_until
        policy = CatchUpPolicy.EVERY if is_decided else plan.catch_up
    if behind > 0 and policy is CatchUpPolicy.ASK:
        after = before._replace(asks_to_catch_up=True, reason="catch_up_asked")
        return moved(before, after, plan, now, "catch_up_asked")
    opened = first
    if policy is CatchUpPolicy.CURRENT:
        opened = present
    elif behind >= plan.catch_up_max:
        number = present.number - plan.catch_up_max + 1
        opened = Period(number, boundary(rhythm, number), boundary(rhythm, number + 1))
        if opened.end <= opened.start:
            opened = period_after(rhythm, number)
    skipped: tuple[Cycle, ...] = ()
    if opened.number > first.number:
        periods = opened.number - first.number
        skipped = (skipped_cycle(first, opened.start, periods, f"catch_up_{policy}"),)
    move = _open(before, s, situation, opened, skipped)
    return replace(move, messages=(*access, *move.messages)) if access else move


def _following(s: Subscription, rhythm: Rhythm) -> Period:
    following = period_after(rhythm, s.period_number)
    if following.start != s.period_end < following.end:
        # The rules of its zone have changed since: what was promised holds, and leaves no gap.
        return following._replace(start=s.period_end)
    return following


def _on_next_plan(s: Subscription, plan: Plan, next_plan: Plan) -> Subscription:
    """Return a subscription under its next plan, from the end of its present period on.

    With the same interval its anchor stays, and with it the day of the month.
    """
    s = s._replace(
        plan_id=next_plan.id,
        next_plan_id=None,
        priority=priority_of(next_plan.amount.minor_units, next_plan.amount.currency),
    )
    if next_plan.interval == plan.interval:
        return s
    return s._replace(anchor=s.period_end, period_number=-1)


def _open(
    before: Subscription,
    s: Subscription,
    situation: Situation,
    period: Period,
    skipped: tuple[Cycle, ...],
) -> Move:
    plan, _, now, _ = situation
    s = s._replace(
        period_number=period.number,
        period_start=period.start,
        period_end=period.end,
        periods_opened=s.periods_opened + 1,
        is_unpaid=True,
        charges_made=0,
        may_still_be_paid=False,
        failed_at=None,
        dunning_step=0,
        grace_until=now + plan.grace,
        asks_to_catch_up=False,
        state=SubscriptionState.ACTIVE,
        reason="period_opened",
    )
    counts = (Count("opened", plan.amount.minor_units),)
    reason = why_not_charged(s)
    if reason is None:
        s, job, cycle, order = charge(s, situation, "period")
        return moved(
            before,
            s,
            plan,
            now,
            "period_opened",
            cycles=(*skipped, cycle._replace(is_new=True)),
            job=job,
            messages=(order,),
            counts=counts,
        )
    s = s._replace(state=SubscriptionState.PAST_DUE, reason=reason, failed_at=now)
    cycle = present_cycle(s, CycleState.UNPAID, reason, None)._replace(is_new=True)
    return moved(before, s, plan, now, "period_opened", cycles=(*skipped, cycle), counts=counts)


def charge_again(
    before: Subscription, s: Subscription, situation: Situation, occasion: Occasion
) -> Move:
    """Ask once more for the money of a period that is unpaid; nothing of it may be charging."""
    plan, _, now, _ = situation
    s, job, cycle, order = charge(s, situation, occasion)
    messages: tuple[Message, ...] = (order,)
    if occasion == "dunning":
        messages += (_dunning_step(s, plan, now, "charged"),)
    event = f"charged_by_{occasion}"
    return moved(before, s, plan, now, event, cycles=(cycle,), job=job, messages=messages)


def _give_up(s: Subscription, plan: Plan, now: datetime) -> Move:
    is_paused = plan.dunning.end is DunningEnd.PAUSE
    last = s._replace(dunning_step=s.dunning_step + 1)
    step = _dunning_step(last, plan, now, "paused" if is_paused else "cancelled")
    if is_paused:
        after = s._replace(state=SubscriptionState.PAUSED, reason="dunning_over")
        after, messages = revoked(after, plan, now, "past_due")
        cycle = present_cycle(s, CycleState.UNCOLLECTIBLE, "dunning_over", None)
        move = moved(s, after, plan, now, "paused", cycles=(cycle,), messages=messages)
    else:
        move = end(s, plan, now, SubscriptionState.CANCELLED, "dunning_over")
    return replace(
        move,
        messages=(step, *move.messages),
        counts=(*move.counts, Count("written_off", plan.amount.minor_units)),
    )


def _dunning_step(s: Subscription, plan: Plan, now: datetime, action: str) -> DunningStepReached:
    return DunningStepReached.model_validate(
        {
            "subscription_id": s.id,
            "customer_id": s.customer_id,
            "product_id": plan.product_id,
            "period_start": s.period_start,
            "amount": plan.amount.minor_units,
            "currency": plan.amount.currency,
            "step": s.dunning_step,
            "steps": len(plan.dunning.days) + 1,
            "action": action,
            "reached_at": now,
        }
    )
