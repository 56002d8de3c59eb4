"""Cancels charges when the scheduler orders it: no other try, and what can be closed is closed.

Money that moved all the same is told like any other, and so is the end of a try in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from services.payments import metrics
from services.payments.domain import retries
from services.payments.domain.model import Deferred, Payment, PaymentState
from services.payments.domain.retries import RetryState
from services.payments.domain.settlement import REASON_LENGTH_MAX, Change
from services.payments.domain.state_machine import TAKEN, next_state
from services.payments.domain.statistics import step
from services.payments.flow.admission import Purpose
from services.payments.flow.charges import never_begun, tell
from services.payments.flow.retry_planning import SURE_AFTER, Planned
from services.payments.runtime import Judgement, Runtime
from services.payments.store import attempts as attempt_store
from services.payments.store import charges as charge_store
from services.payments.store import payments as payment_store
from services.payments.store import retries as retry_store
from services.payments.store.attempts import AttemptState, StoredOrder
from services.payments.store.retries import Standing
from shared.contracts.scheduler import CancelCharge
from shared.database import Connection
from shared.errors import GatewayUnavailableError, SluiceError
from shared.gateways.interface import FailureKind, Unknown
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from shared.messaging.receiver import Delivery
from shared.metrics import bound

#: Nothing that is open of these can be closed: the money is here, or is said to be.
_NOT_CLOSED: Final = TAKEN | {PaymentState.ON_HOLD, PaymentState.PROCESSING}

_ENDED: Final = frozenset({PaymentState.FAILED, PaymentState.CANCELLED})


@dataclass(frozen=True, slots=True)
class _Left:
    """What may still be open at a gateway after a charge was cancelled."""

    payment: Payment
    standing: Standing
    stored: StoredOrder


async def cancel_charges(runtime: Runtime, deliveries: Sequence[Delivery[CancelCharge]]) -> None:
    """Cancel charges, each on its own; safe to repeat."""
    for delivery in deliveries:
        try:
            await _cancel(runtime, delivery)
        except SluiceError as error:
            delivery.fail(error)
        else:
            delivery.done()


async def _cancel(runtime: Runtime, delivery: Delivery[CancelCharge]) -> None:
    """Cancel a charge.

    Raises:
        GatewayUnavailableError: a try is on its way, or its gateway does not say whether it was
            closed: the order is to be carried out again.
    """
    order, now = delivery.message, runtime.core.clock()
    left: _Left | None = None
    async with runtime.core.database.transaction() as connection:
        is_first = await charge_store.cancel_unheard(
            connection, order.payment_id, order.subscription_id, now
        )
        if is_first:
            fact = never_begun(order, kind=FailureKind.CANCELLED, code=order.reason, now=now)
            outgoing = await outbox.append(connection, [(fact, delivery.traceparent)])
        elif await charge_store.was_cancelled_unheard(connection, order.payment_id):
            outgoing = []
        else:
            outgoing, left = await _end(runtime, connection, delivery, now)
    runtime.core.publisher.publish(outgoing)
    if left is not None:
        await _close(runtime, left, delivery.traceparent)


async def _end(
    runtime: Runtime, connection: Connection, delivery: Delivery[CancelCharge], now: datetime
) -> tuple[list[Outgoing], _Left | None]:
    """Let no other try be made of a charge; of one that no gateway has, this is the end."""
    payment = await payment_store.lock_payment(connection, delivery.message.payment_id)
    standing = (await retry_store.find_standings(connection, [payment.reference]))[payment.id]
    known = await retry_store.lock_retry(connection, payment.id)
    was_cancelled = known is not None and known.state is RetryState.CANCELLED
    outgoing: list[Outgoing] = []
    if payment.state not in TAKEN | _ENDED and not was_cancelled:
        bound(metrics.CHARGES, payment.gateway, "cancelled").inc()
        if _is_nowhere(payment, standing):
            outgoing = await _end_now(connection, payment, delivery, now)
        else:
            await payment_store.insert_history(connection, payment, "charge_cancelled", now)
        if standing.state == "put_off":  # Nobody begins it, also when an operator releases it.
            given_up = AttemptState(payment.reference, "abandoned")
            await attempt_store.save_attempts(connection, [given_up])
        planned = Planned(known, retries.never(known, payment, now))
        outgoing += await runtime.retries.save(connection, [planned], now)
    if not _may_be_open(payment, standing):
        return outgoing, None
    orders = await attempt_store.find_orders(connection, [payment.reference])
    return outgoing, _Left(payment, standing, orders[payment.reference])


def _is_nowhere(payment: Payment, standing: Standing) -> bool:
    """Tell whether no gateway has a try that may still bring money."""
    if payment.state is PaymentState.RETRY_SCHEDULED:
        return True  # The last one is dead.
    return standing.state == "put_off" and payment.state is not PaymentState.ON_HOLD


def _may_be_open(payment: Payment, standing: Standing) -> bool:
    if _is_nowhere(payment, standing) or payment.state in _NOT_CLOSED:
        return False
    return payment.state not in _ENDED or payment.next_check_at is not None


async def _end_now(
    connection: Connection, payment: Payment, delivery: Delivery[CancelCharge], now: datetime
) -> list[Outgoing]:
    cancelled = payment._replace(
        state=next_state(payment.state, PaymentState.CANCELLED),
        reason=f"{FailureKind.CANCELLED}:{delivery.message.reason}"[:REASON_LENGTH_MAX],
        next_check_at=None,
    )
    change = Change(cancelled, "charge_cancelled")
    _, outgoing = await payment_store.save_and_announce(
        connection, [change], {}, now, steps=[step(payment, change, now)]
    )
    outgoing += await tell(connection, payment, change, now=now, traceparent=delivery.traceparent)
    return outgoing


async def _close(runtime: Runtime, left: _Left, traceparent: str | None) -> None:
    """Close at the gateway what may be open there, where that is possible."""
    payment, now = left.payment, runtime.core.clock()
    gateway = runtime.gateways.get(payment.gateway)
    if gateway is None or not gateway.capabilities.cancels:
        return  # Its end is told when the gateway tells it.
    if left.standing.state == "started" and now - left.standing.started_at < SURE_AFTER:
        raise GatewayUnavailableError("a try is on its way to the gateway")
    verdict = await runtime.flow.call(
        payment.gateway,
        payment.priority,
        Purpose.CHECK,
        partial(gateway.cancel, left.stored.order),
    )
    if isinstance(verdict, (Deferred, Unknown)):
        raise GatewayUnavailableError(f"the gateway does not close it: {verdict.reason}")
    await runtime.results.submit(Judgement(payment, verdict, None, now, traceparent))
