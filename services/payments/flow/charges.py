"""What others hear of a payment: the one place that makes these messages.

Enrollment hears of money. The scheduler hears of its charges whatever becomes of them, in the
commit that makes it so; who may use what follows from the subscription then, not from the payment.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.retries import CODE_LENGTH_MAX, RetryState
from services.payments.domain.retry_advice import ADVICE, Advice
from services.payments.domain.settlement import STILL_OPEN, Change
from services.payments.domain.state_machine import RESTING
from services.payments.flow.retry_planning import Planned
from services.payments.store import retries as retry_store
from shared.contracts.payments import (
    ChargeFailed,
    ChargeProgressed,
    ChargeSucceeded,
    PaymentSucceeded,
)
from shared.contracts.scheduler import CancelCharge, ChargeSubscription
from shared.database import Connection
from shared.gateways.interface import FailureKind
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing

#: Why a payment is not tried again beside a page or a prompt that may still be paid.
EARLIER_TRY_IS_OPEN: Final = "earlier_try_is_still_open"

#: The gateway has the order now, and its answer was not the end.
_SENT: Final = frozenset({"accepted", "checkout_opened", "charge_unknown", "checkout_unknown"})

_UNPAID: Final = frozenset({PaymentState.FAILED, PaymentState.CANCELLED})

#: How reasons begin, or end, of payments that ended while the gateway might still take the money.
_NOT_SURELY_OVER: Final = (STILL_OPEN, "expired_unknown:")

_KINDS: Final = frozenset(FailureKind)


def success(
    payment: Payment, *, tries: int, asked_at: datetime, now: datetime
) -> PaymentSucceeded | ChargeSucceeded:
    """Announce a success; `asked_at` is when what led to it began."""
    if payment.subscription_id is None:
        return PaymentSucceeded(
            payment_id=payment.id,
            customer_id=payment.customer_id,
            product_id=payment.product_id,
            amount=payment.amount.minor_units,
            currency=payment.amount.currency,
            noticed_at=asked_at,
        )
    return ChargeSucceeded(
        payment_id=payment.id,
        subscription_id=payment.subscription_id,
        attempts_made=tries,
        amount=payment.amount.minor_units,
        currency=payment.amount.currency,
        gateway=payment.gateway,
        gateway_payment_id=(payment.gateway_payment_id or "")[:200],
        succeeded_at=now,
    )


def fact_of(
    before: Payment,
    change: Change,
    *,
    planned: Planned | None,
    tries: int,
    asked_at: datetime,
    now: datetime,
) -> PaymentSucceeded | ChargeSucceeded | ChargeFailed | ChargeProgressed | None:
    """Return what others must hear of a change of a payment; None when that is nothing.

    Args:
        before: The payment as it was.
        change: What is saved.
        planned: Its retry as it is saved with that, if it changes.
        tries: Tries that reached the gateway, or may have.
        asked_at: When what led to the change began.
        now: The present moment.
    """
    payment = change.payment
    if change.is_success:
        return success(payment, tries=tries, asked_at=asked_at, now=now)
    if payment.subscription_id is None:
        return None
    if planned is not None and planned.event == "scheduled":
        return retry_planned(payment, planned, tries=tries, now=now)
    if is_over(before, change):
        return failure(change, planned=planned, tries=tries, now=now)
    is_held = payment.state is PaymentState.ON_HOLD and before.state is not PaymentState.ON_HOLD
    if change.event in _SENT or (is_held and not change.gives_back):
        return ChargeProgressed(
            payment_id=payment.id,
            subscription_id=payment.subscription_id,
            attempts_made=tries,
            step="held" if is_held else "sent",
            progressed_at=now,
        )
    return None


async def tell(
    connection: Connection,
    before: Payment,
    change: Change,
    *,
    now: datetime,
    traceparent: str | None = None,
) -> list[Outgoing]:
    """Announce a change that came without an answer of a gateway, in its transaction.

    Its payment is locked. Returns the messages to publish.
    """
    tries = await _tries(connection, before)
    fact = fact_of(before, change, planned=None, tries=tries, asked_at=now, now=now)
    return [] if fact is None else await outbox.append(connection, [(fact, traceparent)])


async def tell_of_retry(
    connection: Connection, payment: Payment, planned: Planned, *, now: datetime
) -> list[Outgoing]:
    """Tell the scheduler, in the same transaction, that the retry of a charge has another time."""
    if payment.subscription_id is None or planned.event != "scheduled":
        return []
    tries = await _tries(connection, payment)
    message = retry_planned(payment, planned, tries=tries, now=now)
    return await outbox.append(connection, [(message, None)])


async def _tries(connection: Connection, payment: Payment) -> int:
    if payment.subscription_id is None:
        return 0  # Nobody wants to know.
    standings = await retry_store.find_standings(connection, [payment.reference])
    return standings[payment.id].tries


def is_over(before: Payment, change: Change) -> bool:
    """Tell whether a change ends a charge without money, or what was left open of one."""
    after = change.payment.state
    if before.state is PaymentState.ON_HOLD:
        # What was held is given back, or the bank took it.
        return after in _UNPAID | {PaymentState.REFUNDED, PaymentState.DISPUTED}
    return after in _UNPAID and (before.state not in RESTING or change.event == "closed")


def failure(change: Change, *, planned: Planned | None, tries: int, now: datetime) -> ChargeFailed:
    """Tell the scheduler that a charge is over, without money."""
    if change.payment.state not in _UNPAID:
        kind, code = FailureKind.CANCELLED, str(change.payment.state)
    elif planned is not None:
        kind, code = planned.retry.kind, planned.retry.code
    else:
        kind, code = _kind_and_code(change)
    is_open = change.payment.next_check_at is not None or code == EARLIER_TRY_IS_OPEN
    reason = change.payment.reason or ""
    return _failed(
        change.payment,
        kind=kind,
        code=code,
        tries=tries,
        may_still_be_paid=change.event != "closed"
        and (is_open or reason.startswith(_NOT_SURELY_OVER)),
        now=now,
    )


def retry_planned(payment: Payment, planned: Planned, *, tries: int, now: datetime) -> ChargeFailed:
    """Tell the scheduler that a try failed, or is in doubt, and when the next one is made."""
    retry = planned.retry
    assert retry.next_attempt_at is not None, "what is planned has a time"
    return _failed(
        payment,
        kind=retry.kind,
        code=retry.code,
        tries=tries,
        retry_after_seconds=max(0.0, (retry.next_attempt_at - now).total_seconds()),
        waits_for_order=retry.state is RetryState.WAITING,
        now=now,
    )


def never_begun(
    order: ChargeSubscription | CancelCharge,
    *,
    kind: FailureKind,
    code: str,
    advice: Advice | None = None,
    now: datetime,
) -> ChargeFailed:
    """Tell the scheduler that no gateway heard of an order, and none will."""
    return ChargeFailed(
        payment_id=order.payment_id,
        subscription_id=order.subscription_id,
        attempts_made=0,
        kind=kind,
        code=code[:CODE_LENGTH_MAX],
        customer_advice=advice or ADVICE[kind],
        retry_after_seconds=None,
        waits_for_order=False,
        may_still_be_paid=False,
        failed_at=now,
    )


def _failed(
    payment: Payment,
    *,
    kind: FailureKind,
    code: str,
    tries: int,
    now: datetime,
    retry_after_seconds: float | None = None,
    waits_for_order: bool = False,
    may_still_be_paid: bool = False,
) -> ChargeFailed:
    assert payment.subscription_id is not None, "only charges of subscriptions are told of"
    return ChargeFailed(
        payment_id=payment.id,
        subscription_id=payment.subscription_id,
        attempts_made=tries,
        kind=kind,
        code=code[:CODE_LENGTH_MAX],
        customer_advice=ADVICE[kind],
        retry_after_seconds=retry_after_seconds,
        waits_for_order=waits_for_order,
        may_still_be_paid=may_still_be_paid,
        failed_at=now,
    )


def _kind_and_code(change: Change) -> tuple[FailureKind, str]:
    """Read why a payment failed whose retry says nothing of it: `kind:code`."""
    reason = change.payment.reason or "unknown"
    kind, _, code = reason.partition(":")
    if kind in _KINDS:
        return FailureKind(kind), code
    is_late = change.event in {"expired", "closed"}
    return (FailureKind.EXPIRED if is_late else FailureKind.UNKNOWN_CODE), reason
