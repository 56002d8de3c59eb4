"""Makes subscriptions, and does what users and operators want of them.

Each request is one transaction, and is carried out once: what it did bears its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, TypeAlias

from services.scheduler.domain import commands
from services.scheduler.domain.beginning import Wish, begun
from services.scheduler.domain.clocks import moment_of_command
from services.scheduler.domain.model import OVER, CatchUpPolicy, Move, Situation, Subscription
from services.scheduler.handlers.chargeable import (
    UnusableError,
    await_method,
    find_open_plan,
    require_method,
    wrong,
)
from services.scheduler.runtime import Runtime, write
from services.scheduler.store import subscription_views as views
from services.scheduler.store import test_clocks as clock_store
from services.scheduler.store.subscription_views import SubscriptionView
from services.scheduler.store.subscriptions import (
    find_plans,
    insert_subscription,
    lock_subscriptions,
    plan_ids,
)
from shared.database import Connection
from shared.errors import NotFoundError
from shared.identifiers import is_id
from shared.messaging.envelope import Outgoing

#: Ids of subscriptions begin with this, those of requests that change one with the other.
ID_PREFIX: Final = "sub"
REQUEST_PREFIX: Final = "req"
_CLOCK_PREFIX: Final = "clk"


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks: the name of the API key, and an id that is the same when it is carried on."""

    id: str
    actor: str


class Wanted(NamedTuple):
    """What somebody wants to subscribe to, by the plan's id, with what they keep beside it."""

    plan_id: str
    wish: Wish
    metadata: Mapping[str, str]


#: Decides about a subscription that is locked.
Decide: TypeAlias = Callable[[Subscription, Situation], Move]


async def create_subscription(
    runtime: Runtime, request: Request, wanted: Wanted
) -> SubscriptionView:
    """Store a subscription, whose id is the request's. Repeated it finds it there.

    Raises:
        InvalidInputError: what it names does not exist, or does not go together.
        ConflictError: what it names is archived, removed, or bound to another test clock.
        NotToldYetError: nobody has told of its means of payment so far.
    """
    if wanted.wish.payment_method_id is not None:
        await await_method(runtime, wanted.wish.payment_method_id)
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        if await views.find_view(connection, request.id) is None:
            outgoing = await _create(runtime, connection, request, wanted)
    runtime.core.publisher.publish(outgoing)
    return await read_subscription(runtime, request.id)


async def _create(
    runtime: Runtime, connection: Connection, request: Request, wanted: Wanted
) -> list[Outgoing]:
    plan_id, wish, metadata = wanted
    plan = await find_open_plan(connection, plan_id)
    if wish.payment_method_id is not None:
        await require_method(connection, wish.payment_method_id, wish.customer_id, plan)
    clock_id, now = await _clock_of(runtime, connection, wish)
    new = begun(request.id, wish._replace(clock_id=clock_id), plan, now)
    real_now = runtime.core.clock()
    if not await insert_subscription(connection, new, dict(metadata), real_now):
        return []
    move = commands.created(new, plan, new.as_of or now)
    return await write(connection, [move], actor=request.actor, request_id=request.id)


async def _clock_of(
    runtime: Runtime, connection: Connection, wish: Wish
) -> tuple[str | None, datetime]:
    """Return the test clock of a new subscription, locked, and what time it is there."""
    real_now = runtime.core.clock()
    if wish.clock_id is not None and not is_id(wish.clock_id, _CLOCK_PREFIX):
        raise wrong("testClockId", "is no id of a test clock")
    of_customer = await clock_store.find_clock_of_customer(connection, wish.customer_id)
    clock_id = wish.clock_id or of_customer
    if clock_id is None:
        return None, real_now
    if of_customer not in {None, clock_id}:
        raise UnusableError("testClockId", f"is not the clock of the customer, {of_customer}")
    try:
        clock = await clock_store.lock_clock(connection, clock_id)
    except NotFoundError:
        raise wrong("testClockId", "is unknown") from None
    if clock.removed_at is not None:
        raise UnusableError("testClockId", "is removed")
    return clock_id, clock.moment(real_now)


