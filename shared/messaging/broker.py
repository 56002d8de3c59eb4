"""The Dramatiq broker: consumers that wake at once, and actors with explicit limits.

The traps it avoids were reproduced with Dramatiq 2.2.1: polling consumers, a poisonous body that
stops its queue and orphans its neighbours, a time-out of Redis that ends a consumer thread, retries
that last 39 days.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import Any, Final

import dramatiq
import orjson
import redis
import structlog
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.encoder import Encoder
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.middleware import Retries, ShutdownNotifications, TimeLimit

from shared.messaging.doors import Door
from shared.messaging.publisher import namespace
from shared.messaging.redis_client import BLOCK_SECONDS, consumer_client

log = structlog.get_logger()

#: A worker silent for this long is dead, and its unacknowledged messages go back to the queue.
HEARTBEAT_TIMEOUT_MS: Final = 30_000

#: Commands in a million that look for dead workers. High, because Redis is ours alone.
MAINTENANCE_CHANCE: Final = 100_000

#: An actor only hands a batch over; past this the batch comes again.
TIME_LIMIT_MS: Final = 60_000

#: Redelivery by Dramatiq itself, for a batch that could not be handed over: 2, 4, 8, 16, 32 s.
RETRIES_MAX: Final = 5
BACKOFF_MIN_MS: Final = 2_000
BACKOFF_MAX_MS: Final = 32_000


#: Messages that are done before Redis is told, unless the queue is quiet.
ACKED_MAX: Final = 32


class OrjsonEncoder(Encoder):
    """JSON in three quarters less time than the default; batches are large."""

    def encode(self, data: dict[str, Any]) -> bytes:
        """Write a Dramatiq message."""
        return orjson.dumps(data)

    def decode(self, data: bytes) -> dict[str, Any]:
        """Read a Dramatiq message.

        Raises:
            DecodeError: the bytes are not JSON.
        """
        try:
            return orjson.loads(data)  # type: ignore[no-any-return]
        except orjson.JSONDecodeError as error:
            raise DecodeError("not JSON", data, error) from error


class SluiceBroker(RedisBroker):
    """A broker of one service's queues, whose consumers block instead of polling."""

    def __init__(self, url: str, service: str, *, connections_max: int) -> None:
        super().__init__(
            client=consumer_client(url, namespace(service), connections_max=connections_max),
            namespace=namespace(service),
            heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
            maintenance_chance=MAINTENANCE_CHANCE,
            middleware=[
                TimeLimit(time_limit=TIME_LIMIT_MS),
                ShutdownNotifications(),
                Retries(
                    max_retries=RETRIES_MAX,
                    min_backoff=BACKOFF_MIN_MS,
                    max_backoff=BACKOFF_MAX_MS,
                ),
            ],
        )
        self.url = url
        #: Ids of messages that are done, by queue, of which Redis has not been told yet.
        self.acked: dict[str, deque[str]] = {}
        #: Where each queue's messages go; a queue of Dramatiq's own making has none.
        self.doors: dict[str, Door] = {}
        #: When any consumer last heard from Redis, on the monotonic clock.
        self.heard_at = time.monotonic()

    def fetch_command(self, queue_name: str, count: int) -> tuple[Any, ...]:
        """Return the EVALSHA that `do_fetch` would send, as Dramatiq 2.2 composes it."""
        return (
            self.scripts["dispatch"].sha,
            1,
            self.namespace,
            "fetch",
            int(time.time() * 1000),
            queue_name,
            self.broker_id,
            self.heartbeat_timeout,
            self.dead_message_ttl,
            self._should_do_maintenance("fetch"),
            self._max_unpack_size(),
            count,
        )

    @property
    def consumer_class(self) -> type[_WakefulConsumer]:
        """Consumers of this broker block on their queue."""
        return _WakefulConsumer


