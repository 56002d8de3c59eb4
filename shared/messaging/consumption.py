"""The worker side of a service: its queues, their receiver, its relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from shared.batching import Batcher
from shared.contracts.base import Message
from shared.contracts.subscriptions import SENDERS, queues_of, receipts_queue
from shared.messaging import outbox, relay
from shared.messaging.broker import SluiceBroker, declare_actor
from shared.messaging.receiver import CAPACITY, Handler, Receiver
from shared.messaging.worker import THREADS, QueueWorker
from shared.process import Core, Part

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
) -> AsyncIterator[Part]:
    """Consume the service's queues until the context ends.

    Args:
        core: What the service stands on.
        redis_url: Where the queues are.
        handlers: What to do with each kind of message.
        priorities: Each queue but the receipts with its rank; 0 goes first.
        tasks: Loops that run beside the relay.
        capacity: Messages held at a time.

    Raises:
        redis.RedisError: Redis does not answer at boot.
    """
    queues = queues_of(core.service)
    loop = asyncio.get_running_loop()
    broker = SluiceBroker(redis_url, core.service, connections_max=THREADS + 2 * len(queues) + 20)
    receiver = Receiver(core.database, core.publisher, handlers, capacity=capacity)
    for queue, priority in priorities.items():
        declare_actor(
            broker, loop, queue=queue, priority=priority, receive=partial(receiver.receive, queue)
        )
    loops = list(tasks)
    if core.service in SENDERS:
        declare_actor(
            broker,
            loop,
            queue=receipts_queue(core.service),
            priority=RECEIPTS_PRIORITY,
            receive=_Receipts(core).receive,
        )
        loops.append(partial(relay.run, core.database, core.publisher))
    assert broker.get_declared_queues() == queues, "the table of subscriptions knows other queues"
    worker = QueueWorker(broker)
    worker.start()
    try:
        yield Part(
            name=f"{core.service}-worker",
            tasks=loops,
            needs_redis=True,
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            problems=worker.problems,
            measure=core.measure,
        )
    finally:
        await worker.stop()
        await receiver.close()


class _Receipts:
    """Deletes from the outbox what receivers have committed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._deletions: Batcher[Sequence[int], None] = Batcher(self._delete)

    async def receive(self, ids: Sequence[int]) -> None:
        """Take a receipt; when PostgreSQL is away it comes again through Dramatiq."""
        await self._deletions.submit(ids)

    async def _delete(self, receipts: Sequence[Sequence[int]]) -> Sequence[None]:
        async with self._core.database.connection() as connection:
            await outbox.confirm(connection, [id_ for ids in receipts for id_ in ids])
        return [None] * len(receipts)
