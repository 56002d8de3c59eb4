"""Composition root of the scheduler's worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.scheduler.handlers import analytics, clock_scan, job_retention, jobs, scan
from services.scheduler.handlers.outcomes import Outcomes
from services.scheduler.handlers.payment_methods import forget_methods, remember_methods
from services.scheduler.runtime import Runtime
from services.scheduler.settings import SchedulerSettings
from services.scheduler.store.tables import PARTITIONED_TABLES
from shared import partitions
from shared.contracts.base import Message
from shared.contracts.payments import (
    ChargeFailed,
    ChargeProgressed,
    ChargeSucceeded,
    PaymentMethodRemoved,
    PaymentMethodStored,
)
from shared.contracts.subscriptions import METHODS_QUEUE, OUTCOMES_QUEUE
from shared.messaging.consumption import consume
from shared.messaging.receiver import Handler
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys


@asynccontextmanager
async def worker_part(settings: SchedulerSettings) -> AsyncIterator[Part]:
    """Consume what became of charges, and bill what is due."""
    async with (
        open_core(settings, "scheduler", settings.database_url) as core,
        consume(
            core,
            settings.redis_address(),
            handlers=handlers_of(Runtime(core, settings)),
            priorities={OUTCOMES_QUEUE: 0, METHODS_QUEUE: 10},
            tasks=[
                partial(scan.scan_for_ever, Runtime(core, settings)),
                partial(clock_scan.follow_clocks_for_ever, Runtime(core, settings)),
                partial(analytics.fold_for_ever, Runtime(core, settings)),
                partial(jobs.fold_tally_for_ever, Runtime(core, settings)),
                partial(job_retention.sweep_for_ever, Runtime(core, settings)),
                partial(partitions.run, core.database, PARTITIONED_TABLES, core.clock),
                IdempotencyKeys(core.database, core.clock).forget_old_for_ever,
            ],
        ) as part,
    ):
        yield part


def handlers_of(runtime: Runtime) -> dict[type[Message], Handler]:
    """Return what is done with each kind of message."""
    outcomes = Outcomes(runtime)
    return {
        ChargeProgressed: outcomes.hear,
        ChargeSucceeded: outcomes.hear,
        ChargeFailed: outcomes.hear,
        PaymentMethodStored: partial(remember_methods, runtime),
        PaymentMethodRemoved: partial(forget_methods, runtime),
    }
