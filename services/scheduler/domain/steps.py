"""The single steps of a subscription's life, of which `lifecycle` and its neighbours make moves."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from services.scheduler.domain.model import (
    OVER,
    VALIDATED,
    Count,
    Cycle,
    CycleState,
    Job,
    JobStatus,
    Move,
    Plan,
    Situation,
    Subscription,
    SubscriptionState,
    job_id,
)
from services.scheduler.domain.periods import Period
from shared.contracts.base import Message
from shared.contracts.scheduler import (
    AccessGranted,
    AccessRevoked,
    CancelCharge,
    ChargeSubscription,
    SubscriptionChanged,
)

#: Why a period is not charged by itself.
AUTO_PAY_OFF: Final = "auto_pay_off"
NO_PAYMENT_METHOD: Final = "no_payment_method"

#: Failures after which the same means of payment will not be charged, ask as often as one may: card
#: networks fine those who do. The customer must give another one, or be present.
FUTILE: Final = frozenset({"card_declined", "authentication_failed"})

Occasion = Literal["period", "dunning", "trigger"]


def due_at(subscription: Subscription, plan: Plan) -> datetime | None:
    """Return when there is next something to do; None while something else must happen first."""
    s = subscription
    if s.state in OVER:
        return None
    times = []
    if s.cancels_at_period_end:
        times.append(s.period_end)
    if s.charging is not None:
        if s.retry_at is not None:
            times.append(s.retry_at)
        if s.state is SubscriptionState.PAST_DUE:
            times += _access_ends(s)
        return min(times, default=None)
    match s.state:
        case SubscriptionState.PAUSED:
            times += _access_ends(s)
        case SubscriptionState.PAST_DUE:
            times += [*_access_ends(s), dunning_due_at(s, plan)]
        case _ if s.asks_to_catch_up:
            pass  # A person must say what is billed.
        case SubscriptionState.TRIALING if not s.has_access:
            times.append(s.start_at)
        case _:
            times.append(s.period_end)
    return min(times, default=None)


def _access_ends(s: Subscription) -> list[datetime]:
    if not s.has_access:
        return []
    return [s.grace_until if s.is_unpaid and s.grace_until is not None else s.period_end]


def dunning_due_at(s: Subscription, plan: Plan) -> datetime:
    """Return when the next dunning step of an unpaid period comes, or after the last one the end.

    Nothing ends before its grace is over.
    """
    assert s.failed_at is not None, "what is past due has failed"
    assert s.grace_until is not None, "an open period has a grace"
    days = plan.dunning.days
    if s.dunning_step < len(days):
        return s.failed_at + timedelta(days=days[s.dunning_step])
    last = s.failed_at + timedelta(days=days[-1] if days else 0)
    return max(last, s.grace_until)


def moved(
    before: Subscription,
    after: Subscription,
    plan: Plan,
    now: datetime,
    event: str,
    *,
    cycles: tuple[Cycle, ...] = (),
    job: Job | None = None,
    messages: tuple[Message, ...] = (),
    counts: tuple[Count, ...] = (),
) -> Move:
    """Return a move, with the next due time and the announcement of a new state filled in."""
    after = after._replace(
        due_at=due_at(after, plan),
        as_of=None if after.clock_id is None else now,
    )
    if after.state is not before.state:
        changed = SubscriptionChanged(
            subscription_id=after.id,
            customer_id=after.customer_id,
            product_id=plan.product_id,
            plan_id=after.plan_id,
            previous_state=before.state.value,
            state=after.state.value,
            reason=after.reason,
            changed_at=now,
        )
        messages = (*messages, changed)
    return Move(before, after, plan, now, event, cycles, job, messages, counts)


def granted(s: Subscription, plan: Plan, now: datetime) -> tuple[Subscription, tuple[Message, ...]]:
    """Give access, unless it is there; return the message that says so."""
    if s.has_access:
        return s, ()
    s = s._replace(has_access=True, access_sequence=s.access_sequence + 1)
    message = AccessGranted(
        subscription_id=s.id,
        customer_id=s.customer_id,
        product_id=plan.product_id,
        sequence=s.access_sequence,
        granted_at=now,
    )
    return s, (message,)


def revoked(
    s: Subscription, plan: Plan, now: datetime, reason: str
) -> tuple[Subscription, tuple[Message, ...]]:
    """Take access away, if it is there; return the message that says so."""
    if not s.has_access:
        return s, ()
    s = s._replace(has_access=False, access_sequence=s.access_sequence + 1)
    message = AccessRevoked(
        subscription_id=s.id,
        customer_id=s.customer_id,
        product_id=plan.product_id,
        sequence=s.access_sequence,
        reason=reason,
        revoked_at=now,
    )
    return s, (message,)


def present_cycle(
    s: Subscription, state: CycleState, reason: str | None, payment_id: str | None
) -> Cycle:
    """Return the billing of the present period as it shall stand."""
    return Cycle(s.period_start, s.period_end, s.period_number, 1, state, reason, payment_id)


def skipped_cycle(first: Period, until: datetime, periods: int, reason: str) -> Cycle:
    """Return what stands for periods that went by and are not billed."""
    return Cycle(
        first.start, until, first.number, periods, CycleState.SKIPPED, reason, None, is_new=True
    )


def why_not_charged(s: Subscription) -> str | None:
    """Return why a period is not charged by itself, or None when it is."""
    if not s.auto_pay:
        return AUTO_PAY_OFF
    return NO_PAYMENT_METHOD if s.payment_method_id is None else None


def charge(
    s: Subscription, situation: Situation, occasion: Occasion
) -> tuple[Subscription, Job, Cycle, ChargeSubscription]:
    """Order the money of the present period; nothing else may be charging."""
    plan, _, now, payment_id = situation
    assert s.charging is None, "one charge at a time"
    assert s.payment_method_id is not None, "there is something to charge"
    s = s._replace(charging=payment_id, charges_made=s.charges_made + 1, may_still_be_paid=False)
    job = Job(
        id=job_id(payment_id),
        subscription_id=s.id,
        payment_id=payment_id,
        period_start=s.period_start,
        charge_number=s.charges_made,
        occasion=occasion,
        status=JobStatus.WAITING,
        progress=VALIDATED,
        attempts_made=0,
        failed_reason=None,
        gateway_reference=None,
        retry_at=None,
        ordered_at=now,
        finished_at=None,
    )
    order = ChargeSubscription(
        payment_id=payment_id,
        subscription_id=s.id,
        payment_method_id=s.payment_method_id or "",
        customer_id=s.customer_id,
        product_id=plan.product_id,
        product_name=plan.product_name,
        gateway=plan.gateway,
        amount=plan.amount.minor_units,
        currency=plan.amount.currency,
        period_start=s.period_start,
        is_on_test_clock=s.clock_id is not None,
    )
    return s, job, present_cycle(s, CycleState.CHARGING, None, payment_id), order


def end(s: Subscription, plan: Plan, now: datetime, state: SubscriptionState, reason: str) -> Move:
    """End a subscription for good. A charge in flight is cancelled; if it is paid, that is told."""
    after = s._replace(state=state, reason=reason, retry_at=None, asks_to_catch_up=False)
    after, messages = revoked(after, plan, now, reason)
    cycles: tuple[Cycle, ...] = ()
    if s.charging is not None:
        cancel = CancelCharge(payment_id=s.charging, subscription_id=s.id, reason=reason)
        messages = (*messages, cancel)
    elif s.is_unpaid:
        cycles = (present_cycle(s, CycleState.UNCOLLECTIBLE, reason, None),)
    is_churn = state is SubscriptionState.CANCELLED
    counts = (Count("churned"),) if is_churn else ()
    return moved(s, after, plan, now, str(state), cycles=cycles, messages=messages, counts=counts)
