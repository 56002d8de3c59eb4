"""What the API answers about retries: one, one with its tries, and all in figures."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from services.payments.domain.retries import OPEN, Retry, RetryState
from services.payments.domain.retry_advice import ADVICE, Advice
from services.payments.handlers.retries import RetryView
from services.payments.store.retry_lists import RetryGroup
from shared.contracts.priorities import Priority
from shared.gateways.interface import FailureKind
from shared.web.bodies import TimeText, time_text


class AttemptAnswer(TypedDict):
    """A retry that was begun."""

    number: Annotated[int, Field(description="Among all tries of the payment; the first is 1")]
    gatewayReference: str
    dueAt: TimeText
    begunAt: TimeText


class RetryAnswer(TypedDict):
    """The retry of a payment."""

    paymentId: str
    state: RetryState
    gateway: str
    priority: Priority
    customerId: str
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    kind: Annotated[FailureKind, Field(description="Why the last try failed")]
    code: Annotated[str, Field(description="The gateway's own code or words")]
    attemptsMade: Annotated[int, Field(description="Retries that were begun")]
    nextAttemptAt: TimeText | None
    waitsFor: Annotated[
        str | None, Field(description="What keeps it: a pause, an open breaker, a payment on hold")
    ]
    customerAdvice: Annotated[
        Advice | None, Field(description="What to tell the customer, once no other try is made")
    ]
    metadata: dict[str, str]
    createdAt: TimeText
    updatedAt: TimeText
    finishedAt: TimeText | None


class RetryWithAttemptsAnswer(RetryAnswer):
    """The retry of a payment, with every try."""

    attempts: list[AttemptAnswer]


class AmountAnswer(TypedDict):
    """Retries in one currency."""

    currency: str
    retries: int
    amount: Annotated[int, Field(description="Minor units")]
    pendingAmount: Annotated[int, Field(description="Minor units of those that may still be made")]
    recoveredAmount: Annotated[int, Field(description="Minor units of those that succeeded")]


class ErrorAnswer(TypedDict):
    """Retries after one kind of failure."""

    kind: str
    retries: int
    succeeded: int


class RetryStatisticsAnswer(TypedDict):
    """What became of the retries of payments that were created in the last days."""

    days: int
    total: int
    pending: Annotated[int, Field(description="That may still be made: scheduled, running, parked")]
    byState: dict[str, int]
    attempts: Annotated[int, Field(description="Tries that were begun")]
    amounts: list[AmountAnswer]
    errors: list[ErrorAnswer]
    successRate: Annotated[
        float | None, Field(description="Share of those that have ended with success or in vain")
    ]
    averageSeconds: Annotated[
        float | None, Field(description="From the first failure to the success, on average")
    ]


def render_retry(retry: Retry, waits_for: str | None) -> RetryAnswer:
    """Return a retry as the API shows it."""
    is_over = retry.state is RetryState.EXHAUSTED
    return {
        "paymentId": retry.payment_id,
        "state": retry.state,
        "gateway": retry.gateway,
        "priority": retry.priority,
        "customerId": retry.customer_id,
        "amount": retry.amount.minor_units,
        "currency": retry.amount.currency,
        "kind": retry.kind,
        "code": retry.code,
        "attemptsMade": retry.attempts_made,
        "nextAttemptAt": time_text(retry.next_attempt_at),
        "waitsFor": waits_for,
        "customerAdvice": ADVICE[retry.kind] if is_over else None,
        "metadata": dict(retry.metadata),
        "createdAt": time_text(retry.created_at),
        "updatedAt": time_text(retry.updated_at),
        "finishedAt": time_text(retry.finished_at),
    }


def render_view(view: RetryView) -> RetryWithAttemptsAnswer:
    """Return a retry with its tries as the API shows it."""
    return {
        **render_retry(view.retry, view.waits_for),
        "attempts": [
            {
                "number": attempt.number,
                "gatewayReference": attempt.reference,
                "dueAt": time_text(attempt.due_at),
                "begunAt": time_text(attempt.begun_at),
            }
            for attempt in view.attempts
        ],
    }


def render_statistics(days: int, groups: list[RetryGroup]) -> RetryStatisticsAnswer:
    """Return what retries came to as the API shows it."""
    total = sum(group.retries for group in groups)
    by_state = {
        str(state): sum(group.retries for group in groups if group.state == state)
        for state in RetryState
    }
    succeeded, exhausted = by_state[RetryState.SUCCEEDED], by_state[RetryState.EXHAUSTED]
    seconds = sum(group.seconds for group in groups if group.state == RetryState.SUCCEEDED)
    return {
        "days": days,
        "total": total,
        "pending": sum(by_state[state] for state in OPEN),
        "byState": by_state,
        "attempts": sum(group.attempts for group in groups),
        "amounts": [
            _of_currency(currency, groups)
            for currency in sorted({group.currency for group in groups})
        ],
        "errors": [_of_kind(kind, groups) for kind in sorted({group.kind for group in groups})],
        "successRate": succeeded / (succeeded + exhausted) if succeeded + exhausted else None,
        "averageSeconds": seconds / succeeded if succeeded else None,
    }


def _of_currency(currency: str, groups: list[RetryGroup]) -> AmountAnswer:
    ours = [group for group in groups if group.currency == currency]
    return {
        "currency": currency,
        "retries": sum(group.retries for group in ours),
        "amount": sum(group.amount for group in ours),
        "pendingAmount": sum(group.amount for group in ours if group.state in OPEN),
        "recoveredAmount": sum(
            group.amount for group in ours if group.state == RetryState.SUCCEEDED
        ),
    }


def _of_kind(kind: str, groups: list[RetryGroup]) -> ErrorAnswer:
    ours = [group for group in groups if group.kind == kind]
    return {
        "kind": kind,
        "retries": sum(group.retries for group in ours),
        "succeeded": sum(group.retries for group in ours if group.state == RetryState.SUCCEEDED),
    }
