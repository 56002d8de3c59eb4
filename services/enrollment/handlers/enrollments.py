"""Grants what was paid for, and does what operators ask."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

from opentelemetry.trace import SpanKind

from services.enrollment import metrics
from services.enrollment.domain.model import Enrollment, EnrollmentState, Grant, require
from services.enrollment.runtime import Runtime, cancel_planned
from services.enrollment.store import enrollments as store
from shared.contracts.payments import PaymentSucceeded
from shared.errors import NotFoundError
from shared.identifiers import is_id, new_id
from shared.messaging.receiver import Delivery


async def enroll(runtime: Runtime, deliveries: Sequence[Delivery[PaymentSucceeded]]) -> None:
    """Enroll the customers of succeeded payments; a payment that comes again changes nothing."""
    with ExitStack() as spans:
        if runtime.core.tracing.is_on:
            for delivery in deliveries:
                spans.enter_context(_span_of(runtime, delivery))
        # Futures, not tasks: nothing is done for a grant before its batch is committed.
        await asyncio.gather(
            *(runtime.grants.submit(_grant_of(runtime, each.message)) for each in deliveries)
        )
    now = runtime.core.clock()
    for delivery in deliveries:
        whole_way = (now - delivery.message.noticed_at).total_seconds()
        metrics.WHOLE_WAY_SECONDS.observe(max(0.0, whole_way))


def _span_of(
    runtime: Runtime, delivery: Delivery[PaymentSucceeded]
) -> AbstractContextManager[str | None]:
    return runtime.core.tracing.span(
        "enrollment.grant",
        traceparent=delivery.traceparent,
        kind=SpanKind.CONSUMER,
        attributes={"payment": delivery.message.payment_id},
    )


def _grant_of(runtime: Runtime, message: PaymentSucceeded) -> Grant:
    return Grant(
        id=new_id("enr", runtime.core.clock()),
        customer_id=message.customer_id,
        product_id=message.product_id,
        payment_id=message.payment_id,
        amount=message.amount,
        currency=message.currency,
    )


async def grant_by_hand(
    runtime: Runtime,
    enrollment_id: str,
    *,
    customer_id: str,
    product_id: str,
    actor: str,
    reason: str,
) -> Enrollment:
    """Enroll without a payment, give back what was revoked, or let them keep what would be.

    Raises:
        ConflictError: the customer is enrolled already, and nothing waits to end that.
    """
    async with runtime.core.database.transaction() as connection:
        is_new = await store.insert_by_hand(connection, enrollment_id, customer_id, product_id)
        existing = await store.lock_enrollment(connection, customer_id, product_id)
        assert existing is not None, "it was inserted, or kept us from inserting"
        is_kept = await cancel_planned(connection, existing, reason="granted_by_hand")
        # A repeated request finds its own row, which is then its answer.
        if not is_new and existing.id != enrollment_id and not is_kept:
            require(existing, EnrollmentState.REVOKED)
        if is_new or existing.id != enrollment_id:
            await store.change_state(
                connection,
                existing.id,
                EnrollmentState.ACTIVE,
                event="granted_by_hand",
                actor=actor,
                reason=reason,
            )
    metrics.BY_HAND.labels("granted").inc()
    return await read_enrollment(runtime, existing.id)


async def revoke_by_hand(
    runtime: Runtime, enrollment_id: str, *, actor: str, reason: str
) -> Enrollment:
    """Take an enrollment away.

    Raises:
        NotFoundError: no enrollment has this id.
        ConflictError: it is revoked already.
    """
    if not is_id(enrollment_id, "enr"):
        raise _unknown(enrollment_id)
    async with runtime.core.database.transaction() as connection:
        existing = await store.lock_enrollment_by_id(connection, enrollment_id)
        if existing is None:
            raise _unknown(enrollment_id)
        require(existing, EnrollmentState.ACTIVE)
        await store.change_state(
            connection,
            enrollment_id,
            EnrollmentState.REVOKED,
            event="revoked_by_hand",
            actor=actor,
            reason=reason,
        )
    metrics.BY_HAND.labels("revoked").inc()
    return await read_enrollment(runtime, enrollment_id)


async def read_enrollment(runtime: Runtime, enrollment_id: str) -> Enrollment:
    """Return an enrollment.

    Raises:
        NotFoundError: no enrollment has this id.
    """
    enrollment = None
    if is_id(enrollment_id, "enr"):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            enrollment = await store.find_enrollment(connection, enrollment_id)
    if enrollment is None:
        raise _unknown(enrollment_id)
    return enrollment


def _unknown(enrollment_id: str) -> NotFoundError:
    return NotFoundError(f"no enrollment has the id {enrollment_id[:40]!r}")
