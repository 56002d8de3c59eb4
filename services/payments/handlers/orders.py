"""Starts payments: records what a caller wants, then asks the gateway for the money, once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from services.payments.domain.model import Deferred
from services.payments.flow.admission import Purpose
from services.payments.flow.retry_planning import NOT_ATTEMPTED
from services.payments.handlers.beginning import (
    BEYOND_START,
    SEND_WITHIN_SECONDS,
    begin,
    put_off,
    record_outcome,
    take_up,
)
from services.payments.runtime import Runtime
from services.payments.store import attempts as attempt_store
from services.payments.store import payment_views
from services.payments.store import payments as payment_store
from services.payments.store.attempts import StoredOrder
from services.payments.store.controls import NEW_PAYMENTS
from services.payments.store.payment_views import PaymentView
from services.payments.store.retries import find_retry
from shared.database import Connection
from shared.errors import (
    GatewayRefusedError,
    GatewayUnavailableError,
    InvalidInputError,
    NotAcceptingError,
    NotFoundError,
    SpendingLimitError,
)
from shared.gateways.interface import (
    Checkout,
    Customer,
    Declined,
    FailureKind,
    Method,
    Order,
    PaymentGateway,
    Unknown,
    Wallet,
)
from shared.gateways.send_deadline import send_within
from shared.identifiers import is_id, new_id
from shared.money import Money

#: When a caller who comes during a drain may come again; nobody knows how long it lasts.
DRAIN_RETRY_AFTER_SECONDS: Final = 15


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a caller wants to be paid for; without a method the gateway's first one is taken."""

    gateway: str
    method: Method | None
    amount: Money
    customer: dict[str, str]
    product: dict[str, str]
    return_url: str | None
    metadata: dict[str, str]
    #: Whether a failure is followed by further tries of ours.
    retries_automatically: bool = False


async def create_payment(runtime: Runtime, payment_id: str, purchase: Purchase) -> PaymentView:
    """Record a payment, ask the gateway for the money and return where the payment stands.

    Repeated with the same id, it carries on: what was begun is returned, and the gateway is asked
    anew only when it says that it knows of no try under the earlier reference.

    Raises:
        InvalidInputError: there is no such gateway, or it cannot take this order.
        SpendingLimitError: the wallet must not spend as much.
        GatewayRefusedError: the gateway would not begin; the payment has failed.
        GatewayUnavailableError: the gateway did not say; the request may be repeated.
        NotAcceptingError: an operator lets nothing new in.
    """
    gateway = runtime.gateways.get(purchase.gateway)
    if gateway is None:
        raise InvalidInputError(
            f"gateway must be one of {', '.join(sorted(runtime.gateways))}",
            details={"gateway": "unknown"},
        )
    now = runtime.core.clock()
    order = Order(
        reference=new_id("att", now),
        amount=purchase.amount,
        method=purchase.method or _default_method(gateway),
        customer=Customer(**purchase.customer),
        product_name=purchase.product["name"],
        started_at=now,
    )
    if isinstance(order.method, Wallet):
        _require_within_limit(runtime, gateway, order)
    if (refusal := gateway.refusal(order)) is not None:
        raise InvalidInputError(refusal.problem, details={refusal.field: refusal.problem})
    with send_within(SEND_WITHIN_SECONDS):  # From before it is recorded.
        stored = await _record_order(runtime, payment_id, purchase, order)
        if stored is not None:
            await _start(runtime, gateway, stored)
    return await read_payment(runtime, payment_id)


def _default_method(gateway: PaymentGateway) -> Method:
    methods = gateway.capabilities.methods
    if methods[0] != "checkout":
        problem = f"{gateway.name} takes {', '.join(methods)}: say which, and what it needs"
        raise InvalidInputError(problem, details={"method": problem})
    return Checkout()


async def read_payment(runtime: Runtime, payment_id: str) -> PaymentView:
    """Return a payment.

    Raises:
        NotFoundError: no payment has this id.
    """
    view = None
    if is_id(payment_id, "pay"):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            view = await payment_views.find_view(connection, payment_id)
    if view is None:
        raise NotFoundError(f"no payment has the id {payment_id[:40]!r}")
    return view


async def _record_order(
    runtime: Runtime, payment_id: str, purchase: Purchase, order: Order
) -> StoredOrder | None:
    """Commit the payment with its first attempt; None when an earlier request did all there is."""
    now = order.started_at
    new = payment_store.NewPayment(
        id=payment_id,
        gateway=purchase.gateway,
        method=order.method,
        amount=purchase.amount,
        customer=purchase.customer,
        product=purchase.product,
        return_url=purchase.return_url,
        metadata=purchase.metadata,
        created_at=now,
        expires_at=now + runtime.expires_after,
        next_check_at=now + runtime.first_check_after,
        retries_automatically=purchase.retries_automatically,
        priority=runtime.priority_of(purchase.amount),
    )
    async with runtime.core.database.transaction() as connection:
        if await payment_store.insert_payment(connection, new, order.reference):
            _require_open(runtime)
            payment = await payment_store.lock_payment(connection, payment_id)
            await payment_store.insert_history(connection, payment, "created", now)
            return await record_attempt(
                runtime, connection, purchase.gateway, order, payment_id=payment_id, number=1
            )
        last = await attempt_store.find_last_attempt(connection, payment_id)
    assert last is not None, "a payment is committed with its first attempt"
    if last.state == "put_off":
        return await take_up(runtime, last.payment_id, last.reference)
    return await _resume(runtime, last, purchase.gateway)


