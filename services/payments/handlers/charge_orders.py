"""Records what the scheduler orders: all orders of a batch in one transaction.

An order that comes twice is the same order. One that cannot be carried out is recorded too, as far
as it fits a row, and told to be over: then it stays over, also when it comes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.payments import metrics
from services.payments.domain.model import Deferred, PaymentState
from services.payments.domain.payment_methods import StoredMethod
from services.payments.domain.retry_advice import Advice
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import next_state
from services.payments.domain.statistics import step
from services.payments.flow.charges import never_begun
from services.payments.runtime import Runtime
from services.payments.store import attempts as attempt_store
from services.payments.store import charges as charge_store
from services.payments.store import payments as payment_store
from services.payments.store.attempts import AttemptState, StoredOrder
from services.payments.store.charges import NewCharge
from services.payments.store.controls import NEW_PAYMENTS
from services.payments.store.payment_methods import find_methods
from services.payments.store.payments import NewPayment
from shared.contracts.base import Message
from shared.contracts.payments import ChargeProgressed
from shared.contracts.scheduler import ChargeSubscription
from shared.database import Connection
from shared.errors import InvalidInputError
from shared.gateways.interface import (
    Checkout,
    Customer,
    FailureKind,
    Method,
    Order,
    PaymentGateway,
    Wallet,
)
from shared.gateways.registry import REGISTRY
from shared.identifiers import is_id, new_id
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from shared.messaging.receiver import Delivery
from shared.metrics import bound
from shared.money import Money
from shared.web.bodies import time_text

#: Why a charge waits that was not begun when it was recorded: there was no room.
NO_ROOM: Final = "waits_for_its_turn"

#: How often it is looked whether a drain is over. Nobody waits for an answer.
DRAINED_FOR: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why an order is not carried out; `advice` where it is not that of our own mistakes."""

    code: str
    advice: Advice | None = None


#: The customer must name another one.
_UNKNOWN_METHOD: Final = Refused("payment_method_unknown", Advice.USE_ANOTHER_METHOD)
_REMOVED_METHOD: Final = Refused("payment_method_removed", Advice.USE_ANOTHER_METHOD)


