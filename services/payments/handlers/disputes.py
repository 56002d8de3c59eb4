"""Follows disputes: a notice is a hint, the gateway is asked, and what it says is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from services.payments import metrics
from services.payments.domain import statistics
from services.payments.domain.disputes import (
    UNANSWERED_DELAY,
    Dispute,
    Step,
    booking_of,
    dispute_from,
    fee_change,
    steps_to,
    take_step,
)
from services.payments.domain.model import Deferred, Payment, PaymentState
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import TAKEN
from services.payments.flow.admission import Purpose
from services.payments.flow.charges import tell
from services.payments.handlers.due_work import gateways_at_rest, take_up_for_ever
from services.payments.runtime import Judgement, Runtime, ask
from services.payments.store import disputes as dispute_store
from services.payments.store import payments as payment_store
from services.payments.store import refunds as refund_store
from shared.contracts.base import Message
from shared.contracts.payments import DisputeLost, DisputeMessage, DisputeOpened, DisputeWon
from shared.contracts.priorities import Priority
from shared.contracts.webhook import DisputeNoticed
from shared.database import Connection
from shared.errors import (
    ConflictError,
    GatewayUnavailableError,
    NotFoundError,
    SluiceError,
)
from shared.gateways.disputes import Disputed
from shared.gateways.interface import DisputeOutcome, Unknown
from shared.identifiers import is_id, new_id
from shared.messaging.envelope import Outgoing
from shared.messaging.receiver import Delivery

log = structlog.get_logger()

#: Ids of disputes begin with this.
ID_PREFIX: Final = "dsp"

#: Between two searches for disputes whose look is due: banks take days.
INTERVAL_SECONDS: Final = 30.0

_FACTS: Final[dict[Step, type[DisputeMessage]]] = {
    Step.OPENED: DisputeOpened,
    Step.REOPENED: DisputeOpened,
    Step.WON: DisputeWon,
    Step.LOST: DisputeLost,
}


async def check_disputes(runtime: Runtime, deliveries: Sequence[Delivery[DisputeNoticed]]) -> None:
    """Ask the gateways about the disputes that notices name, and record how they stand.

    Each notice finishes on its own. Safe to repeat: what is known already is no step.
    """
    await asyncio.gather(*(_check(runtime, delivery) for delivery in deliveries))


async def _check(runtime: Runtime, delivery: Delivery[DisputeNoticed]) -> None:
    notice = delivery.message
    try:
        with runtime.core.tracing.span(
            "payments.check_dispute", traceparent=delivery.traceparent, kind=SpanKind.CONSUMER
        ) as traceparent:
            # How urgent the payment is that it is about is only known once the gateway has said.
            told = await _ask(runtime, notice.gateway, notice.dispute)
            if not isinstance(told, Disputed):
                raise GatewayUnavailableError(f"the gateway does not say: {told.reason}")
            if told.reference is None or not is_id(told.reference, "att"):
                metrics.FOREIGN_NOTICES.labels(notice.gateway).inc()
            else:
                payment = await _find_payment(runtime, told, traceparent)
                await _record(runtime, payment, told, traceparent)
    except SluiceError as error:
        delivery.fail(error)
    else:
        delivery.done()


async def _ask(runtime: Runtime, name: str, handle: str) -> DisputeOutcome | Deferred:
    gateway = runtime.gateways.get(name)
    if gateway is None:
        return Unknown("gateway_is_off")
    return await runtime.flow.call(
        name, Priority.NORMAL, Purpose.CHECK, partial(gateway.look_up_dispute, handle)
    )


async def _find_payment(runtime: Runtime, told: Disputed, traceparent: str | None) -> Payment:
    """Return the disputed payment, whose money is confirmed first: a dispute may be heard sooner.

    Raises:
        NotFoundError: no payment has the reference that the gateway names.
        GatewayUnavailableError: the gateway does not confirm the money yet.
    """
    assert told.reference is not None, "the payment of another system is not looked for"
    payment = await _read_payment(runtime, told.reference)
    if not _has_money(payment):
        asked_at = runtime.core.clock()
        verdict = await ask(runtime, payment, told.reference, None, told.gateway_payment_id)
        await runtime.results.submit(Judgement(payment, verdict, None, asked_at, traceparent))
        payment = await _read_payment(runtime, told.reference)
    if not _has_money(payment):
        raise GatewayUnavailableError("a payment is disputed that the gateway does not confirm")
    return payment


async def _read_payment(runtime: Runtime, reference: str) -> Payment:
    async with runtime.core.database.connection() as connection:
        found = await payment_store.find_by_references(connection, [reference])
    if reference not in found:
        raise NotFoundError(f"no payment has the reference {reference}")
    return found[reference]


def _has_money(payment: Payment) -> bool:
    return payment.gateway_payment_id is not None and (
        payment.state in TAKEN or payment.state is PaymentState.ON_HOLD
    )


async def watch_disputes(runtime: Runtime) -> None:
    """Look, for ever, at disputes that may have been decided, whether or not a notice came."""
    await take_up_for_ever(
        "disputes", partial(take_up_disputes, runtime), interval_seconds=INTERVAL_SECONDS
    )


async def take_up_disputes(runtime: Runtime, most: int) -> list[asyncio.Task[None]]:
    """Begin to look at disputes whose look is due, at most so many, and return the looks.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; leases run out and the looks are repeated.
    """
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        due = await dispute_store.claim_due_disputes(
            connection, now, most, but_of=gateways_at_rest(runtime)
        )
    return [asyncio.create_task(_look(runtime, dispute)) for dispute in due]


async def _look(runtime: Runtime, dispute: Dispute) -> None:
    try:
        with runtime.core.tracing.span(
            "payments.look_at_dispute", attributes={"dispute": dispute.id}
        ) as traceparent:
            told = await _ask(runtime, dispute.gateway, dispute.handle)
            async with runtime.core.database.connection() as connection:
                found = await payment_store.find_by_ids(connection, [dispute.payment_id])
                if not isinstance(told, Disputed):
                    later = runtime.core.clock() + UNANSWERED_DELAY
                    await dispute_store.put_off_dispute(connection, dispute, later)
                    return
            await _record(runtime, found[dispute.payment_id], told, traceparent)
    except SluiceError as error:
        # Its lease runs out, and it is looked at again.
        log.warning("dispute_not_recorded", dispute=dispute.id, error=error.message)


async def _record(
    runtime: Runtime, payment: Payment, told: Disputed, traceparent: str | None
) -> None:
    """Commit how a dispute stands and what that makes of its payment, and announce it."""
    if told.amount.currency != payment.amount.currency:
        raise ConflictError(
            f"dispute {told.handle} is in {told.amount.currency}, its payment is not"
        )
    async with runtime.core.database.transaction() as connection:
        steps, outgoing = await _settle(runtime, connection, payment.id, told, traceparent)
    runtime.core.publisher.publish(outgoing)
    for step in steps:
        metrics.DISPUTES.labels(payment.gateway, step).inc()
        log.warning(step, payment=payment.id)


async def _settle(
    runtime: Runtime,
    connection: Connection,
    payment_id: str,
    told: Disputed,
    traceparent: str | None,
) -> tuple[Sequence[Step], list[Outgoing]]:
    now = runtime.core.clock()
    # First, so that whoever hears of the same dispute at the same time finds its row.
    payment = await payment_store.lock_payment(connection, payment_id)
    known = await dispute_store.lock_by_handle(connection, payment.gateway, told.handle)
    dispute = dispute_from(known, told, new_id=new_id(ID_PREFIX, now), payment=payment, now=now)
    if known is None:
        await dispute_store.insert_dispute(connection, dispute)
    else:
        await dispute_store.save_dispute(connection, dispute)
    steps, outgoing = steps_to(known, told), []
    refunded = (await refund_store.find_returned(connection, payment_id)).refunded
    others = await dispute_store.is_held_by_others(connection, dispute)
    is_its_charge = told.gateway_payment_id == payment.gateway_payment_id
    for step in steps:
        facts: dict[str, tuple[Message, str | None]] = {}
        if is_its_charge:
            change = take_step(
                step, dispute, payment, refunded_total=refunded, is_held_by_others=others
            )
            facts[payment.id] = _announce(step, dispute, payment), traceparent
        else:
            # What was taken once too often: nothing was given for it that could be taken back.
            booked = booking_of(step, dispute)
            change = Change(payment, f"{step}_of_surplus", transfers=(booked,))
        counted = [statistics.step(payment, change, now)]
        _, sent = await payment_store.save_and_announce(
            connection, [change], facts, now, steps=counted
        )
        outgoing += sent
        outgoing += await tell(connection, payment, change, now=now, traceparent=traceparent)
        payment = change.payment._replace(version=payment.version + 1)
    if (change_of_fee := fee_change(known, dispute, payment)) is not None:
        await payment_store.save_and_announce(connection, [change_of_fee], {}, now)
    return steps, outgoing


def _announce(step: Step, dispute: Dispute, payment: Payment) -> DisputeMessage:
    return _FACTS[step](
        payment_id=payment.id,
        dispute_id=dispute.id,
        customer_id=payment.customer_id,
        product_id=payment.product_id,
        amount=dispute.amount.minor_units,
        currency=dispute.amount.currency,
        reason=dispute.reason[:200],
        noticed_at=dispute.updated_at,
    )
