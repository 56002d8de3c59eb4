"""How a subscription begins."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from services.scheduler.domain.model import Plan, Subscription, SubscriptionState
from services.scheduler.domain.periods import OutOfTimeError, Rhythm, boundary
from shared.contracts.priorities import priority_of
from shared.errors import InvalidInputError

#: How far in the past a subscription may begin that is not on a test clock: whoever moves here from
#: another system keeps the anchor that way, and a year that was mistyped bills no century.
PAST_MAX: Final = timedelta(days=366)

#: How far in the future, and on a test clock in the past.
FUTURE_MAX: Final = timedelta(days=36_525)


class Wish(NamedTuple):
    """What somebody wants to subscribe to; None where the plan and the present say it."""

    customer_id: str
    payment_method_id: str | None
    start_at: datetime | None
    anchor: datetime | None
    zone: str
    auto_pay: bool
    ends_after: int | None
    clock_id: str | None


def begun(subscription_id: str, wish: Wish, plan: Plan, now: datetime) -> Subscription:
    """Return the new subscription, before anything happened to it.

    `now` is what its test clock shows, if it is on one.

    Raises:
        InvalidInputError: it would begin at a time that may not be; the details name the field.
    """
    start_at = wish.start_at or now
    past_max = PAST_MAX if wish.clock_id is None else FUTURE_MAX
    if start_at < now - past_max:
        raise _wrong("startAt", f"must not be more than {past_max.days} days in the past")
    if start_at > now + FUTURE_MAX:
        raise _wrong("startAt", f"must not be more than {FUTURE_MAX.days} days in the future")
    anchor = _anchor(wish, plan, start_at)
    moment = min(start_at, now)
    return Subscription(
        id=subscription_id,
        customer_id=wish.customer_id,
        plan_id=plan.id,
        next_plan_id=None,
        payment_method_id=wish.payment_method_id,
        state=SubscriptionState.TRIALING,
        reason="created",
        priority=priority_of(plan.amount.minor_units, plan.amount.currency),
        auto_pay=wish.auto_pay,
        zone=wish.zone,
        anchor=anchor,
        start_at=start_at,
        ends_after=wish.ends_after,
        periods_opened=0,
        period_number=-1,
        period_start=start_at,
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
        due_at=start_at,
        clock_id=wish.clock_id,
        as_of=None if wish.clock_id is None else moment,
        version=1,
    )


def _anchor(wish: Wish, plan: Plan, start_at: datetime) -> datetime:
    try:
        earliest = start_at
        if plan.trial is not None:
            earliest = boundary(Rhythm(start_at, wish.zone, plan.trial), 1)
        anchor = wish.anchor or earliest
        if anchor > start_at + FUTURE_MAX:
            raise _wrong("anchor", f"must not be more than {FUTURE_MAX.days} days after the start")
        if anchor < earliest:
            after = "the start" if plan.trial is None else f"the trial of {plan.trial}"
            raise _wrong("anchor", f"must not be before the end of {after}")
        boundary(Rhythm(anchor, wish.zone, plan.interval), 1)
    except OutOfTimeError as error:
        raise _wrong("startAt", str(error)) from error
    return anchor


def _wrong(field: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"{field} {problem}", details={field: problem})
