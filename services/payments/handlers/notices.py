"""What the payments service does with notices and with payments whose next look is due."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from opentelemetry.trace import SpanKind

from services.payments import metrics
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.refunds import GIVEN_BACK
from services.payments.domain.state_machine import TAKEN
from services.payments.runtime import VERDICT_NAMES, Judgement, Runtime, ask
from services.payments.store import payments as payment_store
from services.payments.store import refunds as refund_store
from shared.contracts.webhook import NoticeReceived
from shared.errors import (
    GatewayUnavailableError,
    NotFoundError,
    SluiceError,
)
from shared.gateways.interface import ActionRequired, Paid, Pending, Unknown
from shared.identifiers import is_id
from shared.messaging.receiver import Delivery
from shared.metrics import bound

log = structlog.get_logger()


async def check_notices(runtime: Runtime, deliveries: Sequence[Delivery[NoticeReceived]]) -> None:
    """Ask the gateways about the payments that notices name, and record what they say.

    Each notice finishes on its own: a slow answer holds up no neighbour. Safe to repeat: a payment
    whose state is decided is not asked about again.
    """
    references = [delivery.message.reference for delivery in deliveries]
    async with runtime.core.database.connection() as connection:
        payments = await payment_store.find_by_references(connection, references)
    await _hear_of_refunds(runtime, deliveries, payments)
    checks = []
    for delivery in deliveries:
        payment = payments.get(delivery.message.reference)
        if payment is None:
            _end_unknown(delivery)
        elif _is_decided(payment, delivery.message):
            delivery.done()
        else:
            checks.append(_check(runtime, delivery, payment))
    await asyncio.gather(*checks)


async def _hear_of_refunds(
    runtime: Runtime,
    deliveries: Sequence[Delivery[NoticeReceived]],
    payments: Mapping[str, Payment],
) -> None:
    """Let refunds be looked at that notices may be about: some come back after they succeeded."""
    heard = {
        payment.id
        for delivery in deliveries
        if delivery.message.claim == "other"
        and (payment := payments.get(delivery.message.reference)) is not None
        and payment.state in GIVEN_BACK
    }
    if heard:
        async with runtime.core.database.connection() as connection:
            await refund_store.look_now(connection, sorted(heard), runtime.core.clock())


def _end_unknown(delivery: Delivery[NoticeReceived]) -> None:
    """End a notice of which we have no payment: references are committed before gateways hear them.

    Another system on the same account has names of its own, and its notices are of no interest. One
    of our shape is: a database may have been lost, or two installations share an account.
    """
    notice = delivery.message
    if is_id(notice.reference, "att"):
        delivery.fail(NotFoundError(f"no payment has the reference {notice.reference}"))
    else:
        metrics.FOREIGN_NOTICES.labels(notice.gateway).inc()
        delivery.done()


def _is_decided(payment: Payment, notice: NoticeReceived) -> bool:
    """Tell whether a notice can add nothing: the same money was confirmed before."""
    return payment.state in TAKEN and (
        notice.claim != "paid" or notice.validation_id == payment.validation_id
    )


async def _check(runtime: Runtime, delivery: Delivery[NoticeReceived], payment: Payment) -> None:
    notice = delivery.message
    try:
        with runtime.core.tracing.span(
            "payments.check_notice",
            traceparent=delivery.traceparent,
            kind=SpanKind.CONSUMER,
            attributes={"payment": payment.id},
        ) as traceparent:
            verdict = await ask(
                runtime, payment, notice.reference, notice.claim, notice.validation_id
            )
            bound(metrics.CHECKS, payment.gateway, "notice", VERDICT_NAMES[type(verdict)]).inc()
            is_live = notice.reference == payment.reference
            if notice.claim == "paid" and isinstance(verdict, (Unknown, Pending, ActionRequired)):
                is_followed = (
                    payment.next_check_at is not None
                    or payment.state is PaymentState.RETRY_SCHEDULED
                )
                if not is_followed or not is_live:
                    # Nobody looks at a payment at rest, nor at an attempt that was given up, so
                    # only the message can bring it up again.
                    raise GatewayUnavailableError(f"the gateway does not say: {verdict.reason}")
                # Remembered, so that the reconciler can ask by the same handle.
                payment = payment._replace(validation_id=notice.validation_id or None)
            if is_live or isinstance(verdict, Paid):
                judgement = Judgement(
                    payment, verdict, notice.claim, notice.received_at, traceparent
                )
                await runtime.results.submit(judgement)
    except SluiceError as error:
        delivery.fail(error)
    else:
        delivery.done()
