"""Composition root of the enrollment service's worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.enrollment import handlers
from services.enrollment.runtime import open_runtime
from services.enrollment.settings import EnrollmentSettings
from shared.contracts.payments import PaymentSucceeded
from shared.messaging.consumption import consume
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys


@asynccontextmanager
async def worker_part(settings: EnrollmentSettings) -> AsyncIterator[Part]:
    """Consume succeeded payments."""
    async with (
        open_core(settings, "enrollment", settings.database_url) as core,
        open_runtime(core) as runtime,
        consume(
            core,
            settings.redis_address(),
            handlers={PaymentSucceeded: partial(handlers.enroll, runtime)},
            priorities={"enrollment.grants": 0},
            tasks=[IdempotencyKeys(core.database, core.clock).forget_old_for_ever],
        ) as part,
    ):
        yield part
