"""Natural batching: work that arrives while a flush is in flight shares the next one.

The first item after a quiet moment never waits. Under load, and only then, flushes may be spaced by
a few milliseconds so that each carries more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from shared.errors import TransientError

#: The rate of items is that of the last such window: short enough to follow a burst.
RATE_WINDOW_SECONDS: Final = 0.1

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Collects items of one event loop and hands them to `flush` in batches.

    Args:
        flush: Does the work of up to `size_max` items and returns one result for each, in order.
            If it raises anything but a `TransientError` for more than one item, each item is
            flushed alone, so that a poisonous one does not take its neighbours along.
        size_max: Most items of one flush.
        flushes_max: Most flushes in flight at once.
        spacing_seconds: Least time between the starts of two flushes while items keep coming.
        load_rate: Items a second above which flushes are spaced; the spacing grows to its full
            length at three times that rate. Below it nothing waits.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        size_max: int = 100,
        flushes_max: int = 1,
        spacing_seconds: float = 0.0,
        load_rate: float = 0.0,
    ) -> None:
        self._flush = flush
        self._size_max = size_max
        self._flushes_max = flushes_max
        self._spacing_seconds = spacing_seconds
        self._load_rate = load_rate
        self._rate = 0.0
        self._counted = 0
        self._counting_since = self._started_at = -math.inf
        self._waiting: deque[tuple[T, asyncio.Future[R] | None]] = deque()
        self._runners: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Count the items that wait for a flush."""
        return len(self._waiting)

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item; the future ends with its result or the flush's exception."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._add(item, future)
        return future

    def post(self, item: T) -> None:
        """Queue an item that nobody waits for; `flush` must not raise."""
        self._add(item, None)

    def _add(self, item: T, future: asyncio.Future[R] | None) -> None:
        self._waiting.append((item, future))
        if len(self._runners) < self._flushes_max:
            self._runners.add(asyncio.create_task(self._run()))

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        while self._runners:
            await asyncio.wait(self._runners)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                pause = self._started_at + self._spacing() - loop.time()
                if pause > 0 and len(self._waiting) < self._size_max:
                    await asyncio.sleep(pause)
                self._started_at = loop.time()
                count = min(len(self._waiting), self._size_max)
                batch = [self._waiting.popleft() for _ in range(count)]
                self._count(count)
                await self._flush_batch(batch)
        finally:
            # Not in a callback of the task: who was just answered would run before it, and what
            # they submit would wait for a runner that has ended.
            runner = asyncio.current_task()
            assert runner is not None
            self._runners.discard(runner)

    def _spacing(self) -> float:
        """Return the least time between the starts of two flushes, for the present rate."""
        if not self._spacing_seconds or not self._load_rate:
            return self._spacing_seconds
        excess = (self._rate - self._load_rate) / (2 * self._load_rate)
        return self._spacing_seconds * min(1.0, max(0.0, excess))

    def _count(self, count: int) -> None:
        self._counted += count
        elapsed = self._started_at - self._counting_since
        if elapsed >= RATE_WINDOW_SECONDS:
            self._rate = self._counted / elapsed
            self._counted, self._counting_since = 0, self._started_at

    async def _flush_batch(self, batch: Sequence[tuple[T, asyncio.Future[R] | None]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to whoever submitted the items
            if len(batch) > 1 and not isinstance(error, TransientError):
                for entry in batch:
                    await self._flush_batch([entry])
                return
            for _, future in batch:
                if future is not None and not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if future is not None and not future.done():
                future.set_result(result)
