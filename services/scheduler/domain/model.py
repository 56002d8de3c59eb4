"""The nouns of subscriptions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from services.scheduler.domain.periods import Interval, Rhythm
from shared.contracts.base import Message
from shared.contracts.priorities import Priority
from shared.money import Money


class SubscriptionState(StrEnum):
    """Where a subscription stands."""

    #: Nothing is billed before the anchor.
    TRIALING = "trialing"
    ACTIVE = "active"
    #: The present period is not paid.
    PAST_DUE = "past_due"
    #: Nothing is billed until somebody resumes it.
    PAUSED = "paused"
    CANCELLED = "cancelled"
    #: It has run its number of periods.
    ENDED = "ended"


#: States in which nothing ever happens again.
OVER = frozenset({SubscriptionState.CANCELLED, SubscriptionState.ENDED})


class CatchUpPolicy(StrEnum):
    """Which periods are billed that went by unbilled."""

    EVERY = "every"
    CURRENT = "current"
    #: A person decides; nothing is billed until then.
    ASK = "ask"


class DunningEnd(StrEnum):
    """What becomes of a subscription that stays unpaid."""

    PAUSE = "pause"
    CANCEL = "cancel"


class Dunning(NamedTuple):
    """When the money is asked for again, in days after the charge failed, and what comes then."""

    days: tuple[int, ...]
    end: DunningEnd


class Plan(NamedTuple):
    """What is sold, how often and for how much. What is billed by it never changes."""

    id: str
    product_id: str
    product_name: str
    amount: Money
    interval: Interval
    trial: Interval | None
    gateway: str
    #: How long a subscription keeps its access after the time at which an unpaid period was due.
    grace: timedelta
    dunning: Dunning
    catch_up: CatchUpPolicy
    #: Most periods that are billed after each other to catch up, the present one included.
    catch_up_max: int


class Subscription(NamedTuple):
    """A subscription as far as decisions need it.

    The present period is the last that was opened; before the first one its number is -1, and it
    reaches from the start to the anchor.
    """

    id: str
    customer_id: str
    plan_id: str
    #: Takes the place of the plan when the next period begins.
    next_plan_id: str | None
    payment_method_id: str | None
    state: SubscriptionState
    reason: str
    priority: Priority
    #: Whether periods are charged by themselves.
    auto_pay: bool
    zone: str
    #: When period 0 begins.
    anchor: datetime
    start_at: datetime
    #: How many periods are billed in all, and how many were opened.
    ends_after: int | None
    periods_opened: int
    period_number: int
    period_start: datetime
    period_end: datetime
    cancels_at_period_end: bool
    #: Whether the present period is opened and not paid.
    is_unpaid: bool
    #: Charges that were ordered for the present period.
    charges_made: int
    #: The payment that is asked for it and whose end is not known. One at a time, being one field.
    charging: str | None
    #: Of `charging`: when its retry is due that waits for our order. On test clocks only.
    retry_at: datetime | None
    #: Of the last charge: it failed, but the customer can still pay it. Nothing is charged beside.
    may_still_be_paid: bool
    #: The charge failed for good, or nobody charges: when that was, and dunning steps made since.
    failed_at: datetime | None
    dunning_step: int
    grace_until: datetime | None
    has_access: bool
    access_sequence: int
    #: Whether periods went by unbilled and a person must say which are billed.
    asks_to_catch_up: bool
    #: Somebody has said so: periods that began before are billed, one after the other.
    catches_up_until: datetime | None
    #: When there is next something to do by itself; None while something else must happen first.
    due_at: datetime | None
    clock_id: str | None
    #: On a test clock: the moment of the last thing that happened.
    as_of: datetime | None
    version: int

    def rhythm(self, plan: Plan) -> Rhythm:
        """Return when its periods begin under its present plan."""
        return Rhythm(self.anchor, self.zone, plan.interval)


class CycleState(StrEnum):
    """Where the billing of a period stands."""

    CHARGING = "charging"
    UNPAID = "unpaid"
    PAID = "paid"
    #: It went by and is not billed; such a cycle may span several periods.
    SKIPPED = "skipped"
    #: Given up: nobody asks for the money any more.
    UNCOLLECTIBLE = "uncollectible"


class Cycle(NamedTuple):
    """The billing of one period; unique per subscription and start, and kept for good."""

    period_start: datetime
    period_end: datetime
    number: int
    #: More than one only of those that are skipped.
    periods: int
    state: CycleState
    reason: str | None
    #: The payment asked for it last.
    payment_id: str | None
    paid_at: datetime | None = None
    #: Whether it is opened by this move: a second one of its period is refused.
    is_new: bool = False


class JobStatus(StrEnum):
    """Where the work at a charge stands."""

    #: Ordered; payments has not said that it has it.
    WAITING = "waiting"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    #: A retry has a time, or the customer must act.
    DELAYED = "delayed"


#: How far a charge has come, in per cent. What is confirmed (80) is recorded in the same commit.
VALIDATED, ACCEPTED, SENT, RECORDED = 10, 30, 50, 100


class Job(NamedTuple):
    """One charge, as users of queue systems know it. Its id is its payment's, with `job_`."""

    id: str
    subscription_id: str
    payment_id: str
    period_start: datetime
    #: Which charge of its period it is, from 1: dunning makes further ones.
    charge_number: int
    #: What made it: `period`, `dunning`, `trigger`.
    occasion: str
    status: JobStatus
    progress: int
    attempts_made: int
    failed_reason: str | None
    #: The gateway's name for the charge; of x402 the hash of the transaction.
    gateway_reference: str | None
    retry_at: datetime | None
    ordered_at: datetime
    finished_at: datetime | None
    #: When the latest that was heard of it was said, in real time. The news of a try may come in
    #: any order.
    told_at: datetime | None = None


def job_id(payment_id: str) -> str:
    """Return the id of the job that orders a payment."""
    return f"job_{payment_id[4:]}"


class Charged(NamedTuple):
    """A charge as it stands, with the billing it is for."""

    job: Job
    cycle: Cycle


class Situation(NamedTuple):
    """When something is decided, and by which plans."""

    plan: Plan
    #: That of the next period, if it is another one.
    next_plan: Plan | None
    now: datetime
    #: A new id, for the charge that may follow.
    payment_id: str


@dataclass(frozen=True, slots=True)
class Count:
    """Something that statistics count, on the day and for the gateway of the move."""

    #: `started`, `opened`, `paid_at_once`, `paid_by_retry`, `paid_by_dunning`, `paid_late`,
    #: `paid_twice`, `recovered`, `failed` (charges), `written_off`, `churned`.
    what: str
    #: Money of it, in minor units of the plan's currency.
    amount: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """One thing that happened to a subscription, and all that follows from it.

    It is written in one transaction; `before.version` is what it was decided from.
    """

    before: Subscription
    after: Subscription
    #: Of the plan by which it was decided.
    plan: Plan
    now: datetime
    #: What happened, for the history: `period_opened`, `charge_failed`, …
    event: str
    cycles: tuple[Cycle, ...] = ()
    #: A job that is new or has changed.
    job: Job | None = None
    messages: tuple[Message, ...] = ()
    counts: tuple[Count, ...] = ()
