"""Decides, where it is recorded what a gateway said, whether a payment is tried again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain import retries
from services.payments.domain.model import Payment, PaymentState, Verdict
from services.payments.domain.retries import FailedTry, Retry, RetryState
from services.payments.domain.retry_advice import ADVICE
from services.payments.domain.retry_policy import (
    DEFAULT_DELAYS,
    Decision,
    Failure,
    PluginError,
    RetryPolicy,
    doubling,
    kind_of_doubt,
)
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import RESTING, TAKEN, next_state
from services.payments.settings import PaymentsSettings
from services.payments.store import retries as retry_store
from services.payments.store.retries import Standing
from shared.contracts.base import Message
from shared.contracts.payments import (
    RetryCancelled,
    RetryExhausted,
    RetryScheduled,
    RetrySucceeded,
)
from shared.database import Connection
from shared.gateways.interface import Declined, FailureKind, Paid, Pending, Unknown
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from shared.metrics import bound

log = structlog.get_logger()

#: The only answer of a look-up after which an order may be begun anew: nobody knows of it.
NOT_ATTEMPTED: Final = Pending("not_attempted")

#: Age from which a try whose sender never came back is surely not sent any more: twice the longest
#: time in which it may be.
SURE_AFTER: Final = timedelta(seconds=60)

#: On a test clock, waits from this on end with an order: time there does not pass by itself.
WAITS_FOR_ORDER_FROM: Final = timedelta(minutes=1)

_FAILED: Final = frozenset({PaymentState.FAILED, PaymentState.CANCELLED})
#: What happened when the answer to the call that asks for the money was lost.
_LOST: Final = frozenset({"charge_unknown", "checkout_unknown"})

_NEVER_ANSWERED: Final = frozenset(
    {PaymentState.CREATED, PaymentState.UNKNOWN, PaymentState.PENDING}
)


def policy_of(settings: PaymentsSettings) -> RetryPolicy:
    """Return the rules of an installation."""
    return RetryPolicy(
        delays={**DEFAULT_DELAYS, **settings.retry_policy},
        prompt_delays=doubling(settings.payment_retry_delay, settings.payment_retry_attempts),
        tries_max=settings.retry_max_attempts,
        plugin=settings.retry_plugin,
    )


@dataclass(frozen=True, slots=True)
class Decided:
    """A payment as it was, what was said of it, and what that makes of it."""

    before: Payment
    verdict: Verdict
    change: Change


@dataclass(frozen=True, slots=True)
class Planned:
    """A retry as it shall be; None before it when the payment had none."""

    known: Retry | None
    retry: Retry

    @property
    def event(self) -> str | None:
        """What happened to it that others should know; None when it only went on."""
        known, retry = self.known, self.retry
        match retry.state:
            case RetryState.SCHEDULED | RetryState.WAITING:
                is_same = known is not None and known.next_attempt_at == retry.next_attempt_at
                is_question = known is not None and known.asked < retry.asked
                return None if is_same or is_question else "scheduled"
            case RetryState.SUCCEEDED if retry.attempts_made == 0:
                return None  # Money came before any retry was begun.
            case RetryState.RUNNING | RetryState.PARKED:
                return None
            case _:
                return str(retry.state)


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What is to be saved: changes in the order in which they were decided, and retries."""

    changes: list[Change]
    retries: dict[str, Planned] = field(default_factory=dict)
    #: Tries that reached the gateway, or may have, of payments that may be tried again.
    tries: dict[str, int] = field(default_factory=dict)


