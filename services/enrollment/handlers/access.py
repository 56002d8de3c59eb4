"""Lets enrollments follow subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

from opentelemetry.trace import SpanKind

from services.enrollment.domain.access import Access, Right
from services.enrollment.runtime import Runtime
from shared.contracts.scheduler import AccessGranted, AccessRevoked
from shared.messaging.receiver import Delivery


async def follow_subscriptions(
    runtime: Runtime, deliveries: Sequence[Delivery[AccessGranted | AccessRevoked]]
) -> None:
    """Give and take what subscriptions say; the same or older news change nothing."""
    with ExitStack() as spans:
        if runtime.core.tracing.is_on:
            for delivery in deliveries:
                span = runtime.core.tracing.span(
                    "enrollment.access",
                    traceparent=delivery.traceparent,
                    kind=SpanKind.CONSUMER,
                    attributes={"subscription": delivery.message.subscription_id},
                )
                spans.enter_context(span)
        # Futures, not tasks: nothing is done for one before its batch is committed.
        await asyncio.gather(
            *(runtime.access.submit(_access_of(each.message)) for each in deliveries)
        )


def _access_of(message: AccessGranted | AccessRevoked) -> Access:
    right = Right(message.customer_id, message.product_id)
    if isinstance(message, AccessGranted):
        has_access, reason, told_at = True, None, message.granted_at
    else:
        has_access, reason, told_at = False, message.reason, message.revoked_at
    return Access(message.subscription_id, message.sequence, right, has_access, reason, told_at)
