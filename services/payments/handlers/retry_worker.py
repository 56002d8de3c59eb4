"""Makes the retries that are due: one try after the other, never a second one beside the first.

A try may follow another one only when the gateway has said for good that no money moved under it,
or when the gateway knows nothing of it and its sender can send it no more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import partial
from typing import Final

import structlog
from opentelemetry.trace import SpanKind

from services.payments import metrics
from services.payments.domain import retries
from services.payments.domain.model import Deferred, PaymentState
from services.payments.domain.retries import FailedTry, failure_of
from services.payments.domain.retry_policy import PUT_OFF_AT_LEAST, GiveUp
from services.payments.domain.state_machine import TAKEN
from services.payments.flow.admission import Purpose
from services.payments.flow.charges import EARLIER_TRY_IS_OPEN
from services.payments.flow.retry_planning import NOT_ATTEMPTED, SURE_AFTER
from services.payments.handlers import retry_steps
from services.payments.handlers.beginning import record_outcome
from services.payments.handlers.due_work import take_up_for_ever
from services.payments.handlers.retry_steps import NotBegunError, Position
from services.payments.runtime import Runtime
from services.payments.store import retries as retry_store
from services.payments.store import retry_lists
from services.payments.store.attempts import StoredOrder
from services.payments.store.retries import Claim
from shared.contracts.priorities import Priority
from shared.errors import SluiceError
from shared.gateways.interface import (
    ActionRequired,
    Checkout,
    Declined,
    Outcome,
    Paid,
    PaymentGateway,
    Pending,
    Unknown,
)
from shared.gateways.send_deadline import send_within
from shared.metrics import bound

log = structlog.get_logger()

#: Pause between two looks for what is due; the shortest wait of the table is 2 s.
LOOK_SECONDS: Final = 1.0

#: When a retry whose payment is in other hands is looked at again: an operator holds it, or a
#: notice claims that money came.
IN_OTHER_HANDS: Final = timedelta(seconds=30)

#: The answer of a call that was not made after all.
_NOT_MADE: Final = Unknown("not_begun")


async def make_retries(runtime: Runtime) -> None:
    """Make, for ever, the retries that are due, the most urgent first.

    Each ends on its own; a new one begins as soon as there is room for it.
    """
    interval = runtime.settings.retry_processing_interval.total_seconds()
    loop, next_sweep = asyncio.get_running_loop(), 0.0

    async def take_up(room: int) -> list[asyncio.Task[None]]:
        nonlocal next_sweep
        if loop.time() >= next_sweep:
            await park_surplus(runtime)
            next_sweep = loop.time() + interval
            if left := await take_over_left(runtime, room):
                return left
        return await take_up_due(runtime, room)

    await take_up_for_ever(
        "retries",
        take_up,
        interval_seconds=min(LOOK_SECONDS, interval),
        batch_size=lambda: runtime.flow.controls.batch_size,
    )


async def take_up_due(runtime: Runtime, most: int) -> list[asyncio.Task[None]]:
    """Claim due retries, the most urgent first, and begin to make them.

    Those of a gateway that may not be called are left where they are.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    now, claims = runtime.core.clock(), list[Claim]()
    # What the lower priorities are sure of, also while more urgent ones are due without end.
    reserved = most * runtime.settings.minimum_share // 100
    async with runtime.core.database.connection() as connection:
        for index, priority in enumerate(Priority):
            room = most - len(claims) - reserved * (len(Priority) - 1 - index)
            allowed = runtime.flow.claimable(runtime.gateways, priority, room)
            if allowed and room > 0:
                claims += await retry_store.claim_due(
                    connection, now, priority, allowed, room, _lease_seconds(runtime)
                )
    return [asyncio.create_task(make_retry(runtime, claim)) for claim in claims]


