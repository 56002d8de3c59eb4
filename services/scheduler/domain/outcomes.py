"""What becomes of a subscription when payments tells how a charge went.

Messages may come twice, late or out of order; every function takes the job and the cycle as they
stand, and does nothing that was done before.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from services.scheduler.domain.model import (
    ACCEPTED,
    OVER,
    RECORDED,
    SENT,
    Charged,
    Count,
    CycleState,
    Job,
    JobStatus,
    Move,
    Plan,
    Subscription,
    SubscriptionState,
)
from services.scheduler.domain.steps import granted, moved
from shared.contracts.base import Message
from shared.contracts.payments import ChargeFailed, ChargeProgressed, ChargeSucceeded
from shared.contracts.scheduler import CancelCharge

#: Failures that are tried again sooner are technical: nobody is past due for their sake.
PAST_DUE_FROM: Final = timedelta(minutes=1)

_ENDED: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


def progressed(
    s: Subscription, plan: Plan, job: Job, message: ChargeProgressed, now: datetime
) -> Move | None:
    """Note how far a charge has come; None when that is known."""
    is_held = message.step == "held"
    progress = ACCEPTED if message.step == "accepted" else SENT
    is_later = message.attempts_made > job.attempts_made
    is_known = progress <= job.progress and not is_later and not is_held
    if job.status in _ENDED or is_known or _is_old(job, message, message.progressed_at):
        return None
    after = job._replace(
        status=JobStatus.DELAYED if is_held else JobStatus.ACTIVE,
        progress=max(progress, job.progress),
        attempts_made=message.attempts_made,
        failed_reason="held_for_review" if is_held else job.failed_reason,
        retry_at=None,
        told_at=message.progressed_at,
    )
    if after == job:
        return None
    return Move(s, s, plan, now, f"charge_{message.step}", job=after)


def _is_old(job: Job, message: ChargeProgressed | ChargeFailed, said_at: datetime) -> bool:
    """Tell whether later news of a charge were heard before: of a later try, or of the same."""
    if message.attempts_made != job.attempts_made:
        return message.attempts_made < job.attempts_made
    return job.told_at is not None and said_at < job.told_at


def succeeded(
    s: Subscription, plan: Plan, charged: Charged, message: ChargeSucceeded, now: datetime
) -> Move | None:
    """Record that the money of a charge is there; None when that is recorded.

    It may come late: after the charge was given up, after the period or the subscription was over.
    """
    job, cycle = charged
    if job.status is JobStatus.COMPLETED:
        return None
    done = job._replace(
        status=JobStatus.COMPLETED,
        progress=RECORDED,
        attempts_made=max(message.attempts_made, job.attempts_made),
        failed_reason=None,
        gateway_reference=message.gateway_payment_id,
        retry_at=None,
        told_at=message.succeeded_at,
        finished_at=now,
    )
    after = _without_charge(s, job.payment_id)
    if cycle.state is CycleState.PAID:
        twice = Count("paid_twice", message.amount)
        return moved(s, after, plan, now, "paid_twice", job=done, counts=(twice,))
    paid = cycle._replace(
        state=CycleState.PAID, reason=None, payment_id=job.payment_id, paid_at=now
    )
    counts: tuple[Count, ...] = (Count(_how_paid(done), message.amount),)
    is_present = s.is_unpaid and job.period_start == s.period_start
    if s.state in OVER or not is_present:
        # The money is there all the same; whether it goes back is for a person to decide.
        counts += (Count("paid_late", message.amount),)
        event = "paid_after_end" if s.state in OVER else "paid_late"
        return moved(s, after, plan, now, event, cycles=(paid,), job=done, counts=counts)
    messages: tuple[Message, ...] = ()
    if after.charging is not None:  # A later charge of the same period is not needed any more.
        messages = (_cancel(s, after.charging),)
    after = after._replace(
        is_unpaid=False,
        may_still_be_paid=False,
        failed_at=None,
        dunning_step=0,
        grace_until=None,
    )
    if s.state is not SubscriptionState.PAUSED:
        was_late = s.state is SubscriptionState.PAST_DUE
        after = after._replace(
            state=SubscriptionState.ACTIVE, reason="recovered" if was_late else "paid"
        )
        counts += (Count("recovered", message.amount),) if was_late else ()
    if s.state is not SubscriptionState.PAUSED or now < s.period_end:
        after, access = granted(after, plan, now)
        messages += access
    return moved(
        s, after, plan, now, "paid", cycles=(paid,), job=done, messages=messages, counts=counts
    )


def _how_paid(job: Job) -> str:
    if job.charge_number > 1:
        return "paid_by_dunning"
    return "paid_at_once" if job.attempts_made <= 1 else "paid_by_retry"


def _without_charge(s: Subscription, payment_id: str) -> Subscription:
    return s._replace(charging=None, retry_at=None) if s.charging == payment_id else s


def _cancel(s: Subscription, payment_id: str) -> CancelCharge:
    return CancelCharge(payment_id=payment_id, subscription_id=s.id, reason="paid_otherwise")


def failed(
    s: Subscription, plan: Plan, charged: Charged, message: ChargeFailed, now: datetime
) -> Move | None:
    """Record that a try failed, and whether another one follows; None when that is known."""
    job, cycle = charged
    if job.status is JobStatus.FAILED:
        return _is_closed_now(s, plan, job, message, now)
    # An end is no older than anything, whatever the clock says of whoever tells it.
    if job.status is JobStatus.COMPLETED or message.attempts_made < job.attempts_made:
        return None
    reason = f"{message.kind}:{message.code}"
    if message.retry_after_seconds is not None:
        return _will_be_retried(s, plan, job, message, now)
    over = job._replace(
        status=JobStatus.FAILED,
        # Also when nobody has told of the steps before.
        progress=max(job.progress, SENT if message.attempts_made else ACCEPTED),
        attempts_made=message.attempts_made,
        failed_reason=reason,
        retry_at=None,
        told_at=message.failed_at,
        finished_at=now,
    )
    counts = (Count("failed", plan.amount.minor_units),)
    after = _without_charge(s, job.payment_id)
    if s.charging != job.payment_id or cycle.state is CycleState.PAID:
        return moved(s, after, plan, now, "charge_failed", job=over, counts=counts)
    after = after._replace(may_still_be_paid=message.may_still_be_paid)
    if s.state in OVER:
        unpaid = cycle._replace(state=CycleState.UNCOLLECTIBLE, reason=s.reason)
    else:
        unpaid = cycle._replace(state=CycleState.UNPAID, reason=reason)
        after = after._replace(failed_at=s.failed_at or now)
        if s.state is not SubscriptionState.PAUSED:
            after = after._replace(state=SubscriptionState.PAST_DUE, reason=message.kind)
    return moved(s, after, plan, now, "charge_failed", cycles=(unpaid,), job=over, counts=counts)


def _is_closed_now(
    s: Subscription, plan: Plan, job: Job, message: ChargeFailed, now: datetime
) -> Move | None:
    """Note that what was still open at the gateway can be paid no more."""
    is_last = job.period_start == s.period_start and job.charge_number == s.charges_made
    is_told = message.retry_after_seconds is None and not message.may_still_be_paid
    if not (s.may_still_be_paid and s.charging is None and is_last and is_told):
        return None
    after = s._replace(may_still_be_paid=False)
    return moved(s, after, plan, now, "charge_closed")


def _will_be_retried(
    s: Subscription, plan: Plan, job: Job, message: ChargeFailed, now: datetime
) -> Move | None:
    if _is_old(job, message, message.failed_at):
        return None
    reason = f"{message.kind}:{message.code}"
    assert message.retry_after_seconds is not None, "a retry has a time"
    wait = timedelta(seconds=message.retry_after_seconds)
    is_on_clock = s.clock_id is not None
    retry_at = (now if is_on_clock else message.failed_at) + wait
    said = (message.attempts_made, message.failed_at, reason)
    is_known = said == (job.attempts_made, job.told_at, job.failed_reason)
    # The same news as before have the same time, unless it is one of a clock that went on.
    if is_known and (is_on_clock or job.retry_at == retry_at):
        return None
    delayed = job._replace(
        status=JobStatus.DELAYED,
        attempts_made=message.attempts_made,
        failed_reason=reason,
        retry_at=retry_at,
        told_at=message.failed_at,
        progress=max(job.progress, SENT),
    )
    after = s
    if s.charging == job.payment_id:
        after = s._replace(retry_at=retry_at if message.waits_for_order else None)
        if s.state is SubscriptionState.ACTIVE and wait >= PAST_DUE_FROM:
            after = after._replace(state=SubscriptionState.PAST_DUE, reason=message.kind)
    return moved(s, after, plan, now, "retry_scheduled", job=delayed)
