"""Remembers which means of payment there are."""

from __future__ import annotations

from collections.abc import Sequence

from services.scheduler.runtime import Runtime
from services.scheduler.store import payment_methods as store
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
    """Let no further subscription be made that charges them; hearing it again changes nothing.

    Subscriptions that do keep their name: their next charge fails, and the customer is told why.
    """
    async with runtime.core.database.transaction() as connection:
        await store.remove_methods(connection, [each.message for each in deliveries])
