"""What people do with test clocks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from services.scheduler.domain.clocks import (
    FIRST_MOMENT,
    LAST_MOMENT,
    VirtualClock,
    attached,
    left_without_clock,
)
from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import Subscription
from services.scheduler.runtime import Runtime, write
from services.scheduler.store import test_clocks as store
from services.scheduler.store.subscriptions import find_plans, lock_subscriptions, plan_ids
from shared.database import Connection
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.messaging.envelope import Outgoing

#: Subscriptions that one transaction puts on a clock, or cancels with it.
BATCH_SIZE: Final = 500

#: Charges that the answer about a clock names.
WAITING_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ClockView:
    """A clock, what it shows at this moment, and how far its subscriptions have come."""

    clock: VirtualClock
    moment: datetime
    progress: store.Progress
    waiting: list[store.Waiting]


async def create_clock(
    runtime: Runtime, clock_id: str, name: str, now: datetime | None
) -> ClockView:
    """Store a clock that stands at `now`, or at the present.

    Raises:
        InvalidInputError: that is before 1900 or after the year 7999.
    """
    real_now = runtime.core.clock()
    now = _possible(now or real_now, "now")
    async with runtime.core.database.transaction() as connection:
        await store.insert_clock(connection, clock_id, name, now, real_now)
    return await read_clock(runtime, clock_id)


async def read_clock(runtime: Runtime, clock_id: str) -> ClockView:
    """Return a clock.

    Raises:
        NotFoundError: there is none.
    """
    async with runtime.core.database.connection() as connection:
        clock = await store.find_clock(connection, clock_id)
        if clock is None:
            raise NotFoundError(f"no test clock {clock_id}")
        moment = clock.moment(runtime.core.clock())
        progress = await store.measure_progress(connection, clock_id, moment)
        waiting = await store.list_waiting(connection, clock_id, WAITING_SHOWN)
    return ClockView(clock, moment, progress, waiting)


async def advance_clock(runtime: Runtime, clock_id: str, to: datetime) -> ClockView:
    """Let a clock show another time; what is due until then happens soon.

    Raises:
        InvalidInputError: that is before what it shows, or after the year 7999.
    """
    to = _possible(to, "to")
    real_now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        clock = await _lock_living(connection, clock_id)
        moment = clock.moment(real_now)
        if to < moment:
            problem = f"must not be before what the clock shows, which is {moment.isoformat()}"
            raise InvalidInputError(f"to {problem}", details={"to": problem})
        runs_since = None if clock.runs_since is None else real_now
        advanced = clock._replace(now=to, runs_since=runs_since, is_advancing=True)
        await store.save_clock(connection, advanced)
    return await read_clock(runtime, clock_id)


async def freeze_clock(runtime: Runtime, clock_id: str) -> ClockView:
    """Let a clock stand at what it shows; one that stands is left as it is."""
    real_now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        clock = await _lock_living(connection, clock_id)
        if clock.runs_since is not None:
            # What has become due since the last look is still to happen.
            frozen = clock._replace(now=clock.moment(real_now), runs_since=None, is_advancing=True)
            await store.save_clock(connection, frozen)
    return await read_clock(runtime, clock_id)


async def run_clock(runtime: Runtime, clock_id: str) -> ClockView:
    """Let a clock go with the real time from what it shows; one that runs is left as it is."""
    async with runtime.core.database.transaction() as connection:
        clock = await _lock_living(connection, clock_id)
        if clock.runs_since is None:
            running = clock._replace(runs_since=runtime.core.clock(), is_advancing=True)
            await store.save_clock(connection, running)
    return await read_clock(runtime, clock_id)


async def attach_customer(
    runtime: Runtime, clock_id: str, customer_id: str, *, actor: str
) -> ClockView:
    """Put a customer's subscriptions on a clock, those there are and those that will be.

    Raises:
        NotNowError: the customer or a subscription is on another clock, a charge is not resolved,
            or a subscription has come to a later time than the clock's.
    """
    async with runtime.core.database.transaction() as connection:
        clock = await _lock_living(connection, clock_id)
        known = await store.attach_customer(connection, customer_id, clock_id)
        if known != clock_id:
            raise NotNowError("is_on_another_clock", f"the customer is on clock {known}")
        found = await store.lock_subscriptions_of(connection, customer_id, clock_id, BATCH_SIZE + 1)
        if len(found) > BATCH_SIZE:
            problem = f"the customer has over {BATCH_SIZE} subscriptions: attach them one by one"
            raise NotNowError("too_many_subscriptions", problem)
        outgoing = await _attach(runtime, connection, clock, found, actor)
    runtime.core.publisher.publish(outgoing)
    return await read_clock(runtime, clock_id)


async def attach_subscription(
    runtime: Runtime, clock_id: str, subscription_id: str, *, actor: str
) -> ClockView:
    """Put one subscription on a clock.

    Raises:
        InvalidInputError: there is no such subscription.
        NotNowError: as with `attach_customer`.
    """
    async with runtime.core.database.transaction() as connection:
        # In this order, which is that of everybody who writes about a subscription on a clock.
        found = await lock_subscriptions(connection, [subscription_id])
        clock = await _lock_living(connection, clock_id)
        if not found:
            problem = "there is no such subscription"
            raise InvalidInputError(problem, details={"subscriptionId": problem})
        outgoing = await _attach(runtime, connection, clock, list(found.values()), actor)
    runtime.core.publisher.publish(outgoing)
    return await read_clock(runtime, clock_id)


async def remove_clock(runtime: Runtime, clock_id: str, *, actor: str) -> ClockView:
    """Remove a clock and cancel its subscriptions; what was begun before is carried on."""
    async with runtime.core.database.transaction() as connection:
        clock = await store.lock_clock(connection, clock_id)
        if clock.removed_at is None:
            real_now = runtime.core.clock()
            removed = clock._replace(
                now=clock.moment(real_now),
                runs_since=None,
                is_advancing=False,
                removed_at=real_now,
            )
            await store.save_clock(connection, removed)
            await store.forget_customers(connection, clock_id)
    # Nothing is put on a removed clock, so that ids only leave the rest.
    after_id = ""
    while True:
        async with runtime.core.database.transaction() as connection:
            living = await store.lock_living(connection, clock_id, after_id, BATCH_SIZE)
            plans = await find_plans(connection, plan_ids(living))
            moves = [left_without_clock(each, plans[each.plan_id]) for each in living]
            outgoing = await write(connection, moves, actor=actor)
        runtime.core.publisher.publish(outgoing)
        if len(living) < BATCH_SIZE:
            return await read_clock(runtime, clock_id)
        after_id = living[-1].id


async def _attach(
    runtime: Runtime,
    connection: Connection,
    clock: VirtualClock,
    found: list[Subscription],
    actor: str,
) -> list[Outgoing]:
    real_now = runtime.core.clock()
    plans = await find_plans(connection, plan_ids(found))
    lasts = await store.find_last_moments(connection, [each.id for each in found])
    moves = [attached(each, plans[each.plan_id], clock, lasts[each.id], real_now) for each in found]
    return await write(connection, moves, actor=actor)


async def _lock_living(connection: Connection, clock_id: str) -> VirtualClock:
    clock = await store.lock_clock(connection, clock_id)
    if clock.removed_at is not None:
        raise ConflictError(f"test clock {clock_id} is removed")
    return clock


def _possible(moment: datetime, field: str) -> datetime:
    """Return a moment that somebody gave, in UTC."""
    if not FIRST_MOMENT <= moment <= LAST_MOMENT:
        problem = f"must be from {FIRST_MOMENT.year} to {LAST_MOMENT.year}"
        raise InvalidInputError(f"{field} {problem}", details={field: problem})
    return moment.astimezone(UTC)
