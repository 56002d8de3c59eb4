"""The worker side of a service: its queues, their receiver, its relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog

from shared.batching import Batcher
from shared.contracts.base import Message
from shared.contracts.subscriptions import SENDERS, queues_of, receipts_queue
from shared.errors import DatabaseUnavailableError
from shared.messaging import dead_letters, outbox, relay
from shared.messaging.broker import SluiceBroker, declare_actor
from shared.messaging.doors import Door
from shared.messaging.receiver import CAPACITY, Handler, Receiver
from shared.messaging.worker import THREADS, QueueWorker
from shared.process import Core, Part

log = structlog.get_logger()

#: Receipts that may wait for PostgreSQL; the rest waits in Redis.
RECEIPTS_WAITING_MAX: Final = 100

#: Among fetched batches, receipts go last: they free rows, nobody waits for them.
RECEIPTS_PRIORITY: Final = 100


@asynccontextmanager
async def consume(
    core: Core,
    redis_url: str,
    *,
    handlers: Mapping[type[Message], Handler],
    priorities: Mapping[str, int],
    tasks: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    capacity: int = CAPACITY,
    left_out: Collection[str] = (),
) -> AsyncIterator[Part]:
    """Consume the service's queues until the context ends.

    Args:
        core: What the service stands on.
        redis_url: Where the queues are.
        handlers: What to do with each kind of message.
        priorities: Each queue but the receipts with its rank; 0 goes first.
        tasks: Loops that run beside the relay.
        capacity: Messages of each queue held at a time.
        left_out: Queues of the service that this worker leaves to others.

    Raises:
        redis.RedisError: Redis does not answer at boot.
    """
    queues = queues_of(core.service)
    loop = asyncio.get_running_loop()
    broker = SluiceBroker(redis_url, core.service, connections_max=THREADS + 2 * len(queues) + 20)
    receiver = Receiver(core.database, core.publisher, handlers, capacity=capacity)
    for queue, priority in priorities.items():
        door = Door(loop, receiver, queue)
        declare_actor(broker, door, queue=queue, priority=priority)
    loops = list(tasks)
    loops.append(partial(dead_letters.run, core.database, core.clock, handlers))
    receipts = _Receipts(core)
    if core.service in SENDERS:
        queue = receipts_queue(core.service)
        door = Door(loop, receipts, queue)
        declare_actor(broker, door, queue=queue, priority=RECEIPTS_PRIORITY)
        loops.append(partial(relay.run, core.database, core.publisher))
    assert broker.get_declared_queues() == queues, "the table of subscriptions knows other queues"
    worker = QueueWorker(broker, queues=queues - frozenset(left_out))
    worker.start()
    try:
        yield Part(
            name=f"{core.service}-worker",
            tasks=loops,
            needs_redis=True,
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            problems=worker.problems,
            is_hearing=worker.is_hearing,
            measure=core.measure,
        )
    finally:
        await worker.stop()
        await receiver.close()
        await receipts.close()


class _Receipts:
    """Deletes from the outbox what receivers have committed.

    A receipt that cannot be carried out is dropped: its messages are sent again, found to be
    duplicates, and confirmed anew.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._deletions: Batcher[Sequence[int], None] = Batcher(self._delete)
        self._notify: Callable[[], None]

    def has_room(self, _queue: str) -> bool:
        """Whether more receipts can be taken; read from any thread."""
        return len(self._deletions) < RECEIPTS_WAITING_MAX

    def call_when_roomy(self, _queue: str, notify: Callable[[], None]) -> None:
        """Have `notify` called whenever receipts were carried out."""
        self._notify = notify

    def accept(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Take a receipt."""
        ids = arguments.get("ids")
        if isinstance(ids, list) and all(isinstance(id_, int) for id_ in ids):
            self._deletions.post(ids)
        else:
            log.error("not_a_receipt", queue=queue)

    async def close(self) -> None:
        """Carry out what was taken."""
        await self._deletions.drain()

    async def _delete(self, receipts: Sequence[Sequence[int]]) -> Sequence[None]:
        try:
            async with self._core.database.connection() as connection:
                await outbox.confirm(connection, [id_ for ids in receipts for id_ in ids])
        except DatabaseUnavailableError as error:
            log.warning("receipts_dropped", count=len(receipts), reason=error.message)
        self._notify()
        return [None] * len(receipts)
