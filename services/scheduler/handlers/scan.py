"""The scan: does what is due, most urgent first, until nothing is due.

A batch is claimed, decided and written in one transaction, so there is no lease: of a process that
is killed or frozen PostgreSQL gives up the transaction, and what it held is due as before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import asyncpg
import structlog

from services.scheduler import metrics
from services.scheduler.domain.model import Subscription
from services.scheduler.handlers.billing import do_what_is_due
from services.scheduler.handlers.setting_aside import (
    Asides,
    ScanGivesUpError,
    raise_unless_its_fault,
)
from services.scheduler.runtime import Runtime
from services.scheduler.store import due as due_store
from services.scheduler.store import pace
from shared.contracts.priorities import Priority
from shared.contracts.scheduler import ChargeSubscription
from shared.database import Connection
from shared.errors import SluiceError
from shared.metrics import bound

log = structlog.get_logger()

#: Subscriptions of one transaction.
BATCH_SIZE: Final = 1_000

#: Batches at once: while PostgreSQL writes one, the next one is decided.
LANES: Final = 2

#: What lower priorities are sure of in each batch, in per cent, while others are due without end.
MINIMUM_SHARE: Final = 10

#: Longest wait before the index is asked again what is due next: others make things due, too.
PROBE_SECONDS: Final = 1.0

#: Pause when what is due is in the hands of another scan.
HELD_SECONDS: Final = 0.25

#: Pause of a scan that may not order anything at the moment.
PACE_SECONDS: Final = 0.1

#: How far due subscriptions of a priority are counted for the metric.
COUNTED_MAX: Final = 10_000


async def scan_for_ever(runtime: Runtime) -> None:
    """Scan whenever something is due, and every `SCHEDULER_INTERVAL` at least."""
    interval = runtime.settings.scheduler_interval.total_seconds()
    while True:
        try:
            taken = await scan(runtime)
            await _until_due(runtime, HELD_SECONDS if taken == 0 else 0)
        except ScanGivesUpError as error:
            log.critical("scan_gives_up", reason=error.message, again_in_seconds=interval)
            await asyncio.sleep(interval)
        except (SluiceError, asyncpg.PostgresError) as error:
            log.warning("scan_waits", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(PROBE_SECONDS)


async def scan(runtime: Runtime) -> int:
    """Do what is due for every subscription that is due now; return how many that were.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; what was not committed is due as before.
        ScanGivesUpError: more fail than can be their fault.
    """
    started = time.perf_counter()
    this = _Scan(runtime)
    await this.begin()
    lanes = [asyncio.create_task(this.run_lane()) for _ in range(LANES)]
    try:
        taken = sum(await asyncio.gather(*lanes))
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
    if taken:
        metrics.SCAN_SECONDS.observe(time.perf_counter() - started)
        log.info("scan_done", taken=taken)
    return taken


async def measure(runtime: Runtime) -> None:
    """Set the gauges of what is due and what is set aside."""
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        due, aside = await due_store.measure(connection, now, COUNTED_MAX)
        next_due = await due_store.find_next_due(connection)
    age = 0.0 if next_due is None else (now - next_due).total_seconds()
    metrics.DUE.set(due)
    metrics.DUE_AGE_SECONDS.set(max(0.0, age))
    metrics.SET_ASIDE.set(aside)


async def _until_due(runtime: Runtime, at_least_seconds: float) -> None:
    interval = runtime.settings.scheduler_interval.total_seconds()
    scan_again_at = time.monotonic() + interval
    await asyncio.sleep(at_least_seconds)
    while (left := scan_again_at - time.monotonic()) > 0:
        async with runtime.core.database.connection() as connection:
            next_due = await due_store.find_next_due(connection)
        wait = min(left, PROBE_SECONDS)
        if next_due is not None:
            wait = min(wait, (next_due - runtime.core.clock()) / timedelta(seconds=1))
        if wait <= 0:
            return
        await asyncio.sleep(wait)


class _Scan:
    """One scan: how far it has come in each priority, and what it set aside."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._since = dict.fromkeys(Priority, due_store.LONG_AGO)
        self._asides = Asides(runtime)
        self._per_second = runtime.settings.scheduler_orders_per_second

    async def begin(self) -> None:
        """Have a pace to keep, if one is set."""
        if self._per_second is not None:
            async with self._runtime.core.database.connection() as connection:
                await pace.begin(connection)

    async def run_lane(self) -> int:
        """Take batch after batch until nothing is due; return how many subscriptions."""
        taken = 0
        while claimed := await self._take_batch():
            taken += claimed
        return taken

    async def _take_batch(self) -> int:
        most = await self._wait_for_leave()
        now = self._runtime.core.clock()
        try:
            taken, orders = await self._take(partial(self._claim, now, most), now)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one stops no other
            raise_unless_its_fault(error)
            log.warning("batch_taken_apart", error=f"{type(error).__name__}: {error}")
            return await self._take_apart(await self._due_ids(now, most), now)
        await self._give_back(most - orders)
        for each in taken:
            assert each.due_at is not None, "it was claimed for being due"
            self._since[each.priority] = max(self._since[each.priority], each.due_at)
        return len(taken)

    async def _wait_for_leave(self) -> int:
        """Return how many subscriptions may be taken now, each as if it ordered a charge."""
        if self._per_second is None:
            return BATCH_SIZE
        while True:
            async with self._runtime.core.database.connection() as connection:
                granted = await pace.take_orders(connection, BATCH_SIZE, self._per_second)
            if granted > 0:
                return granted
            await asyncio.sleep(PACE_SECONDS)

    async def _give_back(self, orders: int) -> None:
        if self._per_second is not None and orders > 0:
            async with self._runtime.core.database.connection() as connection:
                await pace.give_back(connection, orders, self._per_second)

    async def _claim(self, now: datetime, most: int, connection: Connection) -> list[Subscription]:
        due: list[Subscription] = []
        reserved = most * MINIMUM_SHARE // 100
        for index, priority in enumerate(Priority):
            room = most - len(due) - reserved * (len(Priority) - 1 - index)
            since = self._since[priority]
            due += await due_store.claim_due(connection, priority, since, now, room)
        return due

    async def _take(
        self, claim: Callable[[Connection], Awaitable[list[Subscription]]], now: datetime
    ) -> tuple[list[Subscription], int]:
        """Do what is due for those that are claimed; return them, and how many charges it took."""
        async with self._runtime.core.database.transaction() as connection:
            due = await claim(connection)
            if not due:
                return [], 0
            outgoing = await do_what_is_due(self._runtime, connection, due, lambda _: now)
        # Waited for, so that a scan never gets far ahead of what is published.
        await self._runtime.core.publisher.send(outgoing)
        _count(due, now)
        return due, sum(item.name == ChargeSubscription.name for item in outgoing)

    async def _due_ids(self, now: datetime, most: int) -> list[str]:
        async with self._runtime.core.database.connection() as connection:
            return [
                each
                for priority in Priority
                for each in await due_store.list_due_ids(connection, priority, now, most)
            ]

    async def _take_apart(self, ids: Sequence[str], now: datetime) -> int:
        """Take subscriptions in ever smaller parts, and set aside those that fail alone."""
        try:
            taken, _ = await self._take(partial(due_store.claim_these, ids, now), now)
        except Exception as error:  # noqa: BLE001 - as above
            raise_unless_its_fault(error)
            if len(ids) == 1:
                return await self._asides.put(ids[0], error, now)
        else:
            return len(taken)
        half = len(ids) // 2
        return await self._take_apart(ids[:half], now) + await self._take_apart(ids[half:], now)


def _count(due: Sequence[Subscription], now: datetime) -> None:
    longest: dict[Priority, datetime] = {}
    taken = dict.fromkeys(Priority, 0)
    for each in due:
        assert each.due_at is not None, "it was claimed for being due"
        taken[each.priority] += 1
        longest[each.priority] = min(longest.get(each.priority, each.due_at), each.due_at)
    for priority, due_at in longest.items():
        bound(metrics.TAKEN, priority).inc(taken[priority])
        bound(metrics.LATENESS_SECONDS, priority).observe((now - due_at).total_seconds())
