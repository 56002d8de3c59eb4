"""The steps of a retry in the database: each one transaction, under the lock of its payment.

Everybody locks the payment first and its retry second, so whoever comes later sees what was
decided.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from typing import Final

import asyncpg

from services.payments.domain import retries
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.retries import Retry
from services.payments.domain.settlement import Change
from services.payments.domain.state_machine import next_state
from services.payments.domain.statistics import step
from services.payments.flow.charges import tell
from services.payments.flow.retry_planning import Planned
from services.payments.handlers.beginning import SEND_WITHIN_SECONDS
from services.payments.handlers.orders import record_attempt
from services.payments.runtime import Runtime
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from services.payments.store import retries as retry_store
from services.payments.store.attempts import StoredOrder
from services.payments.store.retries import Begun, Claim, Standing
from shared.database import Connection
from shared.errors import ConflictError, SpendingLimitError
from shared.identifiers import new_id
from shared.messaging.envelope import Outgoing

#: States from which a try may be begun. Pending is also what a look makes of a payment whose last
#: try the gateway does not know.
STARTABLE: Final = frozenset(
    {
        PaymentState.RETRY_SCHEDULED,
        PaymentState.UNKNOWN,
        PaymentState.CREATED,
        PaymentState.PENDING,
    }
)

#: A lease must hold so many times as long as a try may take to be sent, or it is not begun.
LEASE_FACTOR: Final = 2


class NotBegunError(ConflictError):
    """A retry was not begun: it is not ours any more, or not now (`until`)."""

    code = "retry_not_begun"

    def __init__(self, message: str, until: datetime | None = None) -> None:
        super().__init__(message)
        self.until = until


@dataclass(frozen=True, slots=True)
class Position:
    """Where a payment stood when a retry of it was taken up."""

    payment: Payment
    #: Its live try.
    standing: Standing
    stored: StoredOrder
    #: The gateway has said that the live try moved no money and never will.
    is_dead: bool


def send_within_seconds(runtime: Runtime) -> float:
    """Return how long after its record a retry may be sent: far less than its lease."""
    return min(SEND_WITHIN_SECONDS, runtime.settings.retry_lock_timeout.total_seconds() / 4)


async def read_position(runtime: Runtime, claim: Claim) -> Position:
    """Read what a claimed retry begins from."""
    payment_id = claim.retry.payment_id
    async with runtime.core.database.connection() as connection:
        payment = (await payment_store.find_by_ids(connection, [payment_id]))[payment_id]
        reference = payment.reference
        standing = (await retry_store.find_standings(connection, [reference]))[payment_id]
        stored = (await attempt_store.find_orders(connection, [reference]))[reference]
    # What `start` has refused must not be looked up at some gateways: that might be a payment.
    is_dead = standing.state == "refused" or claim.retry.failed_reference == reference
    return Position(payment, standing, stored, is_dead)


async def begin(
    runtime: Runtime, claim: Claim, position: Position, *, is_counted: bool
) -> StoredOrder:
    """Commit the next try of a payment just before it is sent, and return its order.

    Raises:
        NotBegunError: the claim or the payment is not what it was; nothing was written.
        DatabaseUnavailableError: whether it was written is not known; nothing is sent.
    """
    now = runtime.core.clock()
    before = position.stored.order
    order = replace(before, reference=new_id("att", now), started_at=now, handle=None)
    outgoing: list[Outgoing] = []
    try:
        async with runtime.core.database.transaction() as connection:
            payment = await _lock(runtime, connection, claim, position)
            begun = payment._replace(
                state=next_state(payment.state, PaymentState.UNKNOWN),
                reason="retry_begun",
                checks_made=0,
                next_check_at=now + runtime.first_check_after,
            )
            outgoing = await _save(connection, payment, Change(begun, "retry_begun"), now)
            await _bury(connection, position)
            number = position.standing.number + 1
            stored = await record_attempt(
                runtime, connection, payment.gateway, order, payment_id=payment.id, number=number
            )
            await retry_store.begin_attempt(
                connection,
                claim,
                Begun(
                    reference=order.reference,
                    number=number,
                    due_at=claim.retry.next_attempt_at or now,
                    begun_at=now,
                    is_counted=is_counted,
                ),
            )
            await retry_store.allow_retries(connection, payment.id, now + runtime.expires_after)
    except asyncpg.UniqueViolationError:
        raise NotBegunError("another worker has begun this try") from None
    except SpendingLimitError as error:
        tomorrow = datetime.combine(now.date() + timedelta(days=1), time(), now.tzinfo)
        raise NotBegunError(error.message, until=tomorrow) from error
    runtime.core.publisher.publish(outgoing)
    return stored


async def _lock(
    runtime: Runtime, connection: Connection, claim: Claim, position: Position
) -> Payment:
    """Lock payment and claim, and check that all is as it was when the retry was taken up.

    Raises:
        NotBegunError: it is not.
    """
    payment = await payment_store.lock_payment(connection, claim.retry.payment_id)
    remaining = await retry_store.lock_claim(connection, claim)
    if remaining is None:
        raise NotBegunError("the retry was cancelled, moved or taken over")
    if payment.reference != position.standing.reference:
        raise NotBegunError("another try was begun")
    now = runtime.core.clock()
    if payment.state not in STARTABLE:
        raise NotBegunError("the payment is in other hands", until=now)
    standing = (await retry_store.find_standings(connection, [payment.reference]))[payment.id]
    if standing.state != position.standing.state:
        raise NotBegunError("more is known of the last try", until=now)
    if remaining < LEASE_FACTOR * send_within_seconds(runtime):
        raise NotBegunError("its lease is nearly over", until=now)
    return payment


async def _bury(connection: Connection, position: Position) -> None:
    """Mark the try that another one follows: refused, or never arrived."""
    state = "abandoned" if position.standing.state == "started" else "refused"
    if position.is_dead:
        state = "refused"
    buried = attempt_store.AttemptState(position.standing.reference, state)
    await attempt_store.save_attempts(connection, [buried])


async def remain_silent(runtime: Runtime, claim: Claim, position: Position) -> None:
    """Plan the next question about a try of which the gateway said nothing."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        payment = await payment_store.lock_payment(connection, claim.retry.payment_id)
        if await retry_store.lock_claim(connection, claim) is None:
            return
        known = await retry_store.lock_retry(connection, payment.id)
        if known is None or payment.reference != position.standing.reference:
            return
        retry = retries.after_silence(known, now=now)
        await runtime.retries.save(connection, [Planned(known, retry)], now)


