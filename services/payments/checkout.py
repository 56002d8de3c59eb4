"""Opens payments: records what a caller wants, then opens the gateway's page for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from opentelemetry.trace import SpanKind

from services.payments import metrics, store
from services.payments.domain.check_schedule import next_check_at
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import RESTING, next_state
from services.payments.runtime import Judgement, Runtime, ask
from services.payments.store import PaymentView
from shared.contracts import payments as contract
from shared.contracts.base import Message
from shared.errors import (
    GatewayRefusedError,
    GatewayUnavailableError,
    InvalidInputError,
    NotFoundError,
)
from shared.gateways.interface import (
    CheckoutOpened,
    CheckoutOrder,
    CheckoutRefused,
    CheckoutUnknown,
    Paid,
    PaymentGateway,
    Unknown,
)
from shared.identifiers import is_id, new_id
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from shared.money import Money

#: States that say no more than that a page is wanted or was opened.
_WAITING_FOR_PAGE: Final = frozenset(
    {PaymentState.CREATED, PaymentState.PENDING, PaymentState.UNKNOWN}
)


@dataclass(frozen=True, slots=True)
class Purchase:
    """What a caller wants to be paid for."""

    gateway: str
    amount: Money
    customer: dict[str, str]
    product: dict[str, str]
    return_url: str | None
    metadata: dict[str, str]


async def create_payment(runtime: Runtime, payment_id: str, purchase: Purchase) -> PaymentView:
    """Record a payment, open the gateway's page for it and return it with its address.

    Repeated with the same id, it carries on: the page that was opened is returned, and another is
    opened only when the gateway says that nothing was paid under the earlier reference.

    Raises:
        InvalidInputError: there is no such gateway, or it cannot take this amount.
        GatewayRefusedError: the gateway refused; the payment has failed.
        GatewayUnavailableError: the gateway did not say; the request may be repeated.
    """
    gateway = runtime.gateways.get(purchase.gateway)
    if gateway is None:
        raise InvalidInputError(
            f"gateway must be one of {', '.join(sorted(runtime.gateways))}",
            details={"gateway": "unknown"},
        )
    if (refusal := gateway.refusal(purchase.amount)) is not None:
        raise InvalidInputError(refusal, details={"amount": refusal})
    attempt = await _start_payment(runtime, payment_id, purchase)
    if attempt is not None:
        await _open_checkout(runtime, gateway, attempt, purchase)
    return await read_payment(runtime, payment_id)


async def read_payment(runtime: Runtime, payment_id: str) -> PaymentView:
    """Return a payment.

    Raises:
        NotFoundError: no payment has this id.
    """
    view = None
    if is_id(payment_id, "pay"):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            view = await store.find_view(connection, payment_id)
    if view is None:
        raise NotFoundError(f"no payment has the id {payment_id[:40]!r}")
    return view


async def _start_payment(
    runtime: Runtime, payment_id: str, purchase: Purchase
) -> store.Attempt | None:
    """Commit the payment and a new attempt; None when the customer can pay, or has paid."""
    now = runtime.core.clock()
    reference = new_id("att", now)
    new = store.NewPayment(
        id=payment_id,
        gateway=purchase.gateway,
        amount=purchase.amount,
        customer=purchase.customer,
        product=purchase.product,
        return_url=purchase.return_url,
        metadata=purchase.metadata,
        created_at=now,
        expires_at=now + runtime.expires_after,
        next_check_at=now + runtime.first_check_after,
    )
    async with runtime.core.database.transaction() as connection:
        is_new = await store.insert_payment(connection, new, reference)
        if is_new:
            await store.insert_attempt(
                connection, reference=reference, payment_id=payment_id, number=1, now=now
            )
            payment = (await store.find_by_ids(connection, [payment_id]))[payment_id]
            await store.insert_history(connection, payment, "created", now)
            return store.Attempt(reference, payment_id, 1, "started", None)
        last = await store.find_last_attempt(connection, payment_id)
    assert last is not None, "a payment is committed with its first attempt"
    return await _resume(runtime, last)


async def _resume(runtime: Runtime, last: store.Attempt) -> store.Attempt | None:
    """Carry on a request that was cut off: never a second page while the first may be paid."""
    if last.state not in {"started", "abandoned"}:
        return None
    view = await read_payment(runtime, last.payment_id)
    if view.payment.state in RESTING:
        return None
    verdict = await ask(runtime, view.payment, last.reference, None, None)
    now = runtime.core.clock()
    if isinstance(verdict, Unknown):
        raise GatewayUnavailableError(
            "the gateway does not say whether the earlier try was paid",
            details={"paymentId": last.payment_id},
        )
    if isinstance(verdict, Paid):
        await runtime.results.submit(Judgement(view.payment, verdict, None, now, None))
        return None
    reference, number = new_id("att", now), last.number + 1
    async with runtime.core.database.transaction() as connection:
        await store.save_attempt(connection, last.reference, state="abandoned")
        await store.insert_attempt(
            connection,
            reference=reference,
            payment_id=last.payment_id,
            number=number,
            now=now,
        )
    return store.Attempt(reference, last.payment_id, number, "started", None)


async def _open_checkout(
    runtime: Runtime, gateway: PaymentGateway, attempt: store.Attempt, purchase: Purchase
) -> None:
    order = CheckoutOrder(
        reference=attempt.reference,
        amount=purchase.amount,
        customer_id=purchase.customer["id"],
        customer_name=purchase.customer["name"],
        customer_email=purchase.customer["email"],
        customer_phone=purchase.customer["phone"],
        product_name=purchase.product["name"],
    )
    with runtime.core.tracing.span(
        "payments.open_checkout", kind=SpanKind.CLIENT, attributes={"payment": attempt.payment_id}
    ) as traceparent:
        result = await gateway.open_checkout(order)
    async with runtime.core.database.transaction() as connection:
        payment = (await store.find_by_ids(connection, [attempt.payment_id]))[attempt.payment_id]
        change = _change_after(runtime, payment, result)
        message = _announcement_of(attempt, result, purchase)
        announcements = {payment.id: (message, traceparent)} if message is not None else {}
        saved: frozenset[str] = frozenset()
        outgoing: list[Outgoing] = []
        if change is not None:
            saved, outgoing = await store.save_and_announce(
                connection, [change], announcements, runtime.core.clock()
            )
        if not saved:
            # A notice was faster than our own answer and has decided more than we could.
            outgoing = await outbox.append(connection, list(announcements.values()))
        if isinstance(result, CheckoutOpened):
            await store.save_attempt(
                connection,
                attempt.reference,
                state="open",
                checkout_url=result.checkout_url,
                session_key=result.session_key,
            )
        elif isinstance(result, CheckoutRefused):
            await store.save_attempt(connection, attempt.reference, state="refused")
    runtime.core.publisher.publish(outgoing)
    outcome = type(result).__name__.removeprefix("Checkout").lower()
    metrics.CREATED.labels(gateway.name, outcome).inc()
    if isinstance(result, CheckoutRefused):
        raise GatewayRefusedError(
            f"the gateway refused: {result.reason}", details={"paymentId": attempt.payment_id}
        )
    if isinstance(result, CheckoutUnknown):
        raise GatewayUnavailableError(
            f"the gateway did not answer ({result.reason}); repeat the request with the same key",
            details={"paymentId": attempt.payment_id},
        )


def _announcement_of(
    attempt: store.Attempt,
    result: CheckoutOpened | CheckoutRefused | CheckoutUnknown,
    purchase: Purchase,
) -> Message | None:
    if not isinstance(result, CheckoutOpened) or purchase.return_url is None:
        return None
    return contract.CheckoutOpened(
        payment_id=attempt.payment_id,
        reference=attempt.reference,
        return_url=purchase.return_url,
    )


def _change_after(
    runtime: Runtime,
    payment: Payment,
    result: CheckoutOpened | CheckoutRefused | CheckoutUnknown,
) -> Change | None:
    """Return what the answer makes of the payment; None when a notice has said more by now."""
    if payment.state not in _WAITING_FOR_PAGE:
        return None
    now = runtime.core.clock()
    match result:
        case CheckoutOpened():
            opened = payment._replace(
                state=next_state(payment.state, PaymentState.PENDING),
                reason="customer_must_pay",
            )
            return Change(opened, "checkout_opened")
        case CheckoutRefused():
            failed = payment._replace(
                state=next_state(payment.state, PaymentState.FAILED),
                reason=f"gateway_refused:{result.reason}"[:300],
                next_check_at=None,
            )
            return Change(failed, "checkout_refused")
        case CheckoutUnknown():
            state = next_state(payment.state, PaymentState.UNKNOWN)
            unknown = payment._replace(
                state=state,
                reason=f"checkout_unknown:{result.reason}"[:300],
                next_check_at=next_check_at(state, payment.checks_made, now),
            )
            return Change(unknown, "checkout_unknown")