def _require_open(runtime: Runtime) -> None:
    """Refuse what is new during a drain; what was begun before is carried on."""
    if (reason := runtime.flow.controls.paused.get(NEW_PAYMENTS)) is not None:
        raise NotAcceptingError(
            f"no new payments are accepted: {reason}", retry_after_seconds=DRAIN_RETRY_AFTER_SECONDS
        )


async def record_attempt(
    runtime: Runtime,
    connection: Connection,
    gateway_name: str,
    order: Order,
    *,
    payment_id: str,
    number: int,
) -> StoredOrder:
    """Record an attempt, and what it spends of our own, before the gateway hears of it."""
    if isinstance(order.method, Wallet):
        await _spend(runtime, connection, gateway_name, order)
    await attempt_store.insert_attempt(
        connection,
        reference=order.reference,
        payment_id=payment_id,
        number=number,
        now=order.started_at,
    )
    # Read back, so that the first call is made from what every later one will be made from.
    return (await attempt_store.find_orders(connection, [order.reference]))[order.reference]


async def _spend(runtime: Runtime, connection: Connection, gateway_name: str, order: Order) -> None:
    """Count the order to its day in the transaction that records it.

    An attempt that ends unpaid is not taken off again: nothing then has to be right for the limit
    to hold, and it errs on the safe side.
    """
    amount, allowed = order.amount, runtime.spending_limits[gateway_name].per_day
    day = order.started_at.date()
    if not await attempt_store.spend(connection, gateway_name, amount, day, allowed):
        raise _over_limit(Money(allowed, amount.currency), "on one day")


def _require_within_limit(runtime: Runtime, gateway: PaymentGateway, order: Order) -> None:
    allowed = runtime.spending_limits[gateway.name].per_payment
    if order.amount.minor_units > allowed:
        raise _over_limit(Money(allowed, order.amount.currency), "at once")


def _over_limit(limit: Money, when: str) -> SpendingLimitError:
    problem = f"the wallet may pay {limit} {when} at most"
    return SpendingLimitError(problem, details={"amount": problem})


async def _resume(
    runtime: Runtime, last: attempt_store.Attempt, gateway_name: str
) -> StoredOrder | None:
    """Carry on a request that was cut off: never a second try while the first may be one."""
    if last.state not in {"started", "abandoned"}:
        return None
    if last.is_in_hand:  # What was put off is also begun by workers.
        raise GatewayUnavailableError(
            "a worker asks the gateway at this moment; repeat the request with the same key",
            details={"paymentId": last.payment_id},
        )
    async with runtime.core.database.connection() as connection:
        payment = (await payment_store.find_by_ids(connection, [last.payment_id]))[last.payment_id]
        if payment.state in BEYOND_START:
            return None
        if payment.retries_automatically and await find_retry(connection, payment.id) is not None:
            return None  # It goes on by itself.
        stored = (await attempt_store.find_orders(connection, [last.reference]))[last.reference]
    asked_at = runtime.core.clock()
    outcome = await runtime.flow.call(
        gateway_name,
        payment.priority,
        Purpose.CHECK,
        partial(runtime.gateways[gateway_name].look_up, stored.order),
    )
    if isinstance(outcome, Deferred):
        raise put_off(outcome, asked_at, last.payment_id)
    if isinstance(outcome, Unknown):
        raise GatewayUnavailableError(
            "the gateway does not say what became of the earlier try",
            details={"paymentId": last.payment_id},
        )
    if outcome != NOT_ATTEMPTED:
        await record_outcome(runtime, stored, outcome, asked_at, None)
        return None
    now = runtime.core.clock()
    order = replace(stored.order, reference=new_id("att", now), started_at=now, handle=None)
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, last.payment_id)
        if payment.state in BEYOND_START or payment.reference != last.reference:
            return None  # A notice, or another request, was faster.
        given_up = attempt_store.AttemptState(last.reference, "abandoned")
        await attempt_store.save_attempts(connection, [given_up])
        return await record_attempt(
            runtime,
            connection,
            gateway_name,
            order,
            payment_id=last.payment_id,
            number=last.number + 1,
        )


async def _start(runtime: Runtime, gateway: PaymentGateway, stored: StoredOrder) -> None:
    asked_at = runtime.core.clock()
    verdict = await begin(runtime, gateway, stored)
    details = {"paymentId": stored.payment_id}
    if isinstance(verdict, Deferred):
        raise put_off(verdict, asked_at, stored.payment_id)
    if isinstance(verdict, Unknown):
        problem = f"the gateway did not answer ({verdict.reason})"
        raise GatewayUnavailableError(
            f"{problem}; repeat the request with the same key", details=details
        )
    if isinstance(verdict, Declined) and verdict.kind is FailureKind.CONFIGURATION:
        # Not even begun. What was begun and declined is no error: the payment says so.
        raise GatewayRefusedError(f"the gateway refused: {verdict.reason}", details=details)
