"""Begins what is recorded: asks the gateway for the money, once, and records what it says.

An attempt that a pause or an open breaker keeps back is put off: the gateway surely never heard of
it. It waits in PostgreSQL, and whoever takes it up, a repeated request or a worker, begins it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from opentelemetry.trace import SpanKind

from services.payments import metrics
from services.payments.domain.model import Deferred, Payment, PaymentState, Verdict
from services.payments.domain.settlement import Change, settle
from services.payments.domain.starting import settle_start
from services.payments.domain.state_machine import RESTING
from services.payments.domain.statistics import step
from services.payments.flow.admission import Purpose
from services.payments.flow.charges import fact_of
from services.payments.flow.late_money import give_back
from services.payments.flow.retry_planning import Decided
from services.payments.runtime import (
    VERDICT_NAMES,
    Runtime,
    handle_in,
    measure,
    page_found,
)
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store.attempts import AttemptState, StoredOrder
from shared.contracts.base import Message
from shared.database import Connection
from shared.errors import GatewayUnavailableError
from shared.gateways.interface import (
    ActionRequired,
    Checkout,
    Declined,
    Outcome,
    Paid,
    PaymentGateway,
    Unknown,
)
from shared.gateways.send_deadline import send_within
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing

#: How long after its record a try may be sent. A repeated request, and whoever takes over what a
#: worker left behind, come later than that.
SEND_WITHIN_SECONDS: Final = 30.0

#: How long whoever begins what was put off holds it, by the clock of the database. After that
#: nothing is sent any more, and what was sent is answered or given up.
LEASE_SECONDS: Final = 60.0

#: States in which nothing is begun anew: it has ended, or a notice says that there is money.
BEYOND_START: Final = RESTING | {PaymentState.PROCESSING}


async def begin(runtime: Runtime, gateway: PaymentGateway, stored: StoredOrder) -> Verdict:
    """Ask for the money and record the answer, or that the gateway may not be asked now.

    The caller alone holds the attempt: it has just recorded it, or taken it up.
    """
    asked = await ask_for_money(runtime, gateway, stored)
    verdict = asked.verdict
    if isinstance(verdict, Deferred):
        await record_put_off(runtime, stored, verdict)
    else:
        await record_outcome(runtime, stored, verdict, asked.asked_at, asked.traceparent)
        if stored.is_put_off:
            async with runtime.core.database.connection() as connection:
                await attempt_store.let_go_attempt(connection, stored.order.reference)
    return verdict


@dataclass(frozen=True, slots=True)
class Asked:
    """What became of asking for money."""

    verdict: Verdict
    asked_at: datetime
    traceparent: str | None


async def ask_for_money(
    runtime: Runtime,
    gateway: PaymentGateway,
    stored: StoredOrder,
    *,
    traceparent: str | None = None,
) -> Asked:
    """Ask a gateway, once, for the money of an attempt that the caller alone holds.

    `traceparent` is of the message that wants it, if one does.
    """
    asked_at, order = runtime.core.clock(), stored.order
    with (
        runtime.core.tracing.span(
            "payments.start",
            traceparent=traceparent,
            kind=SpanKind.CLIENT,
            attributes={"payment": stored.payment_id},
        ) as span,
        send_within(SEND_WITHIN_SECONDS),
    ):
        verdict = await runtime.flow.call(
            gateway.name,
            runtime.priority_of(order.amount),
            # To open a page moves no money.
            Purpose.CHECK if isinstance(order.method, Checkout) else Purpose.CHARGE,
            partial(gateway.start, order),
        )
    if not isinstance(verdict, Deferred):
        metrics.CREATED.labels(gateway.name, VERDICT_NAMES[type(verdict)]).inc()
    return Asked(verdict, asked_at, span)


async def record_put_off(runtime: Runtime, stored: StoredOrder, deferred: Deferred) -> None:
    """Commit that a gateway was not asked, why, and when it is tried again."""
    reference, now = stored.order.reference, runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, stored.payment_id)
        await attempt_store.put_off_attempt(connection, reference)
        change = None
        if payment.reference == reference:
            change = settle(payment, deferred, claim=None, now=now)
        if change is not None:
            await payment_store.save_and_announce(connection, [change], {}, now)


async def take_up(runtime: Runtime, payment_id: str, reference: str) -> StoredOrder | None:
    """Take an attempt that was put off, to begin it; None when another has, or it is too late.

    A worker and a repeated request may both want it: one gets it, and as long as it is at work the
    other neither sends it nor asks whether it was sent.
    """
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, payment_id)
        if payment.state in BEYOND_START or payment.reference != reference:
            return None
        is_taken = await attempt_store.take_up_attempt(connection, reference, now, LEASE_SECONDS)
        if not is_taken:
            return None
        stored = (await attempt_store.find_orders(connection, [reference]))[reference]
    return replace(stored, is_put_off=True)


def put_off(deferred: Deferred, now: datetime, payment_id: str) -> GatewayUnavailableError:
    """Return the refusal of a caller who waits, when the gateway is not called at the moment."""
    return GatewayUnavailableError(
        f"the gateway is not called at the moment ({deferred.reason}); "
        "repeat the request with the same key",
        details={"paymentId": payment_id, "reason": deferred.reason},
        retry_after_seconds=max(1, math.ceil((deferred.until - now).total_seconds())),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What a gateway said to an attempt, waiting to be recorded."""

    stored: StoredOrder
    outcome: Outcome
    asked_at: datetime
    traceparent: str | None


