"""Composition root of the enrollment service's worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.enrollment.handlers import access, enrollments, revocations
from services.enrollment.runtime import open_runtime
from services.enrollment.settings import EnrollmentSettings
from shared.contracts.payments import (
    DisputeLost,
    DisputeWon,
    PaymentRefunded,
    PaymentSucceeded,
    RefundReturned,
)
from shared.contracts.scheduler import AccessGranted, AccessRevoked
from shared.contracts.subscriptions import ACCESS_QUEUE, REVOCATIONS_QUEUE
from shared.messaging.consumption import consume
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys


@asynccontextmanager
async def worker_part(settings: EnrollmentSettings) -> AsyncIterator[Part]:
    """Consume what became of payments and subscriptions, and take away what is due."""
    async with (
        open_core(settings, "enrollment", settings.database_url) as core,
        open_runtime(core, settings) as runtime,
        consume(
            core,
            settings.redis_address(),
            handlers={
                PaymentSucceeded: partial(enrollments.enroll, runtime),
                PaymentRefunded: partial(revocations.hear_of_refunds, runtime),
                RefundReturned: partial(revocations.hear_of_returns, runtime),
                DisputeLost: partial(revocations.hear_of_disputes, runtime),
                DisputeWon: partial(revocations.hear_of_disputes, runtime),
                AccessGranted: partial(access.follow_subscriptions, runtime),
                AccessRevoked: partial(access.follow_subscriptions, runtime),
            },
            # Who has paid waits for no revocation.
            priorities={"enrollment.grants": 0, ACCESS_QUEUE: 5, REVOCATIONS_QUEUE: 10},
            tasks=[
                partial(revocations.revoke_due_for_ever, runtime),
                IdempotencyKeys(core.database, core.clock).forget_old_for_ever,
            ],
        ) as part,
    ):
        yield part
