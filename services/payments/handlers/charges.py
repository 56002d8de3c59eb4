"""Carries out what the scheduler orders: to charge, to retry.

Orders are recorded together, begun each on its own, and their answers recorded together again, so
that many are cheap and a slow one delays no other. What the gateways do not keep pace with waits in
PostgreSQL, never here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.model import Deferred
from services.payments.handlers.beginning import (
    SEND_WITHIN_SECONDS,
    Answer,
    ask_for_money,
    record_answers,
    record_put_off,
)
from services.payments.handlers.charge_orders import NO_ROOM, Recorded, drained, record
from services.payments.handlers.retry_worker import make_retry
from services.payments.runtime import RECORD_SPACING_SECONDS, Runtime
from services.payments.store import charges as charge_store
from services.payments.store.retries import Claim
from shared.batching import Batcher
from shared.contracts.scheduler import ChargeSubscription, RetryCharge
from shared.errors import SluiceError
from shared.gateways.send_deadline import send_within
from shared.messaging.publisher import LOAD_RATE
from shared.messaging.receiver import Delivery
from shared.metrics import bound

log = structlog.get_logger()

#: Charges in hand for each that may be in flight, so that a turn that ends is taken at once.
IN_HAND_PER_TURN: Final = 4
IN_HAND_LEAST: Final = 50

#: Recorded together at least, as long as more wait: a commit costs about the same for one and many.
TOGETHER_LEAST: Final = 25

#: How long orders wait for room before they are recorded to be begun later. The scheduler sends
#: again after 30 s what was not confirmed.
ROOM_WAIT_SECONDS: Final = 25.0


@asynccontextmanager
async def charge_desk(runtime: Runtime) -> AsyncIterator[ChargeDesk]:
    """Open the place where orders come in; it ends when all answers are recorded."""

    async def record_all(answers: Sequence[Answer]) -> Sequence[None]:
        await record_answers(runtime, answers)
        return [None] * len(answers)

    answers: Batcher[Answer, None] = Batcher(
        record_all, spacing_seconds=RECORD_SPACING_SECONDS, load_rate=LOAD_RATE
    )
    try:
        yield ChargeDesk(runtime, answers)
    finally:
        await answers.drain()


@dataclass(eq=False)
class ChargeDesk:
    """Takes the orders of one process. Lives on one event loop."""

    runtime: Runtime
    answers: Batcher[Answer, None]
    _in_hand: int = 0
    #: Who waits for room, in the order in which they came.
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    async def charge(self, deliveries: Sequence[Delivery[ChargeSubscription]]) -> None:
        """Record orders and begin their charges; safe to repeat, and each ends on its own.

        What is recorded is confirmed at once: from then on it is ours to carry out.
        """
        waiting = _once_each(deliveries)
        begun: list[asyncio.Task[None]] = []
        deadline = asyncio.get_running_loop().time() + ROOM_WAIT_SECONDS
        try:
            while waiting:
                if (kept_back := drained(self.runtime)) is not None:
                    room = 0
                elif not (room := await self._take_room(len(waiting), deadline)):
                    kept_back = Deferred(NO_ROOM, self.runtime.core.clock())
                together, waiting = waiting[: room or None], waiting[room or len(waiting) :]
                with send_within(SEND_WITHIN_SECONDS):  # From before it is recorded.
                    begun += await self._record(together, kept_back, room)
        finally:
            await asyncio.gather(*begun)

    async def _record(
        self,
        deliveries: Sequence[Delivery[ChargeSubscription]],
        kept_back: Deferred | None,
        room: int,
    ) -> list[asyncio.Task[None]]:
        begun: list[Recorded] = []
        try:
            begun = await record(self.runtime, deliveries, kept_back)
        finally:
            self._give_back(room - len(begun))
        tasks = [asyncio.create_task(self._begin(each)) for each in begun]
        for delivery in deliveries:
            delivery.done()
        return tasks

    async def _begin(self, recorded: Recorded) -> None:
        runtime, stored = self.runtime, recorded.stored
        try:
            asked = await ask_for_money(
                runtime, recorded.gateway, stored, traceparent=recorded.traceparent
            )
            if isinstance(asked.verdict, Deferred):
                await record_put_off(runtime, stored, asked.verdict)
            else:
                await self.answers.submit(
                    Answer(stored, asked.verdict, asked.asked_at, asked.traceparent)
                )
        except SluiceError as error:
            # It is on record as begun, and is asked about like any whose answer was lost.
            log.warning("charge_not_recorded", payment=stored.payment_id, error=error.message)
        finally:
            self._give_back(1)

    async def retry(self, deliveries: Sequence[Delivery[RetryCharge]]) -> None:
        """Make the retries that wait for an order; one that does not is left as it is.

        Safe to repeat: an order that was heard before changes nothing.
        """
        runtime, now = self.runtime, self.runtime.core.clock()
        orders: dict[str, int] = {}
        for delivery in deliveries:
            id_ = delivery.message.payment_id
            orders[id_] = max(delivery.id, orders.get(id_, 0))
        async with runtime.core.database.connection() as connection:
            released = await charge_store.order_retries(connection, orders, now)
        for delivery in deliveries:
            delivery.done()
        deadline = asyncio.get_running_loop().time() + ROOM_WAIT_SECONDS
        begun: list[asyncio.Task[None]] = []
        try:
            while released and (room := await self._take_room(len(released), deadline)):
                # What finds no room is due, and taken up by whoever makes the other retries.
                begun += await self._claim(released[:room], room)
                released = released[room:]
        finally:
            await asyncio.gather(*begun)

    async def _claim(self, payment_ids: Sequence[str], room: int) -> list[asyncio.Task[None]]:
        runtime = self.runtime
        lease = runtime.settings.retry_lock_timeout.total_seconds()
        claims: list[Claim] = []
        try:
            async with runtime.core.database.connection() as connection:
                claims = await charge_store.claim_ordered(
                    connection, payment_ids, runtime.core.clock(), lease
                )
        finally:
            self._give_back(room - len(claims))
        return [asyncio.create_task(self._make(claim)) for claim in claims]

    async def _make(self, claim: Claim) -> None:
        try:
            bound(metrics.CHARGES, claim.retry.gateway, "retried").inc()
            await make_retry(self.runtime, claim)
        finally:
            self._give_back(1)

    async def _take_room(self, wanted: int, deadline: float) -> int:
        """Wait for room and take it; 0 when there was none before the deadline."""
        try:
            async with asyncio.timeout_at(deadline), self._line:
                while (room := self._room()) < min(wanted, TOGETHER_LEAST):
                    self._freed.clear()
                    await self._freed.wait()
                taken = min(room, wanted)
                self._in_hand += taken
                return taken
        except TimeoutError:
            return 0

    def _room(self) -> int:
        turns = self.runtime.flow.controls.charges
        return max(IN_HAND_LEAST, IN_HAND_PER_TURN * turns) - self._in_hand

    def _give_back(self, room: int) -> None:
        self._in_hand -= room
        self._freed.set()


def _once_each(
    deliveries: Sequence[Delivery[ChargeSubscription]],
) -> list[Delivery[ChargeSubscription]]:
    """Return one delivery for each payment; the others are the same order, and end with it."""
    first: dict[str, Delivery[ChargeSubscription]] = {}
    for delivery in deliveries:
        first.setdefault(delivery.message.payment_id, delivery)
    return list(first.values())
