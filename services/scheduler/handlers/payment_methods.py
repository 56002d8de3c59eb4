"""Remembers which means of payment there are."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.domain.commands import lose_payment_method
from services.scheduler.runtime import Runtime, write
from services.scheduler.store import payment_methods as store
from services.scheduler.store.subscriptions import find_plans, lock_charged_by, plan_ids
from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored
from shared.messaging.receiver import Delivery


async def remember_methods(
    runtime: Runtime, deliveries: Sequence[Delivery[PaymentMethodStored]]
) -> None:
    """Let subscriptions be made that charge them; hearing it again changes nothing."""
    async with runtime.core.database.transaction() as connection:
        await store.store_methods(connection, [each.message for each in deliveries])


async def forget_methods(
    runtime: Runtime, deliveries: Sequence[Delivery[PaymentMethodRemoved]]
) -> None:
    """Let nothing be charged by them any more; hearing it again changes nothing.

    Subscriptions that were are without one: what is on its way is cancelled, and their next period
    is unpaid until they have another.
    """
    messages = [each.message for each in deliveries]
    async with runtime.core.database.transaction() as connection:
        await store.remove_methods(connection, messages)
        charged = await lock_charged_by(
            connection,
            {each.customer_id for each in messages},
            {each.payment_method_id for each in messages},
        )
        plans = await find_plans(connection, plan_ids(charged))
        moves = [
            lose_payment_method(each, plans[each.plan_id], runtime.moment_of(each))
            for each in charged
        ]
        outgoing = await write(connection, moves)
    runtime.core.publisher.publish(outgoing)
