"""The receiver: admits messages from the queues and finishes each on its own.

The receipt, not Dramatiq's acknowledgement, ends a message. So an actor holds its thread only until
its batch is admitted, and one slow item delays none of its neighbours.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import orjson
import structlog

from shared import metrics
from shared.contracts.base import MalformedMessageError, Message
from shared.database import Database
from shared.errors import DatabaseUnavailableError, PermanentError, TransientError
from shared.messaging import outbox
from shared.messaging.envelope import Incoming, decode_items, seconds_since_sent
from shared.messaging.publisher import Publisher

log = structlog.get_logger()

M = TypeVar("M", bound=Message)

#: Waits before a failed message is handled again, in seconds. After the last one a message that
#: met an outage is left to its sender's outbox; one that met a bug becomes a dead letter.
REDELIVERY_SECONDS: Final = (2, 4, 8, 16, 32)

#: Messages of one queue that a worker process holds at a time, those waiting for redelivery
#: included. Of its own for each queue: what is urgent never waits for what is not.
CAPACITY: Final = 1_000

#: Longest time a stop waits for the messages in hand; the outbox sends the rest again.
DRAIN_SECONDS: Final = 5.0


class Holder(Protocol):
    """Whoever gave a message to a handler, and hears how that ended."""

    def finish(self, delivery: Delivery[Any]) -> None:
        """End a message whose effect is committed."""

    def put_back(self, delivery: Delivery[Any], error: Exception) -> None:
        """Take back a message whose handling failed."""


@dataclass(slots=True, eq=False)
class Delivery(Generic[M]):
    """One message in hand. A handler ends it by `done` or `fail`, or by returning or raising."""

    receiver: Holder
    queue: str
    sender: str
    id: int
    message: M
    traceparent: str | None
    tries: int = 0
    #: Whether this try has ended, well or not.
    is_finished: bool = False

    def done(self) -> None:
        """State that the message's effect is committed: a receipt goes to the sender."""
        self.receiver.finish(self)

    def fail(self, error: Exception) -> None:
        """State that this try failed: it is repeated later, or becomes a dead letter."""
        self.receiver.put_back(self, error)


#: Handles one or more messages of a kind. What it leaves open is done when it returns; when it
#: raises, each open message is tried alone, so that one cannot spoil its neighbours.
Handler = Callable[[Sequence[Delivery[Any]]], Awaitable[None]]