class RetryPlanner:
    """The rules of one installation, and its chance.

    Args:
        policy: The table, its exceptions and limits.
        jitter: Draws from [0, 1).
    """

    def __init__(self, policy: RetryPolicy, jitter: Callable[[], float]) -> None:
        self.policy = policy
        self.jitter = jitter

    async def plan(
        self, connection: Connection, decided: Sequence[Decided], now: datetime
    ) -> RetryPlan:
        """Look at decided changes before they are saved, and turn some failures into retries.

        Only payments that may be tried again cost a query. Each payment may occur once.
        """
        ours = [each for each in decided if each.change.payment.retries_automatically]
        if not ours:
            return RetryPlan([each.change for each in decided])
        standings = await retry_store.find_standings(
            connection, [each.before.reference for each in ours]
        )
        plan = RetryPlan([])
        for each in decided:
            standing = standings.get(each.before.id)
            planned = None if standing is None else self._plan_one(each, standing, now)
            change = each.change
            if standing is not None:
                plan.tries[each.before.id] = standing.tries
            if planned is not None:
                plan.retries[each.before.id] = planned
                if change.payment.state in _FAILED and planned.retry.is_open:
                    change = _postponed(each)
            plan.changes.append(change)
        return plan

    async def write(
        self, connection: Connection, plan: RetryPlan, saved: Collection[str], now: datetime
    ) -> list[Outgoing]:
        """Save the retries of payments that were saved in this transaction, and announce them."""
        written = [planned for id_, planned in plan.retries.items() if id_ in saved]
        return await self.save(connection, written, now)

    async def save(
        self, connection: Connection, planned: Iterable[Planned], now: datetime
    ) -> list[Outgoing]:
        """Save retries whose payments are locked, and return the messages to publish."""
        messages: list[tuple[Message, str | None]] = []
        for each in planned:
            if each.retry is each.known:
                continue  # All is as it was decided before.
            await retry_store.save_retry(connection, each.retry)
            if (event := each.event) is not None:
                kind = each.retry.kind
                bound(metrics.RETRIES, each.retry.gateway, kind, event).inc()
                messages.append((_message(each.retry, now), None))
        return await outbox.append(connection, messages) if messages else []

    def decide(self, failure: Failure) -> Decision:
        """Ask the policy. A plug-in that fails decides nothing: the table does."""
        jitter = self.jitter()
        try:
            return self.policy.decide(failure, jitter=jitter)
        except PluginError as error:
            # What it did must not undo the record of what the gateway said.
            log.exception("retry_plugin_failed", payment=failure.payment_id, problem=str(error))
            return self.policy.decide_by_table(failure, jitter=jitter)

    def _plan_one(self, each: Decided, standing: Standing, now: datetime) -> Planned | None:
        known = standing.retry
        if known is not None and known.state is RetryState.CANCELLED:
            return None
        after = self._after(each, standing, now)
        if after is None:
            return None
        planned = Planned(known, after)
        if each.before.waits_for_orders and planned.event == "scheduled":
            # Only what is told can be ordered.
            planned = replace(planned, retry=_on_test_clock(after, now))
        return planned

    def _after(self, each: Decided, standing: Standing, now: datetime) -> Retry | None:
        before, state, known = each.before, each.change.payment.state, standing.retry
        is_open = known is not None and known.is_open
        if state in TAKEN or (state is PaymentState.ON_HOLD and isinstance(each.verdict, Paid)):
            return retries.succeeded(known, now) if known is not None and is_open else None
        if state in _FAILED and before.state not in RESTING:
            return self._after_failure(each, standing, now)
        if isinstance(each.verdict, Unknown) and each.change.event in _LOST:
            # Whoever sent it has come back, and says so.
            is_ours = known is None or known.state is RetryState.RUNNING
            return self._after_lost_answer(each.verdict, before, standing, now) if is_ours else None
        is_lost = each.verdict == NOT_ATTEMPTED and before.state in _NEVER_ANSWERED
        is_sure = standing.state == "started" and now - standing.started_at >= SURE_AFTER
        if known is None and is_lost and is_sure:
            # Its sender died before it recorded an answer, and nobody came to repeat the request.
            lost = FailedTry(
                standing.reference, standing.number, FailureKind.NETWORK_ERROR, "not_attempted"
            )
            return retries.after_doubt(None, before, lost, decide=self.decide, now=now)
        return None

    def _after_lost_answer(
        self, verdict: Unknown, payment: Payment, standing: Standing, now: datetime
    ) -> Retry:
        lost = FailedTry(
            standing.reference,
            standing.number,
            kind_of_doubt(verdict.reason),
            verdict.reason,
            verdict.retry_after_seconds,
        )
        return retries.after_doubt(standing.retry, payment, lost, decide=self.decide, now=now)

    def _after_failure(self, each: Decided, standing: Standing, now: datetime) -> Retry:
        verdict, reference, number = each.verdict, standing.reference, standing.number
        if isinstance(verdict, Declined) and verdict.is_final:
            failed = FailedTry(
                reference, number, verdict.kind, verdict.reason, verdict.retry_after_seconds
            )
            return retries.after_failure(
                standing.retry, each.before, failed, decide=self.decide, now=now
            )
        # Its time is over, and the customer may yet find the page: nothing is begun beside it.
        reason = each.change.payment.reason or "expired"
        failed = FailedTry(reference, number, FailureKind.EXPIRED, reason)
        return retries.given_up(standing.retry, each.before, failed, now=now)


def _postponed(each: Decided) -> Change:
    payment = each.change.payment._replace(
        state=next_state(each.before.state, PaymentState.RETRY_SCHEDULED), next_check_at=None
    )
    return replace(each.change, payment=payment, event="retry_scheduled")


def _on_test_clock(retry: Retry, now: datetime) -> Retry:
    due = retry.next_attempt_at
    if retry.state is not RetryState.SCHEDULED or due is None or due - now < WAITS_FOR_ORDER_FROM:
        return retry
    return replace(retry, state=RetryState.WAITING, waits_for=retries.ORDER)


def _message(retry: Retry, now: datetime) -> Message:
    ids = {
        "payment_id": retry.payment_id,
        "customer_id": retry.customer_id,
        "product_id": retry.product_id,
        "amount": retry.amount.minor_units,
        "currency": retry.amount.currency,
        "retries_made": retry.attempts_made,
    }
    match retry.state:
        case RetryState.SUCCEEDED:
            return RetrySucceeded(**ids, succeeded_at=now)
        case RetryState.EXHAUSTED:
            return RetryExhausted(
                **ids,
                kind=retry.kind,
                code=retry.code,
                customer_advice=ADVICE[retry.kind],
                exhausted_at=now,
            )
        case RetryState.CANCELLED:
            return RetryCancelled(**ids, cancelled_at=now)
        case _:
            assert retry.next_attempt_at is not None
            return RetryScheduled(
                **ids, kind=retry.kind, code=retry.code, due_at=retry.next_attempt_at
            )