async def fail(runtime: Runtime, claim: Claim, position: Position, problem: str) -> None:
    """End a payment for which no other try may be made, and say so.

    Args:
        runtime: Of this process.
        claim: The retry.
        position: What it began from.
        problem: Why none may be made, when that is not the last failure itself.
    """
    now = runtime.core.clock()
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        try:
            payment = await _lock(runtime, connection, claim, position)
        except NotBegunError:
            return  # Whoever has it decides.
        retry = retries.exhausted(replace(claim.retry, code=problem or claim.retry.code), now)
        is_over = position.is_dead or position.standing.state == "started"
        if is_over:  # A person may have it tried again without another question.
            retry = replace(retry, failed_reference=position.standing.reference)
        failed = payment._replace(
            state=next_state(payment.state, PaymentState.FAILED),
            reason=f"{retry.kind}:{retry.code}",
            next_check_at=None,
        )
        change = Change(failed, "declined")
        outgoing = await _save(connection, payment, change, now)
        outgoing += await tell(connection, payment, change, now=now)
        if is_over:
            await _bury(connection, position)
        outgoing += await runtime.retries.save(connection, [Planned(claim.retry, retry)], now)
    runtime.core.publisher.publish(outgoing)


async def end(runtime: Runtime, claim: Claim, ended: Callable[[Retry, datetime], Retry]) -> None:
    """Close the retry of a payment that ended by other ways."""
    now = runtime.core.clock()
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        await payment_store.lock_payment(connection, claim.retry.payment_id)
        if await retry_store.lock_claim(connection, claim) is None:
            return
        planned = Planned(claim.retry, ended(claim.retry, now))
        outgoing = await runtime.retries.save(connection, [planned], now)
    runtime.core.publisher.publish(outgoing)


async def _save(
    connection: Connection, before: Payment, change: Change, now: datetime
) -> list[Outgoing]:
    """Save a change of a locked payment, with its line in the story."""
    _, outgoing = await payment_store.save_and_announce(
        connection, [change], {}, now, steps=[step(before, change, now)]
    )
    return outgoing
