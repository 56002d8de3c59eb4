"""Begins what is recorded: asks the gateway for the money, once, and records what it says.

An attempt that a pause or an open breaker keeps back is put off: the gateway surely never heard of
it. It waits in PostgreSQL, and whoever takes it up, a repeated request or a worker, begins it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final

from opentelemetry.trace import SpanKind

from services.payments import metrics
from services.payments.domain.model import Deferred, PaymentState, Verdict
from services.payments.domain.settlement import settle
from services.payments.domain.starting import settle_start
from services.payments.domain.state_machine import RESTING
from services.payments.domain.statistics import step
from services.payments.flow.admission import Purpose
from services.payments.flow.late_money import give_back
from services.payments.flow.retry_planning import Decided
from services.payments.runtime import (
    VERDICT_NAMES,
    Runtime,
    handle_in,
    measure,
    page_found,
    success,
)
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store.attempts import StoredOrder
from shared.contracts.base import Message
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
    asked_at, order = runtime.core.clock(), stored.order
    with (
        runtime.core.tracing.span(
            "payments.start", kind=SpanKind.CLIENT, attributes={"payment": stored.payment_id}
        ) as traceparent,
        send_within(SEND_WITHIN_SECONDS),
    ):
        verdict = await runtime.flow.call(
            gateway.name,
            runtime.priority_of(order.amount),
            # To open a page moves no money.
            Purpose.CHECK if isinstance(order.method, Checkout) else Purpose.CHARGE,
            partial(gateway.start, order),
        )
    if isinstance(verdict, Deferred):
        await _record_put_off(runtime, stored, verdict)
    else:
        await record_outcome(runtime, stored, verdict, asked_at, traceparent)
        metrics.CREATED.labels(gateway.name, VERDICT_NAMES[type(verdict)]).inc()
        if stored.is_put_off:
            async with runtime.core.database.connection() as connection:
                await attempt_store.let_go_attempt(connection, order.reference)
    return verdict


async def _record_put_off(runtime: Runtime, stored: StoredOrder, deferred: Deferred) -> None:
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


async def record_outcome(
    runtime: Runtime,
    stored: StoredOrder,
    outcome: Outcome,
    asked_at: datetime,
    traceparent: str | None,
) -> None:
    """Commit what an answer makes of the attempt and of its payment, and announce it."""
    reference, now = stored.order.reference, runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, stored.payment_id)
        change = None
        if payment.reference == reference or isinstance(outcome, Paid):
            returns_late_money = runtime.settings.late_success_policy == "refund"
            change = settle_start(payment, outcome, now=now, returns_late_money=returns_late_money)
        message: Message | None = page_found(stored, outcome)
        if change is not None and change.is_success:
            message = success(change.payment, asked_at)
        outgoing: list[Outgoing] = []
        if change is not None:
            plan = await runtime.retries.plan(connection, [Decided(payment, outcome, change)], now)
            (change,) = plan.changes
            announcements = {} if message is None else {payment.id: (message, traceparent)}
            _, outgoing = await payment_store.save_and_announce(
                connection,
                [change],
                announcements,
                now,
                steps=[step(payment, change, now, since=asked_at)],
            )
            outgoing += await runtime.retries.write(connection, plan, {payment.id}, now)
            await give_back(connection, runtime.gateways, [change], {payment.id}, now)
        elif message is not None:
            # A notice was faster than the answer and has decided more than it could.
            outgoing = await outbox.append(connection, [(message, traceparent)])
        if not isinstance(outcome, Unknown):
            await attempt_store.save_attempt(
                connection,
                reference,
                state="refused" if isinstance(outcome, Declined) and outcome.is_final else "open",
                handle=handle_in(outcome),
                checkout_url=outcome.url if isinstance(outcome, ActionRequired) else None,
            )
    runtime.core.publisher.publish(outgoing)
    if change is not None:
        measure(payment, change)
