"""What callers do with retries: ask for one, read it, try it now, move, resume and cancel it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.payments.domain import retries
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.retries import FailedTry, Retry, RetryState, failure_of
from services.payments.domain.retry_policy import DELAY_MAX, GiveUp
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import next_state
from services.payments.domain.statistics import step
from services.payments.flow.charges import tell, tell_of_retry
from services.payments.flow.retry_planning import Planned
from services.payments.handlers.orders import Purchase, create_payment, read_payment
from services.payments.runtime import Runtime
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store import retries as retry_store
from services.payments.store import retry_lists
from services.payments.store.payment_views import PaymentView
from services.payments.store.retries import Standing
from services.payments.store.retry_lists import RetryAttempt
from shared.database import Connection
from shared.errors import (
    ConflictError,
    GatewayUnavailableError,
    InvalidInputError,
    NotFoundError,
)
from shared.gateways.interface import FailureKind
from shared.identifiers import is_id
from shared.messaging.envelope import Outgoing

#: States in which the last try may still bring money, or may never have arrived: a retry asks.
_IN_DOUBT: Final = frozenset({PaymentState.CREATED, PaymentState.UNKNOWN})


class RetryConflictError(ConflictError):
    """The payment or its retry is not in a state for what was asked."""

    code = "retry_conflict"


@dataclass(frozen=True, slots=True)
class RetryWish:
    """A retry that a person or another system asks for."""

    #: A kind of failure, which decides when; None: at once, or at `due_at`.
    error: str | None
    metadata: Mapping[str, str]
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RetryView:
    """A retry as the API shows it."""

    retry: Retry
    attempts: list[RetryAttempt]
    #: What keeps it at the moment, if it is due.
    waits_for: str | None


async def process_payment(runtime: Runtime, payment_id: str, purchase: Purchase) -> PaymentView:
    """Create a payment whose failures are followed by retries, and begin it.

    Repeated with the same id, it carries on. A gateway that does not answer, or is not called at
    the moment, is no error: the payment waits.

    Raises:
        InvalidInputError: there is no such gateway, or it cannot take this order.
        SpendingLimitError: the wallet must not spend as much.
        GatewayRefusedError: the gateway would not begin; the payment has failed.
        NotAcceptingError: an operator lets nothing new in.
    """
    try:
        automatic = replace(purchase, retries_automatically=True)
        return await create_payment(runtime, payment_id, automatic)
    except GatewayUnavailableError:
        if not await _goes_on_alone(runtime, payment_id):
            raise
    return await read_payment(runtime, payment_id)


async def _goes_on_alone(runtime: Runtime, payment_id: str) -> bool:
    """Tell whether a payment goes on without its caller, and let it where it does not yet."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, payment_id)
        standing = await _standing(connection, payment)
        # What a pause or a breaker puts off is begun by a worker.
        if standing.retry is not None or standing.state != "started":
            return True
        if payment.state not in _IN_DOUBT:
            return False
        # An earlier request died with the try in its hands, and the gateway does not say.
        retry = retries.wanted_by_hand(
            None,
            payment,
            kind=FailureKind.NETWORK_ERROR,
            code="no_answer",
            due_at=now,
            now=now,
        )
        outgoing = await runtime.retries.save(connection, [Planned(None, retry)], now)
    runtime.core.publisher.publish(outgoing)
    return True


async def ask_for_retry(runtime: Runtime, transaction_id: str, wish: RetryWish) -> RetryView:
    """Schedule a retry of a payment that failed, or whose fate is not known.

    Raises:
        NotFoundError: there is no such payment or try.
        InvalidInputError: `due_at` is out of reach.
        RetryConflictError: the payment cannot be tried again, or a retry waits already.
    """
    now = runtime.core.clock()
    _require_within_reach(wish.due_at, now)
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        payment = await _lock(connection, transaction_id)
        standing = await _standing(connection, payment)
        retry = _wanted(runtime, payment, standing, wish, now)
        if payment.state is PaymentState.FAILED:
            wanted = payment._replace(
                state=next_state(payment.state, PaymentState.RETRY_SCHEDULED), next_check_at=None
            )
            change = Change(wanted, "retry_requested")
            await payment_store.save_and_announce(
                connection, [change], {}, now, steps=[step(payment, change, now)]
            )
        else:
            await payment_store.insert_history(connection, payment, "retry_requested", now)
        assert retry.next_attempt_at is not None
        await retry_store.allow_retries(
            connection, payment.id, retry.next_attempt_at + runtime.expires_after
        )
        outgoing = await runtime.retries.save(connection, [Planned(standing.retry, retry)], now)
        view = await _view(runtime, connection, payment.id)
    runtime.core.publisher.publish(outgoing)
    return view