async def read_subscription(runtime: Runtime, subscription_id: str) -> SubscriptionView:
    """Return a subscription, one that is over too.

    Raises:
        NotFoundError: none has this id.
    """
    found = None
    if is_id(subscription_id, ID_PREFIX):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            found = await views.find_view(connection, subscription_id)
    if found is None:
        raise NotFoundError(f"no subscription has the id {subscription_id[:40]!r}")
    return found


async def lock_situation(
    runtime: Runtime, connection: Connection, subscription_id: str
) -> tuple[Subscription, Situation]:
    """Lock a subscription for a command, and return by which plans and at what time it is decided.

    Raises:
        NotNowError: it is on a test clock, and has not come to what that shows.
    """
    locked = await lock_subscriptions(connection, [subscription_id])
    s = locked[subscription_id]
    plans = await find_plans(connection, plan_ids([s]))
    now = runtime.core.clock()
    if s.clock_id is not None:
        clock = await clock_store.find_clock(connection, s.clock_id)
        assert clock is not None, "a foreign key says so"
        now = moment_of_command(s, clock, now)
    next_plan = None if s.next_plan_id is None else plans[s.next_plan_id]
    return s, runtime.situation(plans[s.plan_id], next_plan, now)


async def carry_out(
    runtime: Runtime, request: Request, subscription_id: str, decide: Decide
) -> SubscriptionView:
    """Do one thing to a subscription, once however often the request is carried on.

    Raises:
        NotFoundError: none has this id.
        NotNowError: it is not in a state for that; the details have the reason.
    """
    await carry_out_charge(runtime, request, subscription_id, decide)
    return await read_subscription(runtime, subscription_id)


async def carry_out_charge(
    runtime: Runtime, request: Request, subscription_id: str, decide: Decide
) -> str | None:
    """Do as `carry_out`, and return the payment that was ordered by it, if one was."""
    await read_subscription(runtime, subscription_id)
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        # Locked first: a request that is still running is seen then.
        await lock_subscriptions(connection, [subscription_id])
        carried = await views.find_request(connection, subscription_id, request.id)
        if carried is None:
            s, situation = await lock_situation(runtime, connection, subscription_id)
            move = decide(s, situation)
            outgoing = await write(connection, [move], actor=request.actor, request_id=request.id)
            payment_id = None if move.job is None else move.job.payment_id
        else:
            payment_id = carried.payment_id
    runtime.core.publisher.publish(outgoing)
    return payment_id


async def pause(runtime: Runtime, request: Request, subscription_id: str) -> SubscriptionView:
    """Bill nothing of a subscription until it is resumed."""
    return await carry_out(
        runtime, request, subscription_id, lambda s, at: commands.pause(s, at.plan, at.now)
    )


async def resume(runtime: Runtime, request: Request, subscription_id: str) -> SubscriptionView:
    """Bill a paused subscription again."""
    return await carry_out(runtime, request, subscription_id, commands.resume)


async def cancel(
    runtime: Runtime, request: Request, subscription_id: str, *, at_period_end: bool
) -> SubscriptionView:
    """End a subscription now, or when its present period is over."""
    return await carry_out(
        runtime,
        request,
        subscription_id,
        lambda s, at: commands.cancel(s, at.plan, at.now, at_period_end=at_period_end),
    )


async def delete(runtime: Runtime, request: Request, subscription_id: str) -> SubscriptionView:
    """End a subscription now; one that is over stays as it is."""
    view = await read_subscription(runtime, subscription_id)
    if view.subscription.state in OVER:
        return view
    return await cancel(runtime, request, subscription_id, at_period_end=False)


async def trigger(
    runtime: Runtime, request: Request, subscription_id: str
) -> tuple[SubscriptionView, str]:
    """Charge the present period of a subscription now; return the payment that was ordered, too."""
    payment_id = await carry_out_charge(runtime, request, subscription_id, commands.trigger)
    assert payment_id is not None, "a trigger orders a charge or is refused"
    return await read_subscription(runtime, subscription_id), payment_id


async def catch_up(
    runtime: Runtime, request: Request, subscription_id: str, policy: CatchUpPolicy
) -> SubscriptionView:
    """Say which periods are billed of a subscription that asks."""
    return await carry_out(
        runtime, request, subscription_id, lambda s, at: commands.catch_up(s, at, policy)
    )
