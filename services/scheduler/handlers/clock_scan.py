"""The scan of test clocks: brings their subscriptions to what the clocks show.

It does what the scan of the real time does, with each subscription at its own time: whatever is due
happens at the moment it was due, one thing after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from services.scheduler import metrics
from services.scheduler.domain.clocks import VirtualClock, moment_when_due
from services.scheduler.domain.model import Subscription
from services.scheduler.handlers.billing import do_what_is_due
from services.scheduler.runtime import Runtime
from services.scheduler.store import due as due_store
from services.scheduler.store import test_clocks as clock_store
from shared.database import Connection
from shared.errors import DatabaseUnavailableError
from shared.messaging.envelope import Outgoing

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
        try:
            is_any_going = await follow_clocks(runtime)
        except DatabaseUnavailableError as error:
            log.warning("clock_scan_waits", reason=error.message)
            is_any_going = False
        await asyncio.sleep(LOOK_SECONDS if is_any_going else IDLE_SECONDS)


async def follow_clocks(runtime: Runtime) -> bool:
    """Do what is due on test clocks until nothing is; tell whether one goes on all the same.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; what was not committed is due as before.
    """
    async with runtime.core.database.connection() as connection:
        clocks = await clock_store.find_going(connection)
    left = list(clocks)
    while left:  # In turns: one clock with much to do holds up no other.
        left = [clock for clock in left if await _take_batch(runtime, clock)]
    for clock in clocks:
        async with runtime.core.database.transaction() as connection:
            await clock_store.set_ready(connection, clock.id, runtime.core.clock())
    return bool(clocks)


async def _take_batch(runtime: Runtime, clock: VirtualClock) -> int:
    """Do the next thing for each of the first subscriptions that are due; return how many."""
    until = clock.moment(runtime.core.clock())
    due: Sequence[Subscription] = ()
    try:
        async with runtime.core.database.transaction() as connection:
            due = await clock_store.claim_due(connection, clock.id, until, BATCH_SIZE)
            outgoing = await _take(runtime, connection, due)
    except DatabaseUnavailableError:
        raise
    except Exception:
        log.exception("clock_batch_failed", clock_id=clock.id)
        for each in due:
            await _take_alone(runtime, each)
        return len(due)
    runtime.core.publisher.publish(outgoing)
    metrics.TAKEN_ON_CLOCKS.inc(len(due))
    return len(due)


async def _take_alone(runtime: Runtime, one: Subscription) -> None:
    """Do the next thing for one subscription, or set it aside, so that others go on."""
    assert one.due_at is not None, "it was due"
    try:
        async with runtime.core.database.transaction() as connection:
            due = await clock_store.claim_this(connection, one.id, one.due_at)
            outgoing = await _take(runtime, connection, due)
    except DatabaseUnavailableError:
        raise
    except Exception as error:
        log.exception("subscription_set_aside", subscription_id=one.id)
        problem = f"{type(error).__name__}: {error}"
        async with runtime.core.database.connection() as connection:
            if await due_store.set_aside(connection, one.id, problem, one.due_at):
                metrics.SET_ASIDE_BY_SCANS.inc()
        return
    runtime.core.publisher.publish(outgoing)
    metrics.TAKEN_ON_CLOCKS.inc(len(due))


async def _take(
    runtime: Runtime, connection: Connection, due: Sequence[Subscription]
) -> list[Outgoing]:
    return await do_what_is_due(runtime, connection, due, moment_when_due) if due else []
