"""What users and operators may do to a subscription, and what follows."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from services.scheduler.domain.lifecycle import begin_next_period, charge_again
from services.scheduler.domain.model import (
    OVER,
    CatchUpPolicy,
    Count,
    CycleState,
    Move,
    Plan,
    Situation,
    Subscription,
    SubscriptionState,
)
from services.scheduler.domain.steps import (
    end,
    granted,
    moved,
    present_cycle,
    why_not_charged,
)
from shared.contracts.base import Message
from shared.contracts.scheduler import CancelCharge, SubscriptionChanged
from shared.errors import ConflictError


class NotNowError(ConflictError):
    """A subscription is not in a state for that; `reason` is a word for programs."""

    code: ClassVar[str] = "not_now"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message, details={"reason": reason})


def _require_alive(s: Subscription) -> None:
    if s.state in OVER:
        raise NotNowError(f"is_{s.state}", f"the subscription is {s.state}; that is for good")


def pause(s: Subscription, plan: Plan, now: datetime) -> Move:
    """Bill nothing until it is resumed; what is paid stays theirs until its period is over.

    A charge in flight goes on to its end.

    Raises:
        NotNowError: it is paused or over.
    """
    _require_alive(s)
    if s.state is SubscriptionState.PAUSED:
        raise NotNowError("is_paused", "the subscription is paused already")
    after = s._replace(
        state=SubscriptionState.PAUSED, reason="paused_by_operator", asks_to_catch_up=False
    )
    return moved(s, after, plan, now, "paused")


def resume(s: Subscription, situation: Situation) -> Move:
    """Bill again, with the anchor unchanged; periods that went by are not billed.

    Raises:
        NotNowError: it is not paused.
    """
    plan, _, now, _ = situation
    _require_alive(s)
    if s.state is not SubscriptionState.PAUSED:
        raise NotNowError("is_not_paused", "the subscription is not paused")
    if s.charging is not None:
        is_late = s.failed_at is not None or s.retry_at is not None
        state = SubscriptionState.PAST_DUE if is_late else SubscriptionState.ACTIVE
        return moved(s, s._replace(state=state, reason="resumed"), plan, now, "resumed")
    if now >= s.period_end:
        # What of the old period is unpaid is given up: it was not theirs to use to the end.
        move = begin_next_period(s, situation, policy=CatchUpPolicy.CURRENT)
        if not s.is_unpaid:
            return move
        given_up = present_cycle(s, CycleState.UNCOLLECTIBLE, "paused", None)
        return replace(move, cycles=(given_up, *move.cycles))
    if s.is_unpaid:
        return _resume_unpaid(s, situation)
    is_trial = s.period_number < 0
    state = SubscriptionState.TRIALING if is_trial else SubscriptionState.ACTIVE
    after = s._replace(state=state, reason="resumed")
    if is_trial and now < s.start_at:
        return moved(s, after, plan, now, "resumed")
    after, messages = granted(after, plan, now)
    return moved(s, after, plan, now, "resumed", messages=messages)


def _resume_unpaid(s: Subscription, situation: Situation) -> Move:
    plan, _, now, _ = situation
    after = s._replace(
        state=SubscriptionState.PAST_DUE,
        reason="resumed",
        failed_at=now,
        dunning_step=0,
        grace_until=now,
    )
    if why_not_charged(s) is None and not s.may_still_be_paid:
        return charge_again(s, after, situation, "trigger")
    cycle = present_cycle(s, CycleState.UNPAID, "resumed", None)
    return moved(s, after, plan, now, "resumed", cycles=(cycle,))


def cancel(s: Subscription, plan: Plan, now: datetime, *, at_period_end: bool) -> Move:
    """End it now, or when the present period is over. A charge in flight is cancelled with it.

    Raises:
        NotNowError: it is over.
    """
    _require_alive(s)
    is_without_period = s.state is SubscriptionState.PAUSED and now >= s.period_end
    if not at_period_end or is_without_period:
        return end(s, plan, now, SubscriptionState.CANCELLED, "cancelled_by_operator")
    after = s._replace(cancels_at_period_end=True, asks_to_catch_up=False)
    return moved(s, after, plan, now, "cancellation_planned")


def keep(s: Subscription, plan: Plan, now: datetime) -> Move:
    """Take back a cancellation at the end of the period.

    Raises:
        NotNowError: it is over.
    """
    _require_alive(s)
    after = s._replace(cancels_at_period_end=False)
    return moved(s, after, plan, now, "cancellation_withdrawn")


def change_plan(s: Subscription, plan: Plan, next_plan: Plan, now: datetime) -> Move:
    """Have another plan from the next period on; the present one takes the change back.

    Raises:
        NotNowError: it is over.
    """
    _require_alive(s)
    after = s._replace(next_plan_id=None if next_plan.id == plan.id else next_plan.id)
    return moved(s, after, plan, now, "plan_change_planned")


def set_auto_pay(s: Subscription, plan: Plan, now: datetime, *, auto_pay: bool) -> Move:
    """Charge periods by themselves, or only when somebody says so.

    Raises:
        NotNowError: it is over.
    """
    _require_alive(s)
    event = "auto_pay_on" if auto_pay else "auto_pay_off"
    return moved(s, s._replace(auto_pay=auto_pay), plan, now, event)


def set_payment_method(s: Subscription, plan: Plan, payment_method_id: str, now: datetime) -> Move:
    """Charge another means of payment from now on; a charge in flight is not changed.

    Raises:
        NotNowError: it is over.
    """
    _require_alive(s)
    after = s._replace(payment_method_id=payment_method_id)
    if s.state is SubscriptionState.PAST_DUE:
        after = after._replace(reason="payment_method_changed")
    return moved(s, after, plan, now, "payment_method_changed")


def lose_payment_method(s: Subscription, plan: Plan, now: datetime) -> Move | None:
    """Take note that its means of payment is erased; None when nothing is asked for any more.

    A charge on its way is cancelled: nobody may be charged by what they took back.
    """
    if s.state in OVER:
        return None
    messages: tuple[Message, ...] = ()
    if s.charging is not None:
        reason = "payment_method_removed"
        messages = (CancelCharge(payment_id=s.charging, subscription_id=s.id, reason=reason),)
    after = s._replace(payment_method_id=None)
    return moved(s, after, plan, now, "payment_method_removed", messages=messages)


def trigger(s: Subscription, situation: Situation) -> Move:
    """Charge the present period now.

    Raises:
        NotNowError: it is paid, or its charge is not resolved, or nothing may be charged.
    """
    _require_alive(s)
    if s.charging is not None:
        problem = f"payment {s.charging} of this period is not resolved"
        raise NotNowError("charge_unresolved", problem)
    if not s.is_unpaid:
        raise NotNowError("nothing_due", "the present period is paid, or none has begun")
    if s.state is SubscriptionState.PAUSED:
        raise NotNowError("is_paused", "the subscription is paused: resume it")
    if s.may_still_be_paid:
        problem = "the customer can still pay the charge before: nothing is charged beside it"
        raise NotNowError("may_still_be_paid", problem)
    if s.payment_method_id is None:
        raise NotNowError("no_payment_method", "the subscription has no means of payment")
    return charge_again(s, s, situation, "trigger")


def catch_up(s: Subscription, situation: Situation, policy: CatchUpPolicy) -> Move:
    """Decide which of the periods are billed that went by; `policy` is not `ask`.

    Raises:
        NotNowError: nobody asks.
    """
    _require_alive(s)
    if not s.asks_to_catch_up:
        raise NotNowError("nothing_asked", "no periods of the subscription wait for a decision")
    until = situation.now if policy is CatchUpPolicy.EVERY else None
    decided = s._replace(catches_up_until=until)
    return replace(begin_next_period(decided, situation, policy=policy), before=s)


def created(s: Subscription, plan: Plan, now: datetime) -> Move:
    """Announce a subscription that was just inserted as `s`, and say when it is first due."""
    message = SubscriptionChanged(
        subscription_id=s.id,
        customer_id=s.customer_id,
        product_id=plan.product_id,
        plan_id=plan.id,
        previous_state=None,
        state=s.state.value,
        reason="created",
        changed_at=now,
    )
    move = moved(s, s, plan, now, "created", messages=(message,), counts=(Count("started"),))
    if move.after.due_at is not None and move.after.due_at < now:
        # It began in the past, but nobody is late: nobody could know.
        return replace(move, after=move.after._replace(due_at=now))
    return move