async def take_over_left(runtime: Runtime, most: int) -> list[asyncio.Task[None]]:
    """Claim retries whose worker did not come back, and begin to find out what became of them.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    if most <= 0:
        return []
    async with runtime.core.database.connection() as connection:
        claims = await retry_store.claim_left(
            connection, runtime.core.clock(), most, _lease_seconds(runtime)
        )
    return [asyncio.create_task(make_retry(runtime, claim)) for claim in claims]


async def park_surplus(runtime: Runtime) -> int:
    """Park what waits beyond the limit, the least urgent and oldest first; return how many."""
    async with runtime.core.database.connection() as connection:
        parked = await retry_lists.park_surplus(
            connection, runtime.settings.retry_waiting_max, runtime.core.clock()
        )
    for gateway, kind in parked:
        bound(metrics.RETRIES, gateway, kind, "parked").inc()
    if parked:
        log.warning("retries_parked", count=len(parked))
    return len(parked)


async def make_retry(runtime: Runtime, claim: Claim) -> None:
    """Carry a claimed retry on; if that goes wrong, its lease runs out and it is taken up again."""
    try:
        with runtime.core.tracing.span(
            "payments.retry", kind=SpanKind.CLIENT, attributes={"payment": claim.retry.payment_id}
        ) as traceparent:
            await _carry_on(_Making(runtime, claim, traceparent))
    except SluiceError as error:
        log.warning("retry_not_made", payment=claim.retry.payment_id, error=error.message)


def _lease_seconds(runtime: Runtime) -> float:
    return runtime.settings.retry_lock_timeout.total_seconds()


@dataclass(frozen=True, slots=True)
class _Making:
    """A claimed retry in the hands of this process."""

    runtime: Runtime
    claim: Claim
    traceparent: str | None

    async def put_off(self, until: datetime, reason: str) -> None:
        """Give it back; nothing was tried."""
        earliest = self.runtime.core.clock() + PUT_OFF_AT_LEAST
        async with self.runtime.core.database.connection() as connection:
            await retry_store.put_off(connection, self.claim, max(until, earliest), reason)

    async def leave(self) -> None:
        """Leave it to the gateway, the reconciler and notices."""
        async with self.runtime.core.database.connection() as connection:
            await retry_store.let_go(connection, self.claim)


async def _carry_on(making: _Making) -> None:
    runtime, claim = making.runtime, making.claim
    position = await retry_steps.read_position(runtime, claim)
    payment, now = position.payment, runtime.core.clock()
    gateway = runtime.gateways.get(payment.gateway)
    if gateway is None:
        await making.put_off(now + IN_OTHER_HANDS, "gateway_is_off")
    elif payment.state in TAKEN or (
        payment.state is PaymentState.ON_HOLD and payment.gateway_payment_id is not None
    ):
        await retry_steps.end(runtime, claim, retries.succeeded)
    elif payment.state in {PaymentState.FAILED, PaymentState.CANCELLED}:
        await retry_steps.end(runtime, claim, retries.exhausted)
    elif payment.state is PaymentState.PENDING and position.standing.state != "started":
        await making.leave()  # The gateway has it.
    elif payment.state in {PaymentState.ON_HOLD, PaymentState.PROCESSING}:
        await making.put_off(now + IN_OTHER_HANDS, f"payment_is_{payment.state}")
    elif position.stored.is_put_off:
        await making.put_off(now + IN_OTHER_HANDS, "first_try_is_put_off")
    else:
        found = _Last.DEAD if position.is_dead else await _find_out(making, gateway, position)
        tries = position.standing.number
        limit = runtime.retries.policy.limit(payment.method, tries)
        if found is not _Last.OPEN and limit is not None:
            await retry_steps.fail(runtime, claim, position, limit.reason)
        elif found is not _Last.OPEN:
            await _try_again(making, gateway, position, is_counted=found is _Last.DEAD)


class _Last(Enum):
    """What is known of the last try."""

    #: Another one may follow.
    DEAD = auto()
    #: It never reached the gateway: another one may take its place.
    NEVER_ARRIVED = auto()
    #: Not enough, or it is settled by now; what is to be done was done.
    OPEN = auto()


async def _find_out(making: _Making, gateway: PaymentGateway, position: Position) -> _Last:
    """Ask what became of the last try, and record it."""
    runtime, payment = making.runtime, position.payment
    asked_at = runtime.core.clock()
    verdict = await runtime.flow.call(
        gateway.name,
        payment.priority,
        Purpose.CHECK,
        partial(gateway.look_up, position.stored.order),
    )
    if isinstance(verdict, Deferred):
        await making.put_off(verdict.until, verdict.reason)
        return _Last.OPEN
    if isinstance(verdict, Unknown):
        await retry_steps.remain_silent(runtime, making.claim, position)
        return _Last.OPEN
    if verdict == NOT_ATTEMPTED and position.standing.state == "started":
        return await _may_follow_what_never_arrived(making, position)
    is_wanted = payment.state is PaymentState.RETRY_SCHEDULED
    if is_wanted and not isinstance(verdict, Paid):
        return await _is_closed(making, gateway, position, verdict)
    await record_outcome(runtime, position.stored, verdict, asked_at, making.traceparent)
    if not isinstance(verdict, (Paid, Declined)):
        await making.leave()
    return _Last.OPEN


async def _may_follow_what_never_arrived(making: _Making, position: Position) -> _Last:
    """Decide about a try of which the gateway knows nothing."""
    runtime, retry, standing = making.runtime, making.claim.retry, position.standing
    sure_at = standing.started_at + SURE_AFTER
    if retry.lost_reference != standing.reference and runtime.core.clock() < sure_at:
        # Whoever is to send it may have been stopped just before, and go on.
        await making.put_off(sure_at, "sender_may_come_back")
        return _Last.OPEN
    if making.claim.was_running or not retry.failures:
        return _Last.NEVER_ARRIVED
    lost = FailedTry(standing.reference, standing.number, retry.kind, retry.code)
    decision = runtime.retries.decide(failure_of(position.payment, retry, lost))
    if isinstance(decision, GiveUp):
        await retry_steps.fail(runtime, making.claim, position, "")
        return _Last.OPEN
    return _Last.DEAD


async def _is_closed(
    making: _Making, gateway: PaymentGateway, position: Position, verdict: Outcome
) -> _Last:
    """Find out whether what is still open at the gateway, a page as a rule, can be paid no more.

    It is closed where that is possible. Where it is not, no other try may be begun beside it.
    """
    if not _is_final(verdict) and gateway.capabilities.cancels:
        closed = await making.runtime.flow.call(
            gateway.name,
            position.payment.priority,
            Purpose.CHECK,
            partial(gateway.cancel, position.stored.order),
        )
        if isinstance(closed, Deferred):
            await making.put_off(closed.until, closed.reason)
            return _Last.OPEN
        if isinstance(closed, Paid):
            now = making.runtime.core.clock()
            await record_outcome(making.runtime, position.stored, closed, now, making.traceparent)
            return _Last.OPEN
        verdict = closed
    if _is_final(verdict):
        return _Last.DEAD
    if isinstance(verdict, Unknown) and gateway.capabilities.cancels:
        await retry_steps.remain_silent(making.runtime, making.claim, position)
        return _Last.OPEN
    await retry_steps.fail(making.runtime, making.claim, position, EARLIER_TRY_IS_OPEN)
    return _Last.OPEN


def _is_final(verdict: Outcome) -> bool:
    return isinstance(verdict, Declined) and verdict.is_final


async def _try_again(
    making: _Making, gateway: PaymentGateway, position: Position, *, is_counted: bool
) -> None:
    """Begin the next try, send it and record what the gateway says."""
    runtime, claim = making.runtime, making.claim
    sent: list[StoredOrder] = []
    problems: list[SluiceError] = []

    async def make() -> Outcome:
        # Begun only when it has its turn, so that a try which is put off was none. What goes wrong
        # with that says nothing of the gateway, whose calls are judged.
        with send_within(retry_steps.send_within_seconds(runtime)):
            try:
                sent.append(
                    await retry_steps.begin(runtime, claim, position, is_counted=is_counted)
                )
            except SluiceError as error:
                problems.append(error)
                return _NOT_MADE
            return await gateway.start(sent[0].order)

    asked_at = runtime.core.clock()
    outcome = await runtime.flow.call(
        gateway.name,
        position.payment.priority,
        # To open a page moves no money.
        Purpose.CHECK if isinstance(position.stored.order.method, Checkout) else Purpose.CHARGE,
        make,
    )
    if isinstance(outcome, Deferred):
        await making.put_off(outcome.until, outcome.reason)
    elif problems:
        await _not_begun(making, problems[0])
    else:
        bound(metrics.RETRIES, gateway.name, claim.retry.kind, "begun").inc()
        await record_outcome(runtime, sent[0], outcome, asked_at, making.traceparent)
        if isinstance(outcome, (Pending, ActionRequired)):
            await making.leave()


async def _not_begun(making: _Making, problem: SluiceError) -> None:
    if not isinstance(problem, NotBegunError):
        raise problem
    if problem.until is not None:
        await making.put_off(problem.until, problem.code)