def _wanted(
    runtime: Runtime, payment: Payment, standing: Standing, wish: RetryWish, now: datetime
) -> Retry:
    known = standing.retry
    if known is not None and known.is_open:
        raise RetryConflictError(
            f"a retry of {payment.id} is {known.state}", details={"state": known.state}
        )
    if payment.state is not PaymentState.FAILED and payment.state not in _IN_DOUBT:
        problem = f"a payment that is {payment.state} is not tried again"
        raise RetryConflictError(problem, details={"state": payment.state})
    if payment.subscription_id is not None and payment.state is PaymentState.FAILED:
        problem = f"{payment.id} is over: let its subscription {payment.subscription_id} be charged"
        raise RetryConflictError(problem, details={"state": payment.state})
    if standing.state == "put_off":
        problem = f"{payment.id} was not begun yet, and will be without a retry"
        raise RetryConflictError(problem, details={"state": payment.state})
    policy = runtime.retries.policy
    if (limit := policy.limit(payment.method, standing.number)) is not None:
        raise RetryConflictError(
            f"{payment.id} was tried {standing.number} times", details={"limit": limit.reason}
        )
    kind = _kind(payment, known, wish.error)
    if policy.is_permanent(kind):
        problem = f"{kind} is for good: the customer must pay with something else"
        raise RetryConflictError(problem, details={"error": kind})
    continues = payment.retries_automatically if known is None else known.continues
    retry = retries.wanted_by_hand(
        known, payment, kind=kind, code=_code(payment, known, wish.error), due_at=now, now=now
    )
    retry = replace(
        retry,
        continues=continues or wish.error is not None,
        metadata={**retry.metadata, **wish.metadata},
        next_attempt_at=wish.due_at or now,
    )
    if wish.error is None or wish.due_at is not None:
        return retry
    return _by_table(runtime, payment, standing, retry, now)


def _by_table(
    runtime: Runtime, payment: Payment, standing: Standing, retry: Retry, now: datetime
) -> Retry:
    counted = replace(retry, failures={retry.kind: 1})
    failed = FailedTry(standing.reference, standing.number, retry.kind, retry.code)
    decision = runtime.retries.decide(failure_of(payment, counted, failed))
    if isinstance(decision, GiveUp):
        raise RetryConflictError(
            f"{retry.kind} is not tried again by itself; without `error` it is, once",
            details={"error": retry.kind},
        )
    return replace(counted, next_attempt_at=now + decision.delay)


def _kind(payment: Payment, known: Retry | None, error: str | None) -> FailureKind:
    """Return the kind of the last failure: as the caller names it, or as it was recorded."""
    name = error
    if name is None:
        name = known.kind if known is not None else (payment.reason or "").partition(":")[0]
    return FailureKind(name) if name in _KINDS else FailureKind.UNKNOWN_CODE


_KINDS: Final = frozenset(FailureKind)


def _code(payment: Payment, known: Retry | None, error: str | None) -> str:
    if error is not None:
        return error
    if known is not None:
        return known.code
    reason = payment.reason or "unknown"
    return reason.partition(":")[2] or reason


async def read_retry(runtime: Runtime, transaction_id: str) -> RetryView:
    """Return the retry of a payment.

    Raises:
        NotFoundError: there is no such payment or try, or it has no retry.
    """
    async with runtime.core.database.connection() as connection:
        return await _view(runtime, connection, await _payment_id(connection, transaction_id))


async def cancel_retry(runtime: Runtime, transaction_id: str) -> RetryView:
    """Cancel a retry that was not begun; from then on none is. Cancelled twice, it is cancelled.

    Raises:
        NotFoundError: there is no such payment or try, or it has no retry.
        RetryConflictError: a try is with the gateway, or the retry has ended.
    """
    now = runtime.core.clock()
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        payment = await _lock(connection, transaction_id)
        retry = await _lock_retry(connection, payment)
        if retry.state is not RetryState.CANCELLED:
            _require_not_begun(retry)
            if payment.state is PaymentState.RETRY_SCHEDULED:
                failed = payment._replace(state=next_state(payment.state, PaymentState.FAILED))
                change = Change(failed, "retry_cancelled")
                await payment_store.save_and_announce(
                    connection, [change], {}, now, steps=[step(payment, change, now)]
                )
                outgoing = await tell(connection, payment, change, now=now)
            else:  # The gateway is still asked what became of the last try; no other one follows.
                await payment_store.insert_history(connection, payment, "retry_cancelled", now)
            planned = Planned(retry, retries.cancelled(retry, now))
            outgoing += await runtime.retries.save(connection, [planned], now)
        view = await _view(runtime, connection, payment.id)
    runtime.core.publisher.publish(outgoing)
    return view