@dataclass(frozen=True, slots=True)
class Recorded:
    """A charge whose attempt is on record, and which its gateway is to be asked for now."""

    stored: StoredOrder
    gateway: PaymentGateway
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An order as it shall be recorded."""

    delivery: Delivery[ChargeSubscription]
    charge: NewCharge
    refused: Refused | None

    @property
    def id(self) -> str:
        return self.charge.payment.id


def drained(runtime: Runtime) -> Deferred | None:
    """Return why, and until when, nothing new is begun; None when it is."""
    if NEW_PAYMENTS not in runtime.flow.controls.paused:
        return None
    return Deferred(f"paused:{NEW_PAYMENTS}", runtime.core.clock() + DRAINED_FOR)


async def record(
    runtime: Runtime,
    deliveries: Sequence[Delivery[ChargeSubscription]],
    kept_back: Deferred | None,
) -> list[Recorded]:
    """Commit orders, tell the scheduler what became of each, and return what is to be begun.

    Args:
        runtime: Of this process.
        deliveries: The orders; each payment occurs once.
        kept_back: Why, and until when, none of them is begun now.
    """
    now = runtime.core.clock()
    fitting, outgoing = [], []
    async with runtime.core.database.transaction() as connection:
        methods = await find_methods(
            connection, [delivery.message.payment_method_id for delivery in deliveries]
        )
        for delivery in deliveries:
            if (problem := _unfit(delivery.message)) is None:
                method = methods.get(delivery.message.payment_method_id)
                fitting.append(_prepare(runtime, delivery, method, kept_back, now))
            else:
                fact = _refusal_of(delivery.message, problem, now)
                outgoing += await outbox.append(connection, [(fact, delivery.traceparent)])
        new: frozenset[str] = frozenset()
        if fitting:
            new, sent = await charge_store.record_charges(
                connection, [each.charge for each in fitting], now
            )
            outgoing += sent
        fresh = [await _with_spending(runtime, connection, e) for e in fitting if e.id in new]
        outgoing += await _refuse(connection, [each for each in fresh if each.refused], now)
        begun = {} if kept_back else {e.charge.reference: e for e in fresh if not e.refused}
        # Read back, so that the first call is made from what every later one will be made from.
        orders = await attempt_store.find_orders(connection, [*begun]) if begun else {}
    runtime.core.publisher.publish(outgoing)
    _count(deliveries, fresh, is_kept_back=kept_back is not None)
    return [
        Recorded(
            orders[reference],
            runtime.gateways[each.charge.payment.gateway],
            each.delivery.traceparent,
        )
        for reference, each in begun.items()
    ]


def _unfit(message: ChargeSubscription) -> Refused | None:
    """Return why an order cannot even be recorded as a payment: it is the same each time."""
    if not is_id(message.payment_id, "pay"):
        return Refused("cannot_take_payment_id")
    try:
        amount = Money(message.amount, message.currency)
    except InvalidInputError as error:
        return Refused(f"cannot_take_{next(iter(error.details))}")
    return None if amount.minor_units else Refused("cannot_take_amount")


def _prepare(
    runtime: Runtime,
    delivery: Delivery[ChargeSubscription],
    stored: StoredMethod | None,
    kept_back: Deferred | None,
    now: datetime,
) -> _Prepared:
    message = delivery.message
    customer, method = _means(message, stored)
    order = Order(
        reference=new_id("att", now),
        amount=Money(message.amount, message.currency),
        method=method,
        customer=customer,
        product_name=message.product_name,
        started_at=now,
    )
    refused = _refusal_to_charge(runtime, message, stored, order)
    payment = NewPayment(
        id=message.payment_id,
        gateway=message.gateway,
        method=method,
        amount=order.amount,
        customer=asdict(customer),
        product={"id": message.product_id, "name": message.product_name},
        return_url=None,
        metadata={"periodStart": time_text(message.period_start)},
        created_at=now,
        expires_at=now + runtime.expires_after,
        next_check_at=kept_back.until if kept_back else now + runtime.first_check_after,
        priority=runtime.priority_of(order.amount),
        retries_automatically=True,
    )
    charge = NewCharge(
        payment=payment,
        subscription_id=message.subscription_id,
        waits_for_orders=message.is_on_test_clock,
        reference=order.reference,
        # What no gateway will hear of is on record as such.
        attempt_state="put_off" if kept_back or refused else "started",
        reason=kept_back.reason if kept_back else None,
        message=None if refused else _accepted(message, now),
        traceparent=delivery.traceparent,
    )
    return _Prepared(delivery, charge, refused)


def _means(message: ChargeSubscription, stored: StoredMethod | None) -> tuple[Customer, Method]:
    """Return who pays, and how; of what cannot be charged, what a row must have all the same."""
    if stored is None or stored.means is None or stored.customer_id != message.customer_id:
        return Customer(message.customer_id, "", "", ""), Checkout()
    return stored.means.customer, stored.means.method


def _refusal_to_charge(
    runtime: Runtime, message: ChargeSubscription, stored: StoredMethod | None, order: Order
) -> Refused | None:
    gateway = runtime.gateways.get(message.gateway)
    if gateway is None:
        return Refused("gateway_is_off" if message.gateway in REGISTRY else "gateway_unknown")
    if (problem := _problem_of_method(message, stored)) is not None:
        return problem
    if (refusal := gateway.refusal(order)) is not None:
        return Refused(f"cannot_take_{refusal.field.replace('.', '_')}")
    limits = runtime.spending_limits[gateway.name]
    if isinstance(order.method, Wallet) and order.amount.minor_units > limits.per_payment:
        return Refused("over_wallet_limit_at_once")
    return None


def _problem_of_method(message: ChargeSubscription, stored: StoredMethod | None) -> Refused | None:
    if stored is None:
        return _UNKNOWN_METHOD
    if stored.means is None:
        return _REMOVED_METHOD
    if stored.customer_id != message.customer_id:
        return Refused("payment_method_of_another_customer")
    if stored.gateway != message.gateway:
        return Refused("payment_method_of_another_gateway")
    return None


def _accepted(message: ChargeSubscription, now: datetime) -> ChargeProgressed:
    return ChargeProgressed(
        payment_id=message.payment_id,
        subscription_id=message.subscription_id,
        attempts_made=0,
        step="accepted",
        progressed_at=now,
    )


async def _with_spending(runtime: Runtime, connection: Connection, each: _Prepared) -> _Prepared:
    """Count what our own wallet shall pay to its day, before anything is signed."""
    payment = each.charge.payment
    if each.refused is not None or not isinstance(payment.method, Wallet):
        return each
    is_within = await attempt_store.spend(
        connection,
        payment.gateway,
        payment.amount,
        payment.created_at.date(),
        runtime.spending_limits[payment.gateway].per_day,
    )
    return each if is_within else replace(each, refused=Refused("over_wallet_limit_on_one_day"))


async def _refuse(
    connection: Connection, refused: Sequence[_Prepared], now: datetime
) -> list[Outgoing]:
    """End what was recorded and cannot be carried out."""
    if not refused:
        return []
    payments = await payment_store.find_by_ids(connection, [each.id for each in refused])
    changes, steps = [], []
    announcements: dict[str, tuple[Message, str | None]] = {}
    for each in sorted(refused, key=lambda each: each.id):
        assert each.refused is not None, "what is refused says why"
        before = payments[each.id]
        ended = before._replace(
            state=next_state(before.state, PaymentState.FAILED),
            reason=f"{FailureKind.CONFIGURATION}:{each.refused.code}",
            next_check_at=None,
        )
        changes.append(Change(ended, "order_refused"))
        steps.append(step(before, changes[-1], now))
        fact = _refusal_of(each.delivery.message, each.refused, now)
        announcements[each.id] = fact, each.charge.traceparent
    await attempt_store.save_attempts(
        connection, [AttemptState(each.charge.reference, "put_off") for each in refused]
    )
    _, outgoing = await payment_store.save_and_announce(
        connection, changes, announcements, now, steps=steps
    )
    return outgoing


def _refusal_of(message: ChargeSubscription, refused: Refused, now: datetime) -> Message:
    return never_begun(
        message, kind=FailureKind.CONFIGURATION, code=refused.code, advice=refused.advice, now=now
    )


def _count(
    deliveries: Sequence[Delivery[ChargeSubscription]],
    fresh: Sequence[_Prepared],
    *,
    is_kept_back: bool,
) -> None:
    events: Mapping[str, str] = {
        each.id: "refused" if each.refused else "put_off" if is_kept_back else "recorded"
        for each in fresh
    }
    for delivery in deliveries:
        message = delivery.message
        # What is in no registry would make as many labels as somebody can think of.
        gateway = message.gateway if message.gateway in REGISTRY else "unknown"
        event = "refused" if _unfit(message) else events.get(message.payment_id, "repeated")
        bound(metrics.CHARGES, gateway, event).inc()
