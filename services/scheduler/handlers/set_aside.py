"""Lets scans have a subscription again that was set aside."""

from __future__ import annotations

from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import Move
from services.scheduler.handlers.subscriptions import Request, read_subscription
from services.scheduler.runtime import Runtime, write
from services.scheduler.store import due as due_store
from services.scheduler.store.subscription_views import SubscriptionView, find_request
from services.scheduler.store.subscriptions import find_plans, lock_subscriptions


async def clear_problem(
    runtime: Runtime, request: Request, subscription_id: str
) -> SubscriptionView:
    """Have what is due for a subscription tried again, once however often that is carried on.

    If it fails again, it is set aside again.

    Raises:
        NotFoundError: none has this id.
        NotNowError: it is not set aside.
    """
    await read_subscription(runtime, subscription_id)
    async with runtime.core.database.transaction() as connection:
        # Locked first: a request that is still running is seen then.
        s = (await lock_subscriptions(connection, [subscription_id]))[subscription_id]
        if await find_request(connection, s.id, request.id) is None:
            if not await due_store.clear_problem(connection, s.id):
                raise NotNowError("not_set_aside", "nothing is wrong with the subscription")
            plans = await find_plans(connection, [s.plan_id])
            cleared = Move(s, s, plans[s.plan_id], runtime.moment_of(s), "problem_cleared")
            await write(connection, [cleared], actor=request.actor, request_id=request.id)
    return await read_subscription(runtime, subscription_id)