async def move_retry(runtime: Runtime, transaction_id: str, due_at: datetime | None) -> RetryView:
    """Give a retry that waits another time; None: now. A parked one waits again from then on.

    Raises:
        NotFoundError: there is no such payment or try, or it has no retry.
        InvalidInputError: `due_at` is out of reach.
        RetryConflictError: it does not wait.
    """
    now = runtime.core.clock()
    _require_within_reach(due_at, now)

    def moved(retry: Retry) -> Retry:
        return replace(
            retry,
            state=RetryState.SCHEDULED,
            asked=0,
            next_attempt_at=due_at or now,
            waits_for=None,
            updated_at=now,
        )

    return await _change(runtime, transaction_id, moved, "retry_moved")


async def resume_retry(runtime: Runtime, transaction_id: str) -> RetryView:
    """Let a parked retry wait again, until its time or, when that is past, for its turn.

    Raises:
        NotFoundError: there is no such payment or try, or it has no retry.
        RetryConflictError: it is not parked.
    """
    now = runtime.core.clock()

    def resumed(retry: Retry) -> Retry:
        if retry.state is not RetryState.PARKED:
            raise RetryConflictError(
                f"the retry is {retry.state}, not parked", details={"state": retry.state}
            )
        # Parked first is what was touched least recently, so it is not parked again at once.
        return replace(
            retry,
            state=RetryState.SCHEDULED,
            next_attempt_at=max(now, retry.next_attempt_at or now),
            updated_at=now,
        )

    return await _change(runtime, transaction_id, resumed, "retry_resumed")


async def _change(
    runtime: Runtime, transaction_id: str, change: Callable[[Retry], Retry], event: str
) -> RetryView:
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await _lock(connection, transaction_id)
        retry = await _lock_retry(connection, payment)
        _require_not_begun(retry)
        changed = change(retry)
        await payment_store.insert_history(connection, payment, event, now)
        assert changed.next_attempt_at is not None
        await retry_store.allow_retries(
            connection, payment.id, changed.next_attempt_at + runtime.expires_after
        )
        outgoing = await runtime.retries.save(connection, [planned := Planned(retry, changed)], now)
        outgoing += await tell_of_retry(connection, payment, planned, now=now)
        view = await _view(runtime, connection, payment.id)
    runtime.core.publisher.publish(outgoing)
    return view


def _require_not_begun(retry: Retry) -> None:
    if not retry.is_open:
        raise RetryConflictError(f"the retry is {retry.state}", details={"state": retry.state})
    if retry.state is RetryState.RUNNING and retry.next_attempt_at is None:
        raise RetryConflictError(
            "a try is with the gateway; its answer decides", details={"state": retry.state}
        )


def _require_within_reach(due_at: datetime | None, now: datetime) -> None:
    if due_at is not None and due_at > now + DELAY_MAX:
        problem = f"at most {DELAY_MAX // timedelta(days=1)} days ahead"
        raise InvalidInputError(f"dueAt is {problem}", details={"dueAt": problem})


async def _lock(connection: Connection, transaction_id: str) -> Payment:
    return await payment_store.lock_payment(
        connection, await _payment_id(connection, transaction_id)
    )


async def _payment_id(connection: Connection, transaction_id: str) -> str:
    """Return the id of the payment that an id of its own, or of one of its tries, names."""
    if is_id(transaction_id, "pay"):
        known = await payment_store.find_by_ids(connection, [transaction_id])
        if transaction_id in known:
            return transaction_id
    if is_id(transaction_id, "att"):
        orders = await attempt_store.find_orders(connection, [transaction_id])
        if transaction_id in orders:
            return orders[transaction_id].payment_id
    raise NotFoundError(f"no payment or try has the id {transaction_id[:40]!r}")


async def _standing(connection: Connection, payment: Payment) -> Standing:
    return (await retry_store.find_standings(connection, [payment.reference]))[payment.id]


async def _lock_retry(connection: Connection, payment: Payment) -> Retry:
    retry = await retry_store.lock_retry(connection, payment.id)
    if retry is None:
        raise NotFoundError(f"{payment.id} has no retry")
    return retry


async def _view(runtime: Runtime, connection: Connection, payment_id: str) -> RetryView:
    retry = await retry_store.find_retry(connection, payment_id)
    if retry is None:
        raise NotFoundError(f"{payment_id} has no retry")
    attempts = await retry_lists.list_attempts(connection, payment_id)
    return RetryView(retry, attempts, waits_for(runtime, retry))


def waits_for(runtime: Runtime, retry: Retry) -> str | None:
    """Return what keeps a retry although it is due: by what this process knows."""
    now = runtime.core.clock()
    if retry.state is RetryState.WAITING:
        return retry.waits_for
    if retry.state is not RetryState.SCHEDULED or retry.next_attempt_at is None:
        return None
    if retry.next_attempt_at > now:
        return retry.waits_for
    if retry.gateway not in runtime.gateways:
        return "gateway_is_off"
    deferral = runtime.flow.deferral(retry.gateway, retry.priority)
    return None if deferral is None else deferral.reason
