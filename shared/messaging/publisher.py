"""Publication: puts messages and receipts on the receivers' queues right after the commit."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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

#: Under full load, least time between two publications: fuller messages for 30 ms of latency. The
#: cost is per publication and per Dramatiq message, on both sides and in Redis.
SPACING_SECONDS: Final = 0.03

#: Messages a second from which load is heavy enough for that.
LOAD_RATE: Final = 500

#: Nobody waits for a receipt, so they may gather for longer, under little load too.
RECEIPT_SPACING_SECONDS: Final = 0.25

#: Messages that may wait for publication when Redis hangs; more are left to the outbox.
WAITING_MAX: Final = 20_000

#: Longest time a stop waits for what is to be published; the outboxes send the rest.
CLOSE_SECONDS: Final = 1.0

#: Messages one publication takes.
PUBLICATION_SIZE_MAX: Final = 1_000


def namespace(service: str) -> str:
    """Return the prefix of a service's keys; the braces keep them in one slot of a cluster."""
    return f"{{sluice.{service}}}"


class Publisher:
    """Sends what one service has committed. Never waits for Redis and never raises for it."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        service: str,
        client_of: Callable[[str], redis.asyncio.Redis] | None = None,
    ) -> None:
        """Publish for a service.

        Args:
            client: Reaches the service's own keys; closed with the publisher.
            service: Whose messages they are.
            client_of: In a cluster, makes a client that reaches another service's keys.
        """
        self._clients = {service: client}
        self._client_of = client_of
        self._service = service
        self._messages: Batcher[Outgoing, None] = Batcher(
            self._flush_messages,
            size_max=PUBLICATION_SIZE_MAX,
            spacing_seconds=SPACING_SECONDS,
            load_rate=LOAD_RATE,
        )
        self._receipts: Batcher[tuple[str, int], None] = Batcher(
            self._flush_receipts,
            size_max=RECEIPT_IDS_MAX,
            spacing_seconds=RECEIPT_SPACING_SECONDS,
        )
        self._is_failing = False
        self._has_given_up = False

    def publish(self, items: Iterable[Outgoing]) -> None:
        """Queue messages for publication; what does not get through, the outbox sends again."""
        for item in items:
            if len(self._messages) >= WAITING_MAX:
                metrics.PUBLICATIONS_FAILED.labels(item.queue).inc()
            else:
                self._messages.post(item)

    def confirm(self, sender: str, message_id: int) -> None:
        """Queue a receipt; if it is lost, the message comes again and is confirmed again."""
        if len(self._receipts) < WAITING_MAX:
            self._receipts.post((sender, message_id))

    async def send(self, items: Sequence[Outgoing]) -> bool:
        """Publish now, and tell whether Redis took it all. For the relay."""
        by_receiver: defaultdict[str, defaultdict[str, list[Outgoing]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for item in items:
            by_receiver[queue_owner(item.queue)][item.queue].append(item)
        arrived = True
        for receiver, queues in by_receiver.items():
            bodies = [
                (queue, *encode_batch(queue, self._service, queued[start : start + ITEMS_MAX]))
                for queue, queued in queues.items()
                for start in range(0, len(queued), ITEMS_MAX)
            ]
            is_taken = await self._push(receiver, bodies)
            counter = metrics.MESSAGES_PUBLISHED if is_taken else metrics.PUBLICATIONS_FAILED
            for queue, queued in queues.items():
                counter.labels(queue).inc(len(queued))
            arrived = arrived and is_taken
        return arrived

    async def close(self) -> None:
        """Send what waits, within `CLOSE_SECONDS` and the client's time-outs."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._drain()
        except TimeoutError:
            log.warning("publication_given_up", after_seconds=CLOSE_SECONDS)
            self._has_given_up = True
            await self._drain()
        for client in self._clients.values():
            await client.aclose()

    def _reaching(self, receiver: str) -> redis.asyncio.Redis:
        if self._client_of is None:
            return self._clients[self._service]
        if receiver not in self._clients:
            self._clients[receiver] = self._client_of(receiver)
        return self._clients[receiver]

    async def _drain(self) -> None:
        await self._messages.drain()
        await self._receipts.drain()

    async def _flush_messages(self, items: Sequence[Outgoing]) -> Sequence[None]:
        await self.send(items)
        return [None] * len(items)

    async def _flush_receipts(self, items: Sequence[tuple[str, int]]) -> Sequence[None]:
        by_sender: defaultdict[str, list[int]] = defaultdict(list)
        for sender, message_id in items:
            by_sender[sender].append(message_id)
        for sender, ids in by_sender.items():
            queue = receipts_queue(sender)
            await self._push(sender, [(queue, *encode_receipt(queue, ids))])
        return [None] * len(items)

    async def _push(self, receiver: str, bodies: Sequence[tuple[str, str, bytes]]) -> bool:
        """Put Dramatiq messages (queue, id, body) on a service's queues in one MULTI, bodies first.

        Tried twice: after a restart of Redis the first command on a pooled connection fails.
        A push whose answer was lost may be repeated; receivers take a duplicate as a success.
        """
        if self._has_given_up:
            return False
        prefix, client = namespace(receiver), self._reaching(receiver)
        for is_last_try in (False, True):
            try:
                async with asyncio.timeout(2), client.pipeline(transaction=True) as pipe:
                    for queue, message_id, body in bodies:
                        pipe.hset(f"{prefix}:{queue}.msgs", message_id, body)
                        pipe.rpush(f"{prefix}:{queue}", message_id)
                    await pipe.execute()
            except UNAVAILABLE as error:
                if is_last_try:
                    self._note_failure(receiver, error)
                    return False
            else:
                self._is_failing = False
                return True
        raise AssertionError("unreachable: the last try returns")

    def _note_failure(self, receiver: str, error: BaseException) -> None:
        if not self._is_failing:  # One line an episode; the metric counts every message.
            log.warning("publication_failed", receiver=receiver, error=type(error).__name__)
        self._is_failing = True