class _WakefulConsumer(_RedisConsumer):
    """A consumer that waits for its queue inside Redis, and survives what the stock one does not.

    `BLMOVE q q LEFT LEFT` puts the first id back where it was: it changes nothing and returns as
    soon as there is one. So publishers need no bell, and after an outage the queue rings as before.
    """

    def __init__(self, broker: SluiceBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        self._key = f"{broker.namespace}:{queue_name}"
        self._acks_key = f"{broker.namespace}:__acks__.{broker.broker_id}.{queue_name}"
        self._acked = broker.acked.setdefault(queue_name, deque())
        self._room = threading.Event()
        self._door = broker.doors.get(queue_name)
        #: The last fetch took all there was, so the next one would find nothing.
        self._is_drained = False

    def ack(self, message: MessageProxy) -> None:
        """Note that a message is done; Redis is told later, of many at once.

        The receipt ends our messages, so until then a crash costs a duplicate, which is a success.
        """
        self._acked.append(message.options["redis_message_id"])
        self.queued_message_ids.discard(message.message_id)
        self._room.set()

    def nack(self, message: MessageProxy) -> None:
        try:
            super().nack(message)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        finally:
            self._room.set()

    def requeue(self, messages: Any) -> None:
        try:
            super().requeue(messages)
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error

    def __next__(self) -> MessageProxy | None:
        # redis.TimeoutError is no redis.ConnectionError; unconverted it ends the thread.
        try:
            while self.message_cache:
                message = self._decode(self.message_cache.pop(0))
                if message is not None:
                    return message
            self._room.clear()
            room = self.prefetch - self.outstanding_message_count
            if room <= 0:
                self._room.wait(BLOCK_SECONDS)
                return None
            if self._door is not None and not self._door.is_open:
                self._wait_for_door(self._door)
                return None
            if self._is_drained:
                self._wait_and_fetch(room)
            else:
                self.message_cache = self.broker.do_fetch(self.queue_name, room)
            self._is_drained = len(self.message_cache) < room
            if not self.message_cache or len(self._acked) >= ACKED_MAX:
                self._tell_acked()
            self.broker.heard_at = time.monotonic()
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        return None

    def _wait_for_door(self, door: Door) -> None:
        """Wait until the event loop has room; meanwhile show Redis that this worker lives."""
        if not door.wait(BLOCK_SECONDS):
            self._tell_acked()
            self.broker.client.zadd(
                f"{self.broker.namespace}:__heartbeats__",
                {self.broker.broker_id: int(time.time() * 1000)},
            )
            self.broker.heard_at = time.monotonic()

    def _wait_and_fetch(self, room: int) -> None:
        """Wait for the queue and fetch in one round trip: a wake-up of two threads is saved.

        Also after a quiet second: a fetch is a heartbeat and returns a dead worker's work.
        """
        with self.broker.client.pipeline(transaction=False) as pipe:
            pipe.blmove(self._key, self._key, BLOCK_SECONDS, "LEFT", "LEFT")
            # By its hash: a `Script` would be looked for first, in a round trip of its own.
            pipe.evalsha(*self.broker.fetch_command(self.queue_name, room))
            waited, fetched = pipe.execute(raise_on_error=False)
        if isinstance(waited, redis.RedisError):
            raise waited
        if isinstance(fetched, redis.exceptions.NoScriptError):
            fetched = self.broker.do_fetch(self.queue_name, room)  # This loads it.
        if isinstance(fetched, redis.RedisError):
            raise fetched
        self.message_cache = fetched

    def close(self) -> None:
        """Tell Redis what is done, and give back what was fetched but never looked at.

        A stop, which comes while a consumer waits for its queue, finds the next message here.
        """
        try:
            self._tell_acked()
            fetched = [self._decode(data) for data in self.message_cache]
        except redis.RedisError as error:
            raise ConnectionClosed(error) from error
        self.message_cache = []
        self.requeue([message for message in fetched if message is not None])

    def _tell_acked(self) -> None:
        done = self._take_acked()
        if not done:
            return
        try:
            with self.broker.client.pipeline(transaction=True) as pipe:
                pipe.srem(self._acks_key, *done)
                pipe.hdel(f"{self._key}.msgs", *done)
                pipe.execute()
        except redis.RedisError:
            self._acked.extend(done)  # What Redis did not hear of must be told again.
            raise

    def _take_acked(self) -> list[str]:
        """Take all ids; at a stop that waited in vain, two threads may do so at once."""
        taken: list[str] = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._acked.popleft())
        return taken

    def _decode(self, data: bytes | None) -> MessageProxy | None:
        if data is None:
            return None
        try:
            message = dramatiq.Message.decode(data)
            self._require_usable(message)
        except (DecodeError, TypeError) as error:
            # Its neighbours are handled; the senders' outboxes send again what was in it.
            log.error("undecodable_message", queue=self.queue_name, error=type(error).__name__)
            self._drop(data)
            return None
        self.queued_message_ids.add(message.message_id)
        return MessageProxy(message)

    def _require_usable(self, message: dramatiq.Message[Any]) -> None:
        """Refuse what would break Dramatiq's own loop, and with it the queue.

        Raises:
            TypeError: the body is a message, but none that we could handle and acknowledge.
        """
        if (
            message.queue_name != self.queue_name
            or not isinstance(message.kwargs, dict)
            or not isinstance(message.options, dict)
            or "redis_message_id" not in message.options
        ):
            raise TypeError("not a message of this queue")

    def _drop(self, data: bytes) -> None:
        """Move an undecodable body to Redis's dead letters; its id is only known to Redis."""
        for message_id in self.broker.client.smembers(self._acks_key):
            if self.broker.client.hget(f"{self._key}.msgs", message_id) == data:
                self.broker.do_nack(self.queue_name, message_id)


def declare_actor(broker: SluiceBroker, door: Door, *, queue: str, priority: int) -> None:
    """Declare the one actor of a queue: it hands its arguments through the door, and is done.

    What the event loop has no room for is not fetched.

    Args:
        broker: The broker of the service that owns the queue.
        door: To where the service's pool, clients and pipelines live.
        queue: Name of the queue and of its actor.
        priority: 0 goes first among the messages one worker has fetched.
    """

    def actor(**arguments: Any) -> None:
        door.hand_over(arguments)

    broker.doors[queue] = door
    dramatiq.actor(
        actor_name=queue,
        queue_name=queue,
        priority=priority,
        broker=broker,
        max_retries=RETRIES_MAX,
        min_backoff=BACKOFF_MIN_MS,
        max_backoff=BACKOFF_MAX_MS,
        time_limit=TIME_LIMIT_MS,
    )(actor)
