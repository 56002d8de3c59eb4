"""What our own wallet may pay: at once and on a day, held before anything is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from shared.gateways.interface import Paid, Unknown
from shared.gateways.registration import SpendingLimits
from shared.money import Money
from tests.integration.payments.world import Payments, running_payments
from tests.support.http_api import Reply

WALLET = {"type": "wallet", "recipient": "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"}
LIMITS = {"sslcommerz": SpendingLimits(per_payment=400, per_day=1_000)}
DAY_SECONDS = 86_400


@pytest.fixture
async def payments(new_database: str, redis_url: str) -> AsyncIterator[Payments]:
    async with running_payments(new_database, redis_url, spending_limits=LIMITS) as payments:
        yield payments


async def pay(payments: Payments, amount: int, key: str | None = None) -> Reply:
    return await payments.post(key, method=WALLET, amount=amount)


def refuses(reply: Reply) -> bool:
    if reply.status == 201:
        return False
    assert (reply.status, reply.error["code"]) == (422, "spending_limit")
    assert list(reply.error["details"]) == ["amount"]
    return True


async def spent(payments: Payments) -> list[tuple[str, int]]:
    rows = await payments.rows("SELECT day::text, spent FROM wallet_spending ORDER BY day")
    return [tuple(row) for row in rows]


async def test_a_payment_over_its_limit_is_not_begun_and_not_recorded(payments: Payments) -> None:
    reply = await pay(payments, 401)

    assert refuses(reply)
    assert "4.00 BDT" in reply.error["message"]
    assert payments.gateway.orders == []
    assert await payments.sql("SELECT count(*) FROM payment") == 0
    assert await spent(payments) == []
    assert not refuses(await pay(payments, 400))


async def test_a_day_has_a_limit_and_the_next_day_its_own(payments: Payments) -> None:
    assert [refuses(await pay(payments, 400)) for _ in range(3)] == [False, False, True]
    assert not refuses(await pay(payments, 200)), "what is left may be spent"
    assert refuses(await pay(payments, 1))
    assert await payments.sql("SELECT count(*) FROM payment") == 3
    assert len(payments.gateway.orders) == 3

    payments.clock.advance(DAY_SECONDS)
    assert not refuses(await pay(payments, 400))
    assert await spent(payments) == [("2026-01-05", 1_000), ("2026-01-06", 400)]


async def test_payments_at_once_do_not_slip_through_together(payments: Payments) -> None:
    replies = await asyncio.gather(*(pay(payments, 100) for _ in range(16)))

    assert sum(not refuses(reply) for reply in replies) == 10
    assert len(payments.gateway.orders) == 10
    assert await spent(payments) == [("2026-01-05", 1_000)]


async def test_other_methods_spend_nothing_of_ours(payments: Payments) -> None:
    for _ in range(3):
        assert (await payments.post(amount=5_000)).status == 201
    assert await spent(payments) == []


async def test_a_repeated_request_is_counted_once(payments: Payments) -> None:
    payments.gateway.next_starts.append(Paid("any", Money(400, "BDT"), "0x1", "0x2"))
    first, second = await pay(payments, 400, "key"), await pay(payments, 400, "key")

    assert first.data == second.data
    assert await spent(payments) == [("2026-01-05", 400)]


async def test_a_second_attempt_is_counted_too_and_refused_over_the_limit(
    payments: Payments,
) -> None:
    """The first one is not taken off: the limit errs on the safe side."""
    for amount in (400, 200):
        await pay(payments, amount)
    payments.gateway.next_starts += [Unknown("timeout")] * 2
    for key in ("one", "two"):
        assert (await pay(payments, 150, key)).status == 502
    assert await spent(payments) == [("2026-01-05", 900)]

    assert refuses(await pay(payments, 150, "one"))

    assert len(payments.gateway.orders) == 4
    states = await payments.rows("SELECT DISTINCT state FROM attempt WHERE number = 1")
    assert {row["state"] for row in states} <= {"open", "started"}, "none was given up"


async def test_a_limit_that_was_lowered_holds_at_once(
    payments: Payments, new_database: str, redis_url: str
) -> None:
    await pay(payments, 400)
    lowered = {"sslcommerz": SpendingLimits(per_payment=400, per_day=300)}
    async with running_payments(new_database, redis_url, spending_limits=lowered) as other:
        assert refuses(await pay(other, 1))


async def test_a_wallet_without_limits_pays_nothing(new_database: str, redis_url: str) -> None:
    async with running_payments(new_database, redis_url) as payments:
        assert refuses(await pay(payments, 1))


async def test_the_database_itself_refuses_to_go_over_the_limit(payments: Payments) -> None:
    await pay(payments, 400)

    with pytest.raises(asyncpg.CheckViolationError, match="daily_limit"):
        await payments.sql("UPDATE wallet_spending SET spent = 1001")
