"""How the API shows subscriptions, the billing of their periods, and what happened to them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from services.scheduler.domain.model import (
    CycleState,
    Plan,
    Subscription,
    SubscriptionState,
    job_id,
)
from services.scheduler.domain.steps import dunning_due_at
from services.scheduler.store.subscription_views import CycleView, Event, SubscriptionView
from shared.web.bodies import TimeText, time_text
from shared.web.numbered_ids import numbered_id

#: What a person must look at.
Attention = Literal["set_aside", "catch_up_asked"]

#: Ids of what happened to a subscription begin with this.
EVENT_PREFIX = "evt"


class PeriodAnswer(TypedDict):
    """The period that was opened last."""

    number: Annotated[int, Field(description="Counted from 0 at the anchor")]
    start: TimeText
    end: Annotated[TimeText, Field(description="When the next one begins")]
    isPaid: bool


class AccessAnswer(TypedDict):
    """Whether the customer may use the product."""

    isGranted: bool
    graceUntil: Annotated[
        TimeText | None, Field(description="Until when an unpaid period leaves access as it is")
    ]


class DunningStateAnswer(TypedDict):
    """How far the dunning of the present period has come."""

    step: Annotated[int, Field(description="Steps made so far")]
    steps: Annotated[int, Field(description="The last one pauses or cancels the subscription")]
    nextAt: Annotated[TimeText | None, Field(description="Null while a charge is not resolved")]


class ChargeAnswer(TypedDict):
    """The charge whose end is not known. Nothing else is charged meanwhile."""

    paymentId: str
    jobId: str
    retryAt: Annotated[
        TimeText | None, Field(description="On a test clock, when its next try is ordered")
    ]


class CatchUpQuestionAnswer(TypedDict):
    """Periods went by unbilled: `POST …/catch-up` says which are billed."""

    since: TimeText


class SubscriptionAnswer(TypedDict):
    """A subscription."""

    id: Annotated[str, Field(examples=["sub_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    state: SubscriptionState
    reason: Annotated[
        str, Field(description="Why it is in this state", examples=["paid", "insufficient_funds"])
    ]
    attention: Annotated[Attention | None, Field(description="What a person must look at")]
    customerId: str
    productId: str
    planId: str
    nextPlanId: Annotated[str | None, Field(description="Takes over when the next period begins")]
    paymentMethodId: str | None
    autoPay: bool
    timeZone: str
    startAt: TimeText
    anchor: Annotated[TimeText, Field(description="When period 0 begins")]
    endsAfter: Annotated[int | None, Field(description="How many periods are billed in all")]
    periodsBilled: int
    trialEndsAt: Annotated[TimeText | None, Field(description="Null once a period was opened")]
    currentPeriod: Annotated[PeriodAnswer | None, Field(description="Null before the first one")]
    cancelAtPeriodEnd: bool
    nextDueAt: Annotated[
        TimeText | None, Field(description="When there is next something to do by itself")
    ]
    access: AccessAnswer
    dunning: Annotated[DunningStateAnswer | None, Field(description="Null unless it is past due")]
    charge: ChargeAnswer | None
    mayStillBePaid: Annotated[
        bool, Field(description="The last charge failed, but the customer can still pay it")
    ]
    catchUp: CatchUpQuestionAnswer | None
    problem: Annotated[
        str | None, Field(description="Why it is set aside: what is due could not be done")
    ]
    testClockId: str | None
    asOf: Annotated[TimeText | None, Field(description="On a test clock: its own present")]
    metadata: dict[str, str]
    createdAt: TimeText
    updatedAt: TimeText


def render(view: SubscriptionView) -> SubscriptionAnswer:
    """Return a subscription as the API shows it."""
    s = view.subscription
    is_begun = s.period_number >= 0
    asked: CatchUpQuestionAnswer = {"since": time_text(s.period_end)}
    return {
        "id": s.id,
        "state": s.state,
        "reason": s.reason,
        "attention": _attention(view),
        "customerId": s.customer_id,
        "productId": view.plan.product_id,
        "planId": s.plan_id,
        "nextPlanId": s.next_plan_id,
        "paymentMethodId": s.payment_method_id,
        "autoPay": s.auto_pay,
        "timeZone": s.zone,
        "startAt": time_text(s.start_at),
        "anchor": time_text(s.anchor),
        "endsAfter": s.ends_after,
        "periodsBilled": s.periods_opened,
        "trialEndsAt": None if is_begun else time_text(s.period_end),
        "currentPeriod": _period(s) if is_begun else None,
        "cancelAtPeriodEnd": s.cancels_at_period_end,
        "nextDueAt": time_text(s.due_at),
        "access": {
            "isGranted": s.has_access,
            "graceUntil": time_text(s.grace_until if s.is_unpaid and s.has_access else None),
        },
        "dunning": _dunning(s, view.plan),
        "charge": _charge(s.charging, s.retry_at),
        "mayStillBePaid": s.may_still_be_paid,
        "catchUp": asked if s.asks_to_catch_up else None,
        "problem": view.problem,
        "testClockId": s.clock_id,
        "asOf": time_text(s.as_of),
        "metadata": dict(view.metadata),
        "createdAt": time_text(view.created_at),
        "updatedAt": time_text(view.updated_at),
    }


def _attention(view: SubscriptionView) -> Attention | None:
    if view.problem is not None:
        return "set_aside"
    return "catch_up_asked" if view.subscription.asks_to_catch_up else None


def _period(s: Subscription) -> PeriodAnswer:
    return {
        "number": s.period_number,
        "start": time_text(s.period_start),
        "end": time_text(s.period_end),
        "isPaid": not s.is_unpaid,
    }


def _dunning(s: Subscription, plan: Plan) -> DunningStateAnswer | None:
    # While a charge fails for a while there is no dunning: that begins with its last failure.
    if s.state is not SubscriptionState.PAST_DUE or s.failed_at is None:
        return None
    is_resolved = s.charging is None
    return {
        "step": s.dunning_step,
        "steps": len(plan.dunning.days) + 1,
        "nextAt": time_text(dunning_due_at(s, plan) if is_resolved else None),
    }


def _charge(payment_id: str | None, retry_at: datetime | None) -> ChargeAnswer | None:
    if payment_id is None:
        return None
    return {
        "paymentId": payment_id,
        "jobId": job_id(payment_id),
        "retryAt": time_text(retry_at),
    }


class CycleAnswer(TypedDict):
    """The billing of one period; of periods that were skipped one answer may span several."""

    number: Annotated[int, Field(description="Counted from 0 at the anchor")]
    periods: Annotated[int, Field(description="More than 1 only of skipped ones")]
    start: TimeText
    end: TimeText
    state: CycleState
    reason: str | None
    planId: str
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    paymentId: Annotated[
        str | None, Field(description="The last that was asked for it, or that paid it")
    ]
    openedAt: TimeText
    paidAt: TimeText | None


def render_cycle(view: CycleView) -> CycleAnswer:
    """Return the billing of a period as the API shows it."""
    cycle = view.cycle
    return {
        "number": cycle.number,
        "periods": cycle.periods,
        "start": time_text(cycle.period_start),
        "end": time_text(cycle.period_end),
        "state": cycle.state,
        "reason": cycle.reason,
        "planId": view.plan_id,
        "amount": view.amount.minor_units,
        "currency": view.amount.currency,
        "paymentId": cycle.payment_id,
        "openedAt": time_text(view.opened_at),
        "paidAt": time_text(cycle.paid_at),
    }


class EventAnswer(TypedDict):
    """One thing that happened to a subscription."""

    id: Annotated[str, Field(examples=["evt_17"])]
    at: Annotated[TimeText, Field(description="In the subscription's own time")]
    writtenAt: TimeText
    event: Annotated[str, Field(examples=["period_opened", "charge_failed", "paid"])]
    state: Annotated[str, Field(description="Since then")]
    reason: str
    periodStart: TimeText
    paymentId: str | None
    actor: Annotated[str | None, Field(description="The name of the API key that asked for it")]


def render_event(event: Event) -> EventAnswer:
    """Return one thing that happened as the API shows it."""
    return {
        "id": numbered_id(EVENT_PREFIX, event.id),
        "at": time_text(event.at),
        "writtenAt": time_text(event.written_at),
        "event": event.event,
        "state": event.state,
        "reason": event.reason,
        "periodStart": time_text(event.period_start),
        "paymentId": event.payment_id,
        "actor": event.actor,
    }