class Receiver:
    """Hands the messages of one service's queues to their handlers. Lives on one event loop."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        handlers: Mapping[type[Message], Handler],
        *,
        capacity: int = CAPACITY,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._types = MappingProxyType({kind.name: kind for kind in handlers})
        self._handlers = handlers
        self._capacity = capacity
        self._in_hand: dict[tuple[str, int], Delivery[Any]] = {}
        self._in_hand_of: Counter[str] = Counter()
        self._notify: dict[str, Callable[[], None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._waiting: set[asyncio.Task[object]] = set()
        self._is_closing = False
        metrics.MESSAGES_IN_HAND.labels(database.schema).set_function(lambda: len(self._in_hand))

    def has_room(self, queue: str) -> bool:
        """Whether more messages of a queue can be taken; read from any thread."""
        return self._in_hand_of[queue] < self._capacity

    def call_when_roomy(self, queue: str, notify: Callable[[], None]) -> None:
        """Have `notify` called each time that a full queue has room again."""
        self._notify[queue] = notify

    def accept(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Take a batch and start its handlers."""
        batch = arguments.get("batch")
        try:
            sender, items = str(batch["sender"]), decode_items(batch)  # type: ignore[index, arg-type]
            waited = seconds_since_sent(batch)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            stray = Incoming(0, "?", arguments, None)
            reason = f"not a batch: {type(error).__name__}"
            self._run(self._bury(queue, "", stray, reason), self._tasks)
            return
        metrics.bound(metrics.QUEUE_WAIT_SECONDS, queue).observe(waited)
        by_kind: dict[type[Message], list[Delivery[Any]]] = {}
        for item in items:
            if (sender, item.id) in self._in_hand:
                metrics.bound(metrics.MESSAGES_HANDLED, item.name, "duplicate").inc()
                continue
            try:
                kind = self._types[item.name]
                message = kind.decode(item.payload)
            except (KeyError, MalformedMessageError) as error:
                self._run(self._bury(queue, sender, item, _reason(error)), self._tasks)
                continue
            delivery = Delivery(self, queue, sender, item.id, message, item.traceparent)
            self._in_hand[sender, item.id] = delivery
            self._in_hand_of[queue] += 1
            by_kind.setdefault(kind, []).append(delivery)
        for kind, deliveries in by_kind.items():
            self._start(kind, deliveries)

    async def close(self) -> None:
        """Finish what is in hand within `DRAIN_SECONDS`; the outbox sends the rest again."""
        self._is_closing = True
        for task in self._waiting:
            task.cancel()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_SECONDS
        while self._tasks and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in self._tasks:
            task.cancel()

    def finish(self, delivery: Delivery[Any]) -> None:
        """End a message whose effect is committed."""
        self._forget(delivery, "done")
        self._publisher.confirm(delivery.sender, delivery.id)

    def put_back(self, delivery: Delivery[Any], error: Exception) -> None:
        """Repeat a failed message later, or give it up."""
        delivery.is_finished = True
        if isinstance(error, PermanentError):
            self._run(self._give_up(delivery, error), self._tasks)
            return
        if delivery.tries < len(REDELIVERY_SECONDS) and not self._is_closing:
            wait = REDELIVERY_SECONDS[delivery.tries]
            delivery.tries += 1
            metrics.bound(metrics.MESSAGES_HANDLED, delivery.message.name, "redelivered").inc()
            self._run(self._redeliver(delivery, wait), self._waiting)
        elif isinstance(error, TransientError) or self._is_closing:
            self._forget(delivery, "left_to_outbox")
        else:
            self._run(self._give_up(delivery, error), self._tasks)

    async def _redeliver(self, delivery: Delivery[Any], wait_seconds: float) -> None:
        await asyncio.sleep(wait_seconds)
        delivery.is_finished = False
        self._start(type(delivery.message), [delivery])

    def _start(self, kind: type[Message], deliveries: Sequence[Delivery[Any]]) -> None:
        self._run(self._handle(self._handlers[kind], deliveries), self._tasks)

    def _run(self, work: Coroutine[Any, Any, object], tasks: set[asyncio.Task[object]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _handle(self, handler: Handler, deliveries: Sequence[Delivery[Any]]) -> None:
        try:
            await handler(deliveries)
        except Exception as error:
            still_open = [delivery for delivery in deliveries if not delivery.is_finished]
            if len(still_open) > 1 and not isinstance(error, TransientError):
                for delivery in still_open:
                    await self._handle(handler, [delivery])
                return
            log.warning(
                "message_failed",
                kind=deliveries[0].message.name,
                count=len(still_open),
                error=_reason(error),
                exc_info=not isinstance(error, (TransientError, PermanentError)),
            )
            for delivery in still_open:
                self.put_back(delivery, error)
            return
        for delivery in deliveries:
            if not delivery.is_finished:
                delivery.done()

    async def _give_up(self, delivery: Delivery[Any], error: Exception) -> None:
        item = Incoming(
            delivery.id,
            delivery.message.name,
            delivery.message.model_dump(mode="json", by_alias=True),
            delivery.traceparent,
        )
        is_buried = await self._bury(delivery.queue, delivery.sender, item, _reason(error))
        self._forget(delivery, "dead" if is_buried else "left_to_outbox")

    def _forget(self, delivery: Delivery[Any], outcome: str) -> None:
        delivery.is_finished = True
        if self._in_hand.pop((delivery.sender, delivery.id), None) is not None:
            self._in_hand_of[delivery.queue] -= 1
            if self._in_hand_of[delivery.queue] == self._capacity - 1:
                self._notify.get(delivery.queue, _nobody)()
        metrics.bound(metrics.MESSAGES_HANDLED, delivery.message.name, outcome).inc()

    async def _bury(self, queue: str, sender: str, item: Incoming, reason: str) -> bool:
        log.error("dead_letter_stored", queue=queue, sender=sender, kind=item.name, reason=reason)
        try:
            async with self._database.transaction() as connection:
                await outbox.store_dead_letter(
                    connection,
                    queue=queue,
                    sender=sender,
                    message_id=item.id or None,
                    message_name=item.name,
                    payload=orjson.dumps(item.payload).decode(),
                    reason=reason,
                )
        except DatabaseUnavailableError as error:
            # Without a receipt the sender sends it again, and it is buried then.
            log.warning("dead_letter_not_stored", kind=item.name, reason=error.message)
            return False
        if sender:
            self._publisher.confirm(sender, item.id)
        return True


def _nobody() -> None:
    """Nobody waits for room."""


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no handler for message {error}"
    return f"{type(error).__name__}: {error}"
