"""A Dramatiq worker inside one of our processes: start, liveness, bounded stop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Final

import dramatiq
import redis
import structlog

from shared.messaging.broker import HEARTBEAT_TIMEOUT_MS, OrjsonEncoder, SluiceBroker
from shared.messaging.redis_client import probing_client

log = structlog.get_logger()

#: Threads only admit batches to the event loop, so a few keep it busy.
THREADS: Final = 4

#: Batches fetched ahead for each queue.
PREFETCH: Final = 8

#: How often idle worker threads look whether they shall stop.
IDLE_MS: Final = 1_000

#: A stop waits this long for threads; they are daemons, so a hanging Redis cannot hold the process.
STOP_SECONDS: Final = 4.0


class QueueWorker:
    """Runs the actors of one broker. `stop` may be called any number of times."""

    def __init__(self, broker: SluiceBroker, *, queues: frozenset[str] | None = None) -> None:
        self._broker = broker
        self._worker = dramatiq.Worker(
            broker,
            queues=set(queues) if queues else None,
            worker_threads=THREADS,
            worker_timeout=IDLE_MS,
        )
        self._worker.queue_prefetch = PREFETCH
        self._is_stopping = False

    def start(self) -> None:
        """Start the threads.

        Raises:
            redis.RedisError: Redis refuses; a worker that cannot work must not look healthy.
        """
        # The worker's own client retries for ever, which would hide a wrong address at boot.
        probe = probing_client(self._broker.url, self._broker.namespace)
        try:
            probe.ping()
        finally:
            probe.close()
        dramatiq.set_encoder(OrjsonEncoder())
        self._worker.start()

    def problems(self) -> list[str]:
        """Name each thread that is dead though the worker should run; empty when all live."""
        if self._is_stopping:
            return []
        dead = [
            f"consumer of {name} is dead"
            for name, thread in self._worker.consumers.items()
            if not thread.is_alive()
        ]
        dead += ["a worker thread is dead" for t in self._worker.workers if not t.is_alive()]
        return dead

    def is_hearing(self) -> bool:
        """Tell whether a consumer heard from Redis within the heartbeat time-out."""
        return time.monotonic() - self._broker.heard_at < HEARTBEAT_TIMEOUT_MS / 1000

    async def stop(self) -> None:
        """Stop fetching, give fetched messages back, within `STOP_SECONDS`."""
        if self._is_stopping:
            return
        self._is_stopping = True
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop_worker() -> None:
            try:
                self._worker.stop(timeout=int(STOP_SECONDS * 500))
                self._broker.client.close()
            except redis.RedisError as error:
                # What was fetched stays unacknowledged; another worker's maintenance returns it.
                log.warning("fetched_messages_not_returned", error=type(error).__name__)
            finally:
                # When this took too long the loop may be closed: then nobody waits any more.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(stopped.set)

        # A thread of its own and a daemon: an executor's thread would be waited for at exit.
        threading.Thread(target=stop_worker, daemon=True).start()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await stopped.wait()
        except TimeoutError:
            log.warning("worker_threads_left_behind", after_seconds=STOP_SECONDS)
