"""Publication: puts messages and receipts on the receivers' queues right after the commit."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import redis.asyncio
import structlog

from shared import metrics
from shared.batching import Batcher
from shared.contracts.subscriptions import queue_owner, receipts_queue
from shared.messaging.envelope import (
    ITEMS_MAX,
    RECEIPT_IDS_MAX,
    Outgoing,
    encode_batch,
    encode_receipt,
)
from shared.messaging.redis_client import UNAVAILABLE

log = structlog.get_logger()

#: Under load, least time between two publications: fuller messages for 3 ms of latency.
SPACING_SECONDS: Final = 0.003

#: Nobody waits for a receipt, so they may gather longer.
RECEIPT_SPACING_SECONDS: Final = 0.05

#: Messages that may wait for publication when Redis hangs; more are left to the outbox.
WAITING_MAX: Final = 20_000


def namespace(service: str) -> str:
    """Return the prefix of a service's keys; the braces keep them in one slot of a cluster."""
    return f"{{sluice.{service}}}"


class Publisher:
    """Sends what one service has committed. Never waits for Redis and never raises for it."""

    def __init__(self, client: redis.asyncio.Redis, service: str) -> None:
        self._client = client
        self._service = service
        self._messages: Batcher[Outgoing, None] = Batcher(
            self._flush_messages, size_max=1_000, spacing_seconds=SPACING_SECONDS
        )
        self._receipts: Batcher[tuple[str, int], None] = Batcher(
            self._flush_receipts,
            size_max=RECEIPT_IDS_MAX,
            spacing_seconds=RECEIPT_SPACING_SECONDS,
        )
        self._is_failing = False

    def publish(self, items: Iterable[Outgoing]) -> None:
        """Queue messages for publication; what does not get through, the outbox sends again."""
        for item in items:
            if len(self._messages) >= WAITING_MAX:
                metrics.PUBLICATIONS_FAILED.labels(item.queue).inc()
            else:
                self._messages.submit(item)

    def confirm(self, sender: str, message_id: int) -> None:
        """Queue a receipt; if it is lost, the message comes again and is confirmed again."""
        if len(self._receipts) < WAITING_MAX:
            self._receipts.submit((sender, message_id))

    async def send(self, items: Sequence[Outgoing]) -> bool:
        """Publish now, and tell whether Redis took it all. For the relay."""
        by_queue: defaultdict[str, list[Outgoing]] = defaultdict(list)
        for item in items:
            by_queue[item.queue].append(item)
        arrived = True
        for queue, queued in by_queue.items():
            bodies = [
                encode_batch(queue, self._service, queued[start : start + ITEMS_MAX])
                for start in range(0, len(queued), ITEMS_MAX)
            ]
            if await self._push(queue, bodies):
                metrics.MESSAGES_PUBLISHED.labels(queue).inc(len(queued))
            else:
                metrics.PUBLICATIONS_FAILED.labels(queue).inc(len(queued))
                arrived = False
        return arrived

    async def close(self) -> None:
        """Send what waits; bounded by the client's time-outs."""
        await self._messages.drain()
        await self._receipts.drain()
        await self._client.aclose()

    async def _flush_messages(self, items: Sequence[Outgoing]) -> Sequence[None]:
        await self.send(items)
        return [None] * len(items)

    async def _flush_receipts(self, items: Sequence[tuple[str, int]]) -> Sequence[None]:
        by_sender: defaultdict[str, list[int]] = defaultdict(list)
        for sender, message_id in items:
            by_sender[sender].append(message_id)
        for sender, ids in by_sender.items():
            queue = receipts_queue(sender)
            await self._push(queue, [encode_receipt(queue, ids)])
        return [None] * len(items)

    async def _push(self, queue: str, bodies: Sequence[tuple[str, bytes]]) -> bool:
        """Put Dramatiq messages on a queue in one MULTI, bodies before ids.

        Tried twice: after a restart of Redis the first command on a pooled connection fails.
        A push whose answer was lost may be repeated; receivers take a duplicate as a success.
        """
        key = f"{namespace(queue_owner(queue))}:{queue}"
        for is_last_try in (False, True):
            try:
                async with asyncio.timeout(2), self._client.pipeline(transaction=True) as pipe:
                    pipe.hset(f"{key}.msgs", mapping=dict(bodies))
                    pipe.rpush(key, *(message_id for message_id, _ in bodies))
                    await pipe.execute()
            except UNAVAILABLE as error:
                if is_last_try:
                    self._note_failure(queue, error)
                    return False
            else:
                self._is_failing = False
                return True
        raise AssertionError("unreachable: the last try returns")

    def _note_failure(self, queue: str, error: BaseException) -> None:
        if not self._is_failing:  # One line an episode; the metric counts every message.
            log.warning("publication_failed", queue=queue, error=type(error).__name__)
        self._is_failing = True
