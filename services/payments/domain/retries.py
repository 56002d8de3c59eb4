"""A payment that is tried again, and what a failed try makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from services.payments.domain.model import Payment
from services.payments.domain.retry_policy import (
    Decision,
    Failure,
    GiveUp,
    RetryAfter,
    ask_delay,
)
from shared.contracts.priorities import Priority
from shared.gateways.interface import FailureKind
from shared.money import Money

#: Longest code that is kept.
CODE_LENGTH_MAX: Final = 200


class RetryState(StrEnum):
    """Where the retry of a payment stands."""

    SCHEDULED = "scheduled"
    #: Somebody works on it, or the gateway and the customer do.
    RUNNING = "running"
    #: There were too many; a person may resume it.
    PARKED = "parked"
    #: It is on a test clock, and an order tells when its time has come.
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


#: States in which a retry may still be made.
OPEN: Final = frozenset(
    {RetryState.SCHEDULED, RetryState.RUNNING, RetryState.PARKED, RetryState.WAITING}
)

#: What a retry on a test clock waits for.
ORDER: Final = "order_of_the_scheduler"


@dataclass(frozen=True, slots=True)
class Retry:
    """The retry of one payment."""

    payment_id: str
    state: RetryState
    gateway: str
    priority: Priority
    customer_id: str
    product_id: str
    amount: Money
    kind: FailureKind
    code: str
    failures: Mapping[FailureKind, int]
    attempts_made: int
    #: The try that is known to have moved no money; only it may be followed by another one without
    #: the gateway being asked.
    failed_reference: str | None
    #: The try whose sender came back without an answer, and so sends nothing any more.
    lost_reference: str | None
    asked: int
    continues: bool
    next_attempt_at: datetime | None
    waits_for: str | None
    token: int
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether a retry may still be made."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True)
class FailedTry:
    """Why a try failed, and which one of its payment it was."""

    reference: str
    #: Tries of the payment so far, this one included.
    number: int
    kind: FailureKind
    code: str
    retry_after_seconds: float | None = None


#: The policy as it is asked: chance is drawn and a plug-in's error handled.
Decide: TypeAlias = Callable[[Failure], Decision]


def after_failure(
    known: Retry | None, payment: Payment, failed: FailedTry, *, decide: Decide, now: datetime
) -> Retry:
    """Return the retry after a try failed for good: scheduled, or exhausted.

    A failure that was counted before changes nothing about what was decided then.
    """
    if known is not None and known.failed_reference == failed.reference and known.is_open:
        return _back(known, now)
    retry = _counted(known, payment, failed, now)
    decision = decide(failure_of(payment, retry, failed)) if retry.continues else GiveUp("single")
    if isinstance(decision, GiveUp):
        return exhausted(replace(retry, failed_reference=failed.reference), now)
    return replace(
        retry,
        state=RetryState.SCHEDULED,
        failed_reference=failed.reference,
        next_attempt_at=now + decision.delay,
    )


def _back(known: Retry, now: datetime) -> Retry:
    """Return what was decided after the same failure; what was parked stays so."""
    if known.state is not RetryState.RUNNING:
        return known
    due = known.next_attempt_at or now
    return replace(known, state=RetryState.SCHEDULED, next_attempt_at=due, updated_at=now)


def after_doubt(
    known: Retry | None, payment: Payment, lost: FailedTry, *, decide: Decide, now: datetime
) -> Retry:
    """Return the retry after the answer to a try was lost: the gateway is asked at the next one.

    Only for a try whose sender has come back, or surely will not send it any more. It counts as a
    failure of its kind, so that what never arrives is not sent for ever.
    """
    retry = _counted(known, payment, lost, now)
    decision = decide(failure_of(payment, retry, lost)) if retry.continues else GiveUp("single")
    delay = decision.delay if isinstance(decision, RetryAfter) else ask_delay(0)
    return replace(
        retry,
        state=RetryState.SCHEDULED,
        lost_reference=lost.reference,
        next_attempt_at=now + delay,
    )


def given_up(known: Retry | None, payment: Payment, failed: FailedTry, *, now: datetime) -> Retry:
    """Return the retry of a payment that ended without the gateway saying that it cannot be paid.

    Nothing is begun beside it.
    """
    if known is not None and not known.is_open:
        return known
    return exhausted(_counted(known, payment, failed, now), now)


def after_silence(known: Retry, *, now: datetime) -> Retry:
    """Return the retry after a question about a try in doubt was not answered either."""
    return replace(
        known,
        state=RetryState.SCHEDULED,
        asked=min(known.asked + 1, 1_000),
        next_attempt_at=now + ask_delay(known.asked),
        updated_at=now,
    )


def exhausted(retry: Retry, now: datetime) -> Retry:
    """Return a retry after which no other one is made."""
    return _ended(retry, RetryState.EXHAUSTED, now)


def succeeded(retry: Retry, now: datetime) -> Retry:
    """Return the retry of a payment whose money was taken."""
    return _ended(retry, RetryState.SUCCEEDED, now)


def cancelled(retry: Retry, now: datetime) -> Retry:
    """Return a retry that is not to be made."""
    return _ended(retry, RetryState.CANCELLED, now)


def never(known: Retry | None, payment: Payment, now: datetime) -> Retry:
    """Return the retry of a payment that is tried no more, whatever becomes of the last try."""
    return cancelled(known or _blank(payment, now), now)


def _ended(retry: Retry, state: RetryState, now: datetime) -> Retry:
    return replace(
        retry,
        state=state,
        next_attempt_at=None,
        waits_for=None,
        updated_at=now,
        finished_at=now,
    )


def wanted_by_hand(
    known: Retry | None,
    payment: Payment,
    *,
    kind: FailureKind,
    code: str,
    due_at: datetime,
    now: datetime,
) -> Retry:
    """Return the retry of a payment that a person wants to be tried again.

    The table begins anew; the number of tries, which is limited, goes on.
    """
    retry = known or _blank(payment, now)
    return replace(
        retry,
        state=RetryState.SCHEDULED,
        kind=kind,
        code=code[:CODE_LENGTH_MAX],
        failures={},
        asked=0,
        next_attempt_at=due_at,
        waits_for=None,
        updated_at=now,
        finished_at=None,
    )


def failure_of(payment: Payment, retry: Retry, failed: FailedTry) -> Failure:
    """Return a failed try as the policy and a plug-in see it."""
    return Failure(
        payment_id=payment.id,
        gateway=payment.gateway,
        method=payment.method,
        kind=failed.kind,
        code=failed.code,
        amount=payment.amount.minor_units,
        currency=payment.amount.currency,
        failures_of_kind=retry.failures.get(failed.kind, 0),
        tries=failed.number,
        retry_after_seconds=failed.retry_after_seconds,
    )


def _counted(known: Retry | None, payment: Payment, failed: FailedTry, now: datetime) -> Retry:
    retry = known or _blank(payment, now)
    return replace(
        retry,
        kind=failed.kind,
        code=failed.code[:CODE_LENGTH_MAX],
        failures={**retry.failures, failed.kind: retry.failures.get(failed.kind, 0) + 1},
        asked=0,
        waits_for=None,
        updated_at=now,
        finished_at=None,
    )


def _blank(payment: Payment, now: datetime) -> Retry:
    return Retry(
        payment_id=payment.id,
        state=RetryState.SCHEDULED,
        gateway=payment.gateway,
        priority=payment.priority,
        customer_id=payment.customer_id,
        product_id=payment.product_id,
        amount=payment.amount,
        kind=FailureKind.UNKNOWN_CODE,
        code="",
        failures={},
        attempts_made=0,
        failed_reference=None,
        lost_reference=None,
        asked=0,
        continues=payment.retries_automatically,
        next_attempt_at=None,
        waits_for=None,
        token=0,
        created_at=now,
        updated_at=now,
    )
