"""A payment as users of queue systems know it: a job that waits, runs, is done or has failed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from services.payments.domain.model import PaymentState
from services.payments.domain.statistics import COMPLETED, FAILED


class JobState(StrEnum):
    """Where the work at a payment stands."""

    #: Its next step is due, and nobody has taken it.
    WAITING = "waiting"
    #: A process works at it: calls its gateway, or will in a moment.
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    #: Its next step has a time that is not yet there: a look at the gateway, a retry.
    DELAYED = "delayed"
    #: A person must look.
    HELD = "held"


class JobFacts(NamedTuple):
    """What decides how a payment stands as a job."""

    state: PaymentState
    next_check_at: datetime | None
    is_leased: bool
    #: Of its retry, if it has one: `scheduled`, `running`, `parked`, …
    retry_state: str | None
    retry_at: datetime | None


def job_state(facts: JobFacts, now: datetime) -> JobState:
    """Return how a payment stands as a job."""
    if facts.state in COMPLETED:
        return JobState.COMPLETED
    if facts.state in FAILED:
        return JobState.FAILED
    if facts.state is PaymentState.ON_HOLD:
        return JobState.HELD
    if facts.is_leased or facts.retry_state == "running":
        return JobState.ACTIVE
    if _is_due(facts, now):
        return JobState.WAITING
    # Recorded, and not looked at yet: the process that recorded it calls the gateway now.
    return JobState.ACTIVE if facts.state is PaymentState.CREATED else JobState.DELAYED


def next_step_at(facts: JobFacts) -> datetime | None:
    """Return when the next step of a payment is due; None when none is planned."""
    if facts.state in COMPLETED or facts.state is PaymentState.ON_HOLD:
        return None
    times = [facts.next_check_at]
    if facts.retry_state == "scheduled":
        times.append(facts.retry_at)
    return min((time for time in times if time is not None), default=None)


def _is_due(facts: JobFacts, now: datetime) -> bool:
    due = next_step_at(facts)
    return due is not None and due <= now


def finished_at(
    history: Sequence[tuple[datetime, PaymentState]], state: PaymentState
) -> datetime | None:
    """Return when a payment came to the end it is at; None while it is at none.

    Args:
        history: When it was in which state, in the order of its story.
        state: The present one.
    """
    if state not in COMPLETED | FAILED:
        return None
    ends = COMPLETED if state in COMPLETED else FAILED
    finished = None
    for at, then in reversed(history):
        if then not in ends:
            break
        finished = at
    return finished
