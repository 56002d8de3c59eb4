"""Looks at payments whose next look is due, whether or not a notice came."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.model import Payment, PaymentState
from services.payments.runtime import VERDICT_NAMES, Judgement, Runtime, ask
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store.attempts import StoredOrder
from shared.errors import DatabaseUnavailableError, SluiceError
from shared.metrics import bound

log = structlog.get_logger()

#: Payments one look of the reconciler takes; it looks again at once while there are as many.
RECONCILE_BATCH_MAX: Final = 100

#: Pause of the reconciler when nothing is due; confirmations are due after 2 s at the earliest.
RECONCILE_INTERVAL_SECONDS: Final = 1.0


async def reconcile(runtime: Runtime) -> None:
    """Look, for ever, at every payment whose next look is due, whether or not a notice came."""
    while True:
        try:
            count = await reconcile_due(runtime)
        except DatabaseUnavailableError as error:
            log.warning("reconciler_waits", reason=error.message)
            count = 0
        if count < RECONCILE_BATCH_MAX:
            await asyncio.sleep(RECONCILE_INTERVAL_SECONDS)


async def reconcile_due(runtime: Runtime) -> int:
    """Look at one batch of due payments and return how many there were.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; leases run out and the looks are repeated.
    """
    async with runtime.core.database.transaction() as connection:
        due = await payment_store.claim_due(connection, runtime.core.clock(), RECONCILE_BATCH_MAX)
        references = [payment.reference for payment in due]
        orders = await attempt_store.find_orders(connection, references) if due else {}
    results = await asyncio.gather(
        *(_reconcile_one(runtime, payment, orders[payment.reference]) for payment in due),
        return_exceptions=True,
    )
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures:
        if not isinstance(failure, SluiceError):
            raise failure
    if failures:
        log.warning("looks_not_recorded", count=len(failures), error=str(failures[0]))
    return len(due)


async def _reconcile_one(runtime: Runtime, payment: Payment, stored: StoredOrder) -> None:
    with runtime.core.tracing.span(
        "payments.reconcile", attributes={"payment": payment.id}
    ) as traceparent:
        asked_at = runtime.core.clock()
        handle = payment.validation_id if payment.state is PaymentState.PROCESSING else None
        verdict = await ask(runtime, payment, payment.reference, None, handle, stored=stored)
        bound(metrics.CHECKS, payment.gateway, "reconciler", VERDICT_NAMES[type(verdict)]).inc()
        await runtime.results.submit(Judgement(payment, verdict, None, asked_at, traceparent))
