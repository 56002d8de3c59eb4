"""The scan of test clocks: brings their subscriptions to what the clocks show.

It does what the scan of the real time does, with each subscription at its own time: whatever is due
happens at the moment it was due, one thing after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import asyncpg
import structlog

from services.scheduler import metrics
from services.scheduler.domain.clocks import VirtualClock, moment_when_due
from services.scheduler.domain.model import Subscription
from services.scheduler.handlers.billing import do_what_is_due
from services.scheduler.handlers.setting_aside import (
    Asides,
    ScanGivesUpError,
    raise_unless_its_fault,
)
from services.scheduler.runtime import Runtime
from services.scheduler.store import test_clocks as clock_store
from shared.database import Connection
from shared.errors import SluiceError

log = structlog.get_logger()

#: Subscriptions of one transaction.
BATCH_SIZE: Final = 200

#: Pause between two looks at clocks that go on: what payments answers makes the next things due,
#: and what is answered meanwhile is taken up together.
LOOK_SECONDS: Final = 0.1

#: Pause while no clock goes on: how long one that was advanced may stand before it does.
IDLE_SECONDS: Final = 0.5


async def follow_clocks_for_ever(runtime: Runtime) -> None:
    """Do what is due on test clocks, again and again."""
    while True:
        pause = IDLE_SECONDS
        try:
            if await follow_clocks(runtime):
                pause = LOOK_SECONDS
        except ScanGivesUpError as error:
            pause = runtime.settings.scheduler_interval.total_seconds()
            log.critical("clock_scan_gives_up", reason=error.message, again_in_seconds=pause)
        except (SluiceError, asyncpg.PostgresError) as error:
            log.warning("clock_scan_waits", reason=f"{type(error).__name__}: {error}")
        await asyncio.sleep(pause)


async def follow_clocks(runtime: Runtime) -> bool:
    """Do what is due on test clocks until nothing is; tell whether one goes on all the same.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; what was not committed is due as before.
        ScanGivesUpError: more fail than can be their fault.
    """
    async with runtime.core.database.connection() as connection:
        clocks = await clock_store.find_going(connection)
    this, left = _Round(runtime), list(clocks)
    while left:  # In turns: one clock with much to do holds up no other.
        left = [clock for clock in left if await this.take_batch(clock)]
    for clock in clocks:
        async with runtime.core.database.transaction() as connection:
            await clock_store.set_ready(connection, clock.id, runtime.core.clock())
    return bool(clocks)


class _Round:
    """One look at all clocks, and what it set aside."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._asides = Asides(runtime)

    async def take_batch(self, clock: VirtualClock) -> int:
        """Do the next thing for each of the first subscriptions that are due; return how many."""
        until = clock.moment(self._runtime.core.clock())
        try:
            return await self._take(
                lambda connection: clock_store.claim_due(connection, clock.id, until, BATCH_SIZE)
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one stops no other
            raise_unless_its_fault(error)
            log.warning("clock_batch_taken_apart", error=f"{type(error).__name__}: {error}")
        async with self._runtime.core.database.connection() as connection:
            ids = await clock_store.list_due_ids(connection, clock.id, until, BATCH_SIZE)
        return sum([await self._take_alone(each, until) for each in ids])

    async def _take_alone(self, subscription_id: str, until: datetime) -> int:
        try:
            return await self._take(
                lambda connection: clock_store.claim_this(connection, subscription_id, until)
            )
        except Exception as error:  # noqa: BLE001 - as above
            raise_unless_its_fault(error)
            return await self._asides.put(subscription_id, error, until)

    async def _take(self, claim: Callable[[Connection], Awaitable[list[Subscription]]]) -> int:
        async with self._runtime.core.database.transaction() as connection:
            due = await claim(connection)
            if not due:
                return 0
            outgoing = await do_what_is_due(self._runtime, connection, due, moment_when_due)
        self._runtime.core.publisher.publish(outgoing)
        metrics.TAKEN_ON_CLOCKS.inc(len(due))
        return len(due)
