"""Composition root of the payments service's worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from services.payments.handlers import (
    alerts,
    charge_cancellation,
    disputes,
    ledger,
    notices,
    profiles,
    reconciler,
    refunds,
    retry_worker,
    settlement_checks,
    statistics,
)
from services.payments.handlers.charges import charge_desk
from services.payments.handlers.flow_sync import in_step
from services.payments.runtime import open_runtime
from services.payments.settings import PaymentsSettings
from services.payments.store.tables import PARTITIONED_TABLES
from shared import partitions
from shared.contracts.priorities import Priority
from shared.contracts.scheduler import CancelCharge, ChargeSubscription, RetryCharge
from shared.contracts.subscriptions import CHARGES_QUEUE, DISPUTES_QUEUE
from shared.contracts.webhook import DisputeNoticed, NoticeReceived
from shared.messaging.consumption import consume
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys

#: Near-strict order: of what a worker has fetched, the lowest number goes first.
PRIORITIES: Final = {
    "payments.high": 0,
    "payments.medium": 10,
    "payments.normal": 20,
    CHARGES_QUEUE: 25,
    DISPUTES_QUEUE: 30,
}


@asynccontextmanager
async def worker_part(settings: PaymentsSettings) -> AsyncIterator[Part]:
    """Consume notices and receipts, resend what is overdue, reconcile what is due."""
    async with (
        open_core(settings, "payments", settings.database_url) as core,
        open_runtime(core, settings) as runtime,
        in_step(runtime, "worker") as keep_in_step,
        charge_desk(runtime) as desk,
        consume(
            core,
            settings.redis_address(),
            handlers={
                NoticeReceived: partial(notices.check_notices, runtime),
                DisputeNoticed: partial(disputes.check_disputes, runtime),
                ChargeSubscription: desk.charge,
                RetryCharge: desk.retry,
                CancelCharge: partial(charge_cancellation.cancel_charges, runtime),
            },
            priorities=PRIORITIES,
            left_out=frozenset(
                f"payments.{level}" for level in set(Priority) - settings.payments_priorities
            ),
            tasks=[
                keep_in_step,
                partial(reconciler.reconcile, runtime),
                partial(retry_worker.make_retries, runtime),
                partial(profiles.follow_conditions, runtime),
                partial(refunds.carry_out_refunds, runtime),
                partial(disputes.watch_disputes, runtime),
                partial(ledger.keep_snapshot, runtime),
                partial(settlement_checks.check_settlements, runtime),
                partial(statistics.fold_for_ever, runtime),
                partial(alerts.watch, runtime),
                partial(partitions.run, core.database, PARTITIONED_TABLES, core.clock),
                IdempotencyKeys(core.database, core.clock).forget_old_for_ever,
            ],
        ) as part,
    ):
        yield part