async def record_outcome(
    runtime: Runtime,
    stored: StoredOrder,
    outcome: Outcome,
    asked_at: datetime,
    traceparent: str | None,
) -> None:
    """Commit what an answer makes of the attempt and of its payment, and announce it."""
    await record_answers(runtime, [Answer(stored, outcome, asked_at, traceparent)])


async def record_answers(runtime: Runtime, answers: Sequence[Answer]) -> None:
    """Commit what answers make of their attempts and payments, and announce it, all together.

    Each payment may occur once.
    """
    now = runtime.core.clock()
    answers = sorted(answers, key=lambda answer: answer.stored.payment_id)
    async with runtime.core.database.transaction() as connection:
        ids = [answer.stored.payment_id for answer in answers]
        payments = await payment_store.lock_payments(connection, ids)
        decided, unneeded = [], []
        for answer in answers:
            payment = payments[answer.stored.payment_id]
            change = _decide(runtime, payment, answer, now)
            if change is not None:
                decided.append((answer, Decided(payment, answer.outcome, change)))
            elif (message := page_found(answer.stored, answer.outcome)) is not None:
                # A notice was faster than the answer and has decided more than it could.
                unneeded.append((message, answer.traceparent))
        outgoing = await outbox.append(connection, unneeded) if unneeded else []
        changes, sent = await _save(runtime, connection, decided, now)
        outgoing += sent
        await attempt_store.save_attempts(
            connection, [known for answer in answers if (known := _attempt_state(answer))]
        )
    runtime.core.publisher.publish(outgoing)
    for (_, each), change in zip(decided, changes, strict=True):
        measure(each.before, change)


def _decide(runtime: Runtime, payment: Payment, answer: Answer, now: datetime) -> Change | None:
    if payment.reference != answer.stored.order.reference and not isinstance(answer.outcome, Paid):
        return None
    returns_late_money = runtime.settings.late_success_policy == "refund"
    return settle_start(payment, answer.outcome, now=now, returns_late_money=returns_late_money)


async def _save(
    runtime: Runtime,
    connection: Connection,
    decided: Sequence[tuple[Answer, Decided]],
    now: datetime,
) -> tuple[list[Change], list[Outgoing]]:
    """Save what was decided of locked payments; return it as it was saved, and the messages."""
    if not decided:
        return [], []
    plan = await runtime.retries.plan(connection, [each for _, each in decided], now)
    announcements: dict[str, tuple[Message, str | None]] = {}
    steps = []
    for (answer, each), change in zip(decided, plan.changes, strict=True):
        id_ = each.before.id
        message = page_found(answer.stored, answer.outcome) or fact_of(
            each.before,
            change,
            planned=plan.retries.get(id_),
            tries=plan.tries.get(id_, 0),
            asked_at=answer.asked_at,
            now=now,
        )
        if message is not None:
            announcements[id_] = message, answer.traceparent
        steps.append(step(each.before, change, now, since=answer.asked_at))
    saved, outgoing = await payment_store.save_and_announce(
        connection, plan.changes, announcements, now, steps=steps
    )
    outgoing += await runtime.retries.write(connection, plan, saved, now)
    await give_back(connection, runtime.gateways, plan.changes, saved, now)
    return plan.changes, outgoing


def _attempt_state(answer: Answer) -> AttemptState | None:
    """Return what an answer makes of its attempt; None when it did not say."""
    outcome = answer.outcome
    if isinstance(outcome, Unknown):
        return None
    return AttemptState(
        answer.stored.order.reference,
        "refused" if isinstance(outcome, Declined) and outcome.is_final else "open",
        handle_in(outcome),
        outcome.url if isinstance(outcome, ActionRequired) else None,
    )
