"""Payments that should have ended long ago are counted, and no others."""

from __future__ import annotations

from datetime import timedelta

from services.payments.store.unresolved import GRACE, count_unresolved
from tests.integration.payments.world import Payments


async def count(payments: Payments) -> int:
    async with payments.core.database.connection() as connection:
        return await count_unresolved(
            connection, payments.clock(), payments.runtime.settings.payment_expires_after
        )


async def test_a_payment_that_has_not_ended_long_after_its_time_is_counted(
    payments: Payments,
) -> None:
    await payments.create()
    payments.clock.advance(
        (payments.runtime.settings.payment_expires_after + GRACE).total_seconds() - 1
    )
    assert await count(payments) == 0

    payments.clock.advance(2)
    assert await count(payments) == 1


async def test_one_that_ended_or_was_given_more_time_is_not(payments: Payments) -> None:
    paid = await payments.create()
    await payments.paid(paid)
    later = await payments.create()
    await payments.sql(
        "UPDATE payment SET expires_at = expires_at + interval '1 day' WHERE id = $1", later["id"]
    )
    wait = payments.runtime.settings.payment_expires_after + GRACE + timedelta(seconds=1)
    payments.clock.advance(wait.total_seconds())

    assert await count(payments) == 0

    payments.clock.advance(timedelta(days=1).total_seconds())
    assert await count(payments) == 1
