"""Looks at payments whose next look is due, whether or not a notice came."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.model import Payment, PaymentState, Verdict
from services.payments.domain.settlement import is_left_open
from services.payments.flow.admission import Purpose
from services.payments.handlers.beginning import (
    SEND_WITHIN_SECONDS,
    begin,
    record_put_off,
    take_up,
)
from services.payments.handlers.charge_orders import drained
from services.payments.handlers.due_work import take_up_for_ever
from services.payments.runtime import VERDICT_NAMES, Judgement, Runtime, ask
from services.payments.store import attempts as attempt_store
from services.payments.store import looks as look_store
from services.payments.store.attempts import StoredOrder
from shared.contracts.priorities import Priority
from shared.errors import SluiceError
from shared.gateways.interface import ActionRequired, Pending, Unknown
from shared.gateways.registry import REGISTRY
from shared.gateways.send_deadline import send_within
from shared.metrics import bound

log = structlog.get_logger()

#: Pause of the reconciler when nothing is due; confirmations are due after 2 s at the earliest.
RECONCILE_INTERVAL_SECONDS: Final = 1.0


async def reconcile(runtime: Runtime) -> None:
    """Look, for ever, at every payment whose next look is due, whether or not a notice came.

    Each look ends on its own; a new one begins as soon as there is room for it.
    """
    await take_up_for_ever(
        "looks",
        partial(take_up_due, runtime),
        interval_seconds=RECONCILE_INTERVAL_SECONDS,
        batch_size=lambda: runtime.flow.controls.batch_size,
    )


async def take_up_due(runtime: Runtime, most: int) -> list[asyncio.Task[None]]:
    """Begin to look at due payments, the most urgent first, and return the looks.

    Payments of a gateway that may not be asked are left where they are.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; leases run out and the looks are repeated.
    """
    now = runtime.core.clock()
    due: list[Payment] = []
    # What the lower priorities are sure of, also while more urgent ones are due without end.
    reserved = most * runtime.settings.minimum_share // 100
    async with runtime.core.database.transaction() as connection:
        for index, priority in enumerate(Priority):
            room = most - len(due) - reserved * (len(Priority) - 1 - index)
            allowed = runtime.flow.claimable(REGISTRY, priority, room)
            if allowed and room > 0:
                due += await look_store.claim_due(connection, now, priority, allowed, room)
        references = [payment.reference for payment in due]
        orders = await attempt_store.find_orders(connection, references) if due else {}
    return [
        asyncio.create_task(_look(runtime, payment, orders[payment.reference])) for payment in due
    ]


async def _look(runtime: Runtime, payment: Payment, stored: StoredOrder) -> None:
    try:
        is_new = stored.is_put_off and payment.subscription_id is not None
        if is_new and (kept_back := drained(runtime)) is not None:
            await record_put_off(runtime, stored, kept_back)
        elif stored.is_put_off and runtime.core.clock() < payment.expires_at:
            await _begin(runtime, payment)
        else:
            await _reconcile_one(runtime, payment, stored)
    except SluiceError as error:
        # Its lease runs out, and it is looked at again.
        log.warning("look_not_recorded", payment=payment.id, error=error.message)


async def _begin(runtime: Runtime, payment: Payment) -> None:
    """Begin what was put off, unless a repeated request does so at this moment."""
    gateway = runtime.gateways.get(payment.gateway)
    if gateway is None:
        return  # It is not claimed as long as it is off.
    with send_within(SEND_WITHIN_SECONDS):  # From before it is taken up.
        stored = await take_up(runtime, payment.id, payment.reference)
        if stored is not None:
            await begin(runtime, gateway, stored)


async def _reconcile_one(runtime: Runtime, payment: Payment, stored: StoredOrder) -> None:
    with runtime.core.tracing.span(
        "payments.reconcile", attributes={"payment": payment.id}
    ) as traceparent:
        asked_at = runtime.core.clock()
        handle = payment.validation_id if payment.state is PaymentState.PROCESSING else None
        verdict = await ask(runtime, payment, payment.reference, None, handle, stored=stored)
        if is_left_open(payment, verdict, asked_at):
            verdict = await _close(runtime, payment, stored, verdict)
        bound(metrics.CHECKS, payment.gateway, "reconciler", VERDICT_NAMES[type(verdict)]).inc()
        await runtime.results.submit(Judgement(payment, verdict, None, asked_at, traceparent))


async def _close(
    runtime: Runtime, payment: Payment, stored: StoredOrder, verdict: Verdict
) -> Verdict:
    """Close at the gateway what is open of a payment whose time is over, if it can be closed.

    What comes of it is what the gateway says then: it may have been paid at the last moment.
    """
    gateway = runtime.gateways.get(payment.gateway)
    if gateway is None or not gateway.capabilities.cancels:
        return verdict
    order = stored.order
    if order.handle is None and isinstance(verdict, (Pending, ActionRequired)):
        order = replace(order, handle=verdict.handle)
    closed = await runtime.flow.call(
        payment.gateway, payment.priority, Purpose.CHECK, partial(gateway.cancel, order)
    )
    # A gateway that does not say whether it closed it has said before that it is open.
    return verdict if isinstance(closed, Unknown) else closed
