"""Changes what may change of a subscription while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.scheduler.domain import commands
from services.scheduler.domain.model import Move, Plan, Situation, Subscription
from services.scheduler.handlers.chargeable import (
    await_method,
    find_open_plan,
    require_gateway,
    require_method,
    wrong,
)
from services.scheduler.handlers.subscriptions import (
    Decide,
    Request,
    lock_situation,
    read_subscription,
)
from services.scheduler.runtime import Runtime, write
from services.scheduler.store import subscription_views as views
from services.scheduler.store.payment_methods import find_known
from services.scheduler.store.subscription_views import SubscriptionView
from services.scheduler.store.subscriptions import lock_subscriptions
from shared.database import Connection
from shared.messaging.envelope import Outgoing


class Changes(NamedTuple):
    """What somebody wants to be otherwise; None stays as it is."""

    payment_method_id: str | None
    plan_id: str | None
    auto_pay: bool | None
    cancels_at_period_end: bool | None
    metadata: Mapping[str, str] | None


async def change(
    runtime: Runtime, request: Request, subscription_id: str, changes: Changes
) -> SubscriptionView:
    """Make all changes or none. What is so already is no change.

    Raises:
        NotFoundError: none has this id.
        InvalidInputError: what is named does not exist, or does not go together.
        ConflictError: the subscription is over, or something named is archived or removed.
        NotToldYetError: nobody has told of the means of payment so far.
    """
    await read_subscription(runtime, subscription_id)
    if changes.payment_method_id is not None:
        await await_method(runtime, changes.payment_method_id)
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        await lock_subscriptions(connection, [subscription_id])
        if await views.find_request(connection, subscription_id, request.id) is None:
            outgoing = await _change(runtime, connection, request, subscription_id, changes)
    runtime.core.publisher.publish(outgoing)
    return await read_subscription(runtime, subscription_id)


async def _change(
    runtime: Runtime,
    connection: Connection,
    request: Request,
    subscription_id: str,
    changes: Changes,
) -> list[Outgoing]:
    if changes.metadata is not None:
        await views.save_metadata(connection, subscription_id, changes.metadata)
    if changes._replace(metadata=None) == Changes(None, None, None, None, None):
        return []
    s, situation = await lock_situation(runtime, connection, subscription_id)
    plan = await _wanted_plan(connection, changes, s, situation)
    await _require_means(connection, changes, s, situation, plan)
    outgoing = []
    for decide in _steps(changes, s, plan):
        # Read anew each time: every move is decided from what the one before has left, and all of
        # them at one moment.
        s = (await lock_subscriptions(connection, [subscription_id]))[subscription_id]
        move = decide(s, situation)
        outgoing += await write(connection, [move], actor=request.actor, request_id=request.id)
    return outgoing


async def _wanted_plan(
    connection: Connection, changes: Changes, s: Subscription, situation: Situation
) -> Plan:
    """Return the plan that the subscription shall have in the end."""
    if changes.plan_id in {None, s.next_plan_id or s.plan_id}:
        return situation.next_plan or situation.plan
    if changes.plan_id == s.plan_id:
        return situation.plan
    return await find_open_plan(connection, changes.plan_id or "")


async def _require_means(
    connection: Connection, changes: Changes, s: Subscription, situation: Situation, plan: Plan
) -> None:
    """Check that its means of payment can pay what is billed next."""
    method_id = changes.payment_method_id or s.payment_method_id
    if method_id is None:
        return
    if method_id != s.payment_method_id:
        await require_method(connection, method_id, s.customer_id, plan)
        is_open = s.is_unpaid or s.charging is not None
        if is_open and plan.gateway != situation.plan.gateway:
            problem = "the present period is to be paid first: another gateway cannot charge it"
            raise commands.NotNowError("period_unpaid", problem)
    elif changes.plan_id is not None:
        method = await find_known(connection, method_id)
        if method is None:
            raise wrong("paymentMethodId", "is unknown")
        require_gateway(method, plan)


def _steps(changes: Changes, s: Subscription, plan: Plan) -> list[Decide]:
    steps: list[Decide] = []
    method_id, auto_pay = changes.payment_method_id, changes.auto_pay
    if method_id is not None and method_id != s.payment_method_id:
        steps.append(lambda s, at: commands.set_payment_method(s, at.plan, method_id, at.now))
    if plan.id != (s.next_plan_id or s.plan_id):
        steps.append(lambda s, at: commands.change_plan(s, at.plan, plan, at.now))
    if auto_pay is not None and auto_pay != s.auto_pay:
        steps.append(lambda s, at: commands.set_auto_pay(s, at.plan, at.now, auto_pay=auto_pay))
    wants_end = changes.cancels_at_period_end
    if wants_end is not None and wants_end != s.cancels_at_period_end:
        steps.append(_cancel_at_period_end if wants_end else _keep)
    return steps


def _cancel_at_period_end(s: Subscription, at: Situation) -> Move:
    return commands.cancel(s, at.plan, at.now, at_period_end=True)


def _keep(s: Subscription, at: Situation) -> Move:
    return commands.keep(s, at.plan, at.now)
