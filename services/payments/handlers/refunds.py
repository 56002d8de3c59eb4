"""Gives money back: recorded before the gateway hears of it, asked about until it is decided."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from services.payments import metrics
from services.payments.domain.model import Deferred, Payment, PaymentState
from services.payments.domain.refunds import (
    Refund,
    RefundChange,
    RefundState,
    is_refundable,
    left_of,
    order_of,
    settle_refund,
)
from services.payments.domain.statistics import step
from services.payments.flow.admission import Purpose
from services.payments.flow.charges import tell
from services.payments.handlers.due_work import gateways_at_rest, take_up_for_ever
from services.payments.handlers.orders import read_payment
from services.payments.runtime import Runtime
from services.payments.store import payments as payment_store
from services.payments.store import refunds as refund_store
from services.payments.store.refunds import NewRefund
from shared.contracts.base import Message
from shared.contracts.payments import PaymentRefunded, RefundReturned
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError, NotSupportedError, SluiceError
from shared.gateways.interface import Refunded, RefundFailed, RefundOutcome, refund_refusal
from shared.gateways.send_deadline import send_within
from shared.identifiers import is_id
from shared.messaging.envelope import Outgoing
from shared.money import Money
from shared.web.operator_actions import Instruction, find_action, record_action

log = structlog.get_logger()

#: Ids of refunds begin with this.
ID_PREFIX: Final = "ref"

#: A refund whose gateway is not called at the moment is not taken up again sooner.
PUT_OFF_MIN: Final = timedelta(seconds=5)

#: The same while its gateway is switched off here.
OFF_DELAY: Final = timedelta(minutes=10)


#: A call that has not left by then does not leave at all. It ends within the lease, so whoever has
#: the refund next is the only one who asks.
SEND_WITHIN_SECONDS: Final = 30.0

#: Between two searches for refunds that are due: the first look after a lost answer is after 10 s.
INTERVAL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class RefundWish:
    """What a caller wants to be given back; without an amount all that is left."""

    amount: int | None
    reason: str
    requested_by: str


async def request_refund(
    runtime: Runtime, payment_id: str, refund_id: str, wish: RefundWish
) -> Refund:
    """Record a refund, ask the gateway for it, and return where it stands.

    Repeated with the same id, it carries on. Whatever the gateway answers, or does not, the refund
    is there: it is asked about until it is decided.

    Raises:
        NotFoundError: no payment has this id.
        NotSupportedError: the gateway gives no money back, or not in this currency.
        ConflictError: there is not as much left, or the gateway is off.
    """
    payment = (await read_payment(runtime, payment_id)).payment
    async with runtime.core.database.connection() as connection:
        refund = await refund_store.find_refund(connection, refund_id)
    if refund is None:
        await _record(runtime, payment, refund_id, wish)
    async with runtime.core.database.connection() as connection:
        claimed = await refund_store.claim_refund(connection, refund_id, runtime.core.clock())
    if claimed is not None:
        await _carry_out(runtime, claimed)
    return await read_refund(runtime, refund_id)


async def _record(runtime: Runtime, payment: Payment, refund_id: str, wish: RefundWish) -> None:
    """Commit a refund before its gateway hears of it.

    What is read here makes refusals readable; what holds when others write at the same time is
    that the database reserves the amount.
    """
    gateway = runtime.gateways.get(payment.gateway)
    if gateway is None:
        problem = f"{payment.gateway} is switched off"
        raise ConflictError(problem, details={"gateway": problem})
    refusal = refund_refusal(gateway.name, gateway.capabilities, payment.amount.currency)
    if refusal is not None:
        raise NotSupportedError(refusal.problem, details={refusal.field: refusal.problem})
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        amount = await _amount(connection, payment, wish)
        new = NewRefund(
            id=refund_id,
            payment_id=payment.id,
            gateway=payment.gateway,
            amount=amount,
            reason=wish.reason,
            requested_by=wish.requested_by,
            created_at=now,
        )
        if await refund_store.insert_refund(connection, new):
            locked = await payment_store.lock_payment(connection, payment.id)
            await payment_store.insert_history(connection, locked, "refund_requested", now)
            metrics.REFUNDS.labels(payment.gateway, "requested").inc()


async def _amount(connection: Connection, payment: Payment, wish: RefundWish) -> Money:
    """Return how much is to be given back.

    Raises:
        ConflictError: there is nothing, or not as much.
    """
    left = left_of(payment, await refund_store.find_returned(connection, payment.id))
    if not is_refundable(payment) or left == 0:
        problem = f"is {payment.state}, of which nothing can be given back"
        raise ConflictError(f"the payment {problem}", details={"paymentId": problem})
    amount = left if wish.amount is None else wish.amount
    if amount > left:
        problem = f"is more than is left to give back: {Money(left, payment.amount.currency)}"
        raise ConflictError(f"amount {problem}", details={"amount": problem, "left": left})
    if payment.state is PaymentState.ON_HOLD and amount != payment.amount.minor_units:
        problem = "must be the whole payment's, because that is on hold"
        raise ConflictError(f"amount {problem}", details={"amount": problem})
    return Money(amount, payment.amount.currency)


async def read_refund(runtime: Runtime, refund_id: str) -> Refund:
    """Return a refund.

    Raises:
        NotFoundError: no refund has this id.
    """
    refund = None
    if is_id(refund_id, ID_PREFIX):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            refund = await refund_store.find_refund(connection, refund_id)
    if refund is None:
        raise NotFoundError(f"no refund has the id {refund_id[:40]!r}")
    return refund


async def carry_out_refunds(runtime: Runtime) -> None:
    """Send, for ever, refunds that are due to their gateways, or ask what became of them."""
    await take_up_for_ever(
        "refunds", partial(take_up_refunds, runtime), interval_seconds=INTERVAL_SECONDS
    )


async def take_up_refunds(runtime: Runtime, most: int) -> list[asyncio.Task[None]]:
    """Begin to carry out refunds that are due, at most so many, and return the work.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; leases run out and it is tried again.
    """
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        due = await refund_store.claim_due_refunds(
            connection, now, most, but_of=gateways_at_rest(runtime)
        )
    return [asyncio.create_task(_try(runtime, refund)) for refund in due]


async def _try(runtime: Runtime, refund: Refund) -> None:
    try:
        await _carry_out(runtime, refund)
    except SluiceError as error:
        # Its lease runs out, and it is taken up again.
        log.warning("refund_not_recorded", refund=refund.id, error=error.message)


async def _carry_out(runtime: Runtime, refund: Refund) -> None:
    """Make the one call that a claimed refund is due for, and record what it says.

    Only the very first call is made as a new refund. After it, whoever was cut off, it is asked
    what became of it; where a gateway needs the same call for that, it is the same refund.
    """
    with runtime.core.tracing.span(
        "payments.refund",
        kind=SpanKind.CLIENT,
        attributes={"payment": refund.payment_id, "refund": refund.id},
    ) as traceparent:
        gateway = runtime.gateways.get(refund.gateway)
        if gateway is None:
            until = runtime.core.clock() + OFF_DELAY
            await _put_off(runtime, refund, Deferred("gateway_is_off", until))
            return
        payment = (await read_payment(runtime, refund.payment_id)).payment
        async with runtime.core.database.connection() as connection:
            reference = await refund_store.find_paid_reference(connection, payment.id)
        order = order_of(refund, payment, reference)
        call = gateway.refund if _is_first(refund) else gateway.look_up_refund
        with send_within(SEND_WITHIN_SECONDS):
            outcome = await runtime.flow.call(
                refund.gateway,
                payment.priority,
                Purpose.CHARGE if refund.handle is None else Purpose.CHECK,
                partial(call, order),
            )
        if isinstance(outcome, Deferred):
            await _put_off(runtime, refund, outcome)
        else:
            await _record_outcome(runtime, refund, outcome, traceparent)


def _is_first(refund: Refund) -> bool:
    return refund.handle is None and refund.sends == 1


async def _put_off(runtime: Runtime, refund: Refund, deferred: Deferred) -> None:
    """Plan a call that was not made; it counts as none."""
    now = runtime.core.clock()
    sends = refund.sends if refund.handle is not None else refund.sends - 1
    waiting = replace(
        refund,
        detail=deferred.reason,
        sends=sends,
        sent_at=refund.sent_at if sends else None,
        next_look_at=max(deferred.until, now + PUT_OFF_MIN),
        updated_at=now,
    )
    async with runtime.core.database.connection() as connection:
        await refund_store.save_refund(connection, waiting)


async def _record_outcome(
    runtime: Runtime, refund: Refund, outcome: RefundOutcome, traceparent: str | None
) -> None:
    """Commit what an answer makes of a refund and of its payment, and announce it."""
    async with runtime.core.database.transaction() as connection:
        saved = await _settle(runtime, connection, refund, outcome, traceparent)
    if saved is None:
        # Its lease ran out and another has it, who asks under the same reference.
        log.warning("refund_answered_too_late", refund=refund.id)
        return
    decided, outgoing = saved
    runtime.core.publisher.publish(outgoing)
    _measure(decided)


async def _settle(
    runtime: Runtime,
    connection: Connection,
    refund: Refund,
    outcome: RefundOutcome,
    traceparent: str | None,
) -> tuple[RefundChange, list[Outgoing]] | None:
    """Write what an outcome makes of a refund and its payment; None when another was faster."""
    now = runtime.core.clock()
    payment = await payment_store.lock_payment(connection, refund.payment_id)
    returned = await refund_store.find_returned(connection, refund.payment_id)
    decided = settle_refund(refund, payment, returned, outcome, now=now)
    if not await refund_store.save_refund(connection, decided.refund):
        return None
    if decided.change is None:
        return decided, []
    fact = _fact(decided, payment)
    announcements = {} if fact is None else {payment.id: (fact, traceparent)}
    _, outgoing = await payment_store.save_and_announce(
        connection,
        [decided.change],
        announcements,
        now,
        steps=[step(payment, decided.change, now)],
    )
    outgoing += await tell(connection, payment, decided.change, now=now, traceparent=traceparent)
    return decided, outgoing


def _fact(decided: RefundChange, payment: Payment) -> Message | None:
    """Return what others must hear of a change."""
    refund = decided.refund
    if decided.is_returned:
        return RefundReturned(
            payment_id=payment.id,
            refund_id=refund.id,
            customer_id=payment.customer_id,
            product_id=payment.product_id,
            amount=refund.amount.minor_units,
            currency=refund.amount.currency,
            refunded_total=decided.refunded_total,
            returned_at=refund.updated_at,
        )
    if not decided.is_success:
        return None
    return PaymentRefunded(
        payment_id=payment.id,
        refund_id=refund.id,
        customer_id=payment.customer_id,
        product_id=payment.product_id,
        amount=refund.amount.minor_units,
        currency=refund.amount.currency,
        refunded_total=decided.refunded_total,
        is_full=decided.refunded_total == payment.amount.minor_units,
        refunded_at=refund.updated_at,
    )


def _measure(decided: RefundChange) -> None:
    refund = decided.refund
    if decided.is_returned:
        metrics.REFUNDS.labels(refund.gateway, "returned").inc()
        log.error("refund_came_back", refund=refund.id, payment=refund.payment_id)
    elif decided.change is not None:
        metrics.REFUNDS.labels(refund.gateway, refund.state).inc()


async def look_again(runtime: Runtime, refund_id: str, instruction: Instruction) -> Refund:
    """Let the gateway be asked about the refunds of a refund's payment at once.

    Raises:
        NotFoundError: no refund has this id.
        ConflictError: it has failed; nothing can become of it.
    """
    refund = await read_refund(runtime, refund_id)
    if refund.state is RefundState.FAILED:
        problem = "has failed, which is final"
        raise ConflictError(f"the refund {problem}", details={"refundId": problem})
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        await refund_store.look_now(connection, [refund.payment_id], now)
        action = instruction.carried_out("look_up_refund", f"refund:{refund.id}", at=now)
        await record_action(connection, action)
    return await read_refund(runtime, refund_id)


async def decide_by_hand(
    runtime: Runtime, refund_id: str, instruction: Instruction, *, is_given_back: bool
) -> Refund:
    """Decide a refund of which the gateway never says what became, as a person found out.

    Raises:
        NotFoundError: no refund has this id.
        ConflictError: the gateway does say, or it is being asked right now.
    """
    async with runtime.core.database.connection() as connection:
        if await find_action(connection, instruction.action_id) is not None:
            return await read_refund(runtime, refund_id)  # A request that is carried on.
    known = await read_refund(runtime, refund_id)
    if known.state is not RefundState.UNKNOWN:
        problem = f"is {known.state}: only what the gateway does not say is decided by hand"
        raise ConflictError(f"the refund {problem}", details={"refundId": problem})
    outcome = Refunded("by_hand") if is_given_back else RefundFailed("decided_by_hand")
    async with runtime.core.database.transaction() as connection:
        # An answer on its way would be lost: whoever waits for it goes first.
        refund = await refund_store.claim_unknown_refund(connection, refund_id)
        if refund is None:
            raise ConflictError("the gateway is being asked about it right now; try again")
        saved = await _settle(runtime, connection, refund, outcome, None)
        assert saved is not None, "a claimed row is changed by nobody else"
        decided, outgoing = saved
        action = instruction.carried_out(
            "decide_refund",
            f"refund:{refund.id}",
            at=runtime.core.clock(),
            before={"state": refund.state},
            after={"state": decided.refund.state},
        )
        await record_action(connection, action)
    runtime.core.publisher.publish(outgoing)
    _measure(decided)
    return decided.refund
