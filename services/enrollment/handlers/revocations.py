"""Takes away what was paid for by money that went back, by the operator's policy.

Whatever changes an enrollment locks it first, and then what is known of its payments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from services.enrollment import metrics
from services.enrollment.domain.model import Enrollment, EnrollmentState
from services.enrollment.domain.revocation import (
    REFUND,
    Cause,
    News,
    Reversal,
    Revocation,
    are_late,
    step_of_news,
    step_when_due,
)
from services.enrollment.runtime import Runtime
from services.enrollment.store import enrollments as enrollment_store
from services.enrollment.store import revocations as revocation_store
from shared.contracts.payments import DisputeLost, DisputeWon, PaymentRefunded, RefundReturned
from shared.database import Connection
from shared.errors import DatabaseUnavailableError
from shared.messaging.receiver import Delivery

log = structlog.get_logger()

#: Revocations that are looked at together.
BATCH_MAX: Final = 100

#: Pause when nothing is due; a grace is a matter of days.
INTERVAL_SECONDS: Final = 1.0

_EVENTS: Final = {
    Cause.REFUNDED: "revoked_after_refund",
    Cause.DISPUTE_LOST: "revoked_after_dispute",
}


async def hear_of_refunds(
    runtime: Runtime, deliveries: Sequence[Delivery[PaymentRefunded]]
) -> None:
    """Take note of payments of which nothing is left; a partial refund changes nothing here."""
    for delivery in deliveries:
        message = delivery.message
        if message.is_full:
            news = News(
                message.payment_id,
                REFUND,
                Cause.REFUNDED,
                message.customer_id,
                message.product_id,
                message.refunded_at,
            )
            await _hear(runtime, news, delivery.traceparent)
        delivery.done()


async def hear_of_returns(runtime: Runtime, deliveries: Sequence[Delivery[RefundReturned]]) -> None:
    """Take note of refunds that came back: the payment is paid again, at least in part."""
    for delivery in deliveries:
        message = delivery.message
        news = News(
            message.payment_id,
            REFUND,
            Cause.REFUND_RETURNED,
            message.customer_id,
            message.product_id,
            message.returned_at,
        )
        await _hear(runtime, news, delivery.traceparent)
        delivery.done()


async def hear_of_disputes(
    runtime: Runtime, deliveries: Sequence[Delivery[DisputeLost | DisputeWon]]
) -> None:
    """Take note of how disputes were decided; one may be decided more than once."""
    for delivery in deliveries:
        message = delivery.message
        is_lost = isinstance(message, DisputeLost)
        news = News(
            message.payment_id,
            message.dispute_id,
            Cause.DISPUTE_LOST if is_lost else Cause.DISPUTE_WON,
            message.customer_id,
            message.product_id,
            message.noticed_at,
        )
        await _hear(runtime, news, delivery.traceparent)
        delivery.done()


async def revoke_due_for_ever(runtime: Runtime) -> None:
    """Take away, for ever, what is due."""
    while True:
        looked_at = 0
        try:
            looked_at = await revoke_due(runtime)
        except DatabaseUnavailableError as error:
            log.warning("revocations_wait", reason=error.message)
        if looked_at < BATCH_MAX:
            await asyncio.sleep(INTERVAL_SECONDS)


async def revoke_due(runtime: Runtime) -> int:
    """Take away what is due, and return how many revocations were looked at.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; nothing of the one in hand is changed.
    """
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        due = await revocation_store.list_due(connection, now, BATCH_MAX)
    for reversal in due:
        news = reversal.news
        async with runtime.core.database.transaction() as connection:
            enrollment = await enrollment_store.lock_enrollment(
                connection, news.customer_id, news.product_id
            )
            # Another process, or later news, may have been faster.
            current = await revocation_store.lock_reversal(
                connection, news.payment_id, news.occasion
            )
            if current is not None and current.due_at is not None and current.due_at <= now:
                await _come_to_its_time(runtime, connection, current, enrollment)
    return len(due)


async def _hear(runtime: Runtime, news: News, traceparent: str | None) -> None:
    """Store news and do what they lead to at once; the same or older news change nothing."""
    with runtime.core.tracing.span(
        "enrollment.revocation",
        traceparent=traceparent,
        kind=SpanKind.CONSUMER,
        attributes={"payment": news.payment_id},
    ):
        async with runtime.core.database.transaction() as connection:
            await _take_in(runtime, connection, news)


async def _take_in(runtime: Runtime, connection: Connection, news: News) -> None:
    now = runtime.core.clock()
    enrollment = await enrollment_store.lock_enrollment(
        connection, news.customer_id, news.product_id
    )
    known = None
    step = step_of_news(news, None, runtime.policy, now=now)
    if not await revocation_store.insert_reversal(connection, news, step, now):
        known = await revocation_store.lock_reversal(connection, news.payment_id, news.occasion)
        assert known is not None, "it kept us from inserting"
        if are_late(news, known.news):
            return
        step = step_of_news(news, known, runtime.policy, now=now)
        await revocation_store.save_news(connection, news, now)
        await revocation_store.save_step(connection, news, step)
    metrics.REVOCATIONS.labels(step.revocation).inc()
    if step.due_at is not None and step.due_at <= now:
        reversal = Reversal(news, step.revocation, step.due_at, now)
        await _come_to_its_time(runtime, connection, reversal, enrollment)
    elif step.due_at is not None:
        await _note(connection, enrollment, news, "revocation_planned")
    elif not news.cause.takes_money_away:
        if known is not None and known.due_at is not None:
            await _note(connection, enrollment, news, "revocation_cancelled")
        await _restore(connection, enrollment, news)


async def _come_to_its_time(
    runtime: Runtime, connection: Connection, reversal: Reversal, enrollment: Enrollment | None
) -> None:
    """Decide about a locked revocation that is due, and do what is decided."""
    news = reversal.news
    has_granted = await enrollment_store.is_known_payment(connection, news.payment_id)
    if has_granted and enrollment is None:
        return  # It was granted since we looked: the next look finds and locks it.
    is_active, is_held = False, False
    if enrollment is not None:
        is_active = enrollment.state is EnrollmentState.ACTIVE
        is_held = await enrollment_store.is_held(connection, enrollment.id)
    step = step_when_due(
        reversal,
        has_granted=has_granted,
        is_active=is_active,
        is_held=is_held,
        now=runtime.core.clock(),
    )
    await revocation_store.save_step(connection, news, step)
    metrics.REVOCATIONS.labels(step.revocation).inc()
    if step.revocation is Revocation.DONE:
        assert enrollment is not None, "only what is active is taken away"
        await enrollment_store.change_state(
            connection,
            enrollment.id,
            EnrollmentState.REVOKED,
            event=_EVENTS[news.cause],
            payment_id=news.payment_id,
        )


async def _restore(connection: Connection, enrollment: Enrollment | None, news: News) -> None:
    """Give back what money that is ours again holds.

    It holds nothing that an operator has taken away since it was paid.
    """
    if (
        enrollment is None
        or enrollment.state is EnrollmentState.ACTIVE
        or not await enrollment_store.is_held(connection, enrollment.id)
    ):
        return
    await enrollment_store.change_state(
        connection,
        enrollment.id,
        EnrollmentState.ACTIVE,
        event="restored",
        payment_id=news.payment_id,
        reason=news.cause,
    )
    metrics.REVOCATIONS.labels("restored").inc()


async def _note(
    connection: Connection, enrollment: Enrollment | None, news: News, event: str
) -> None:
    """Write down what is planned for an enrollment, if there is one that can be taken away."""
    if enrollment is not None and enrollment.state is EnrollmentState.ACTIVE:
        await enrollment_store.add_to_history(
            connection, enrollment.id, event, payment_id=news.payment_id, reason=news.cause
        )
