"""Charges that fail are tried again, and on a test clock only when it is ordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from shared.contracts.scheduler import ChargeSubscription
from shared.gateways.interface import FailureKind, Unknown, Wallet
from shared.gateways.registration import SpendingLimits
from tests.integration.payments.charging import Charging, open_receiver, retry_of
from tests.integration.payments.retrying import call, declined, paid
from tests.integration.payments.world import Payments, running_payments, running_runtime

DAY = 86_400
POOR = declined(FailureKind.INSUFFICIENT_FUNDS)
WALLET = Wallet("0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c")


@pytest.fixture
async def payments(new_database: str, redis_url: str) -> AsyncIterator[Payments]:
    limits = {"sslcommerz": SpendingLimits(per_payment=10**9, per_day=10**9)}
    async with running_payments(new_database, redis_url, spending_limits=limits) as payments:
        yield payments


@pytest.fixture
async def charging(payments: Payments) -> AsyncIterator[Charging]:
    async with open_receiver(payments.runtime) as receiver:
        charging = Charging(payments, receiver)
        await charging.store()
        yield charging


async def poor(charging: Charging) -> ChargeSubscription:
    """Order a charge on a test clock that fails, to be tried again a day later."""
    charging.payments.gateway.next_starts.append(POOR)
    return await charging.charge(is_on_test_clock=True)


async def retry_state(charging: Charging, order: ChargeSubscription) -> str:
    reply = await call(charging.payments, "GET", order.payment_id)
    return str(reply.data["state"])


async def test_a_wallet_without_funds_is_tried_again_by_itself_and_recovers(
    charging: Charging,
) -> None:
    payments = charging.payments
    await charging.store(WALLET)
    payments.gateway.next_starts += [POOR, POOR]
    order = await charging.charge()
    fact = await charging.last()
    assert (fact["kind"], fact["retryAfterSeconds"]) == ("insufficient_funds", DAY)
    assert (fact["waitsForOrder"], fact["attemptsMade"]) == (False, 1)
    assert fact["customerAdvice"] == "add_funds_or_use_another_payment_method"

    payments.clock.advance(DAY)
    await payments.retry()
    again = await charging.last()
    payments.gateway.next_starts.append(paid())
    payments.clock.advance(DAY)
    await payments.retry()

    assert (again["attemptsMade"], again["retryAfterSeconds"]) == (2, DAY)
    assert await charging.words() == ["accepted", "failed", "failed", "succeeded"]
    assert (await charging.last())["attemptsMade"] == 3
    assert (await charging.state(order))[0] == "succeeded"


async def test_when_the_table_is_at_its_end_the_charge_is_over(charging: Charging) -> None:
    payments = charging.payments
    payments.gateway.next_starts += [POOR] * 3
    order = await charging.charge()
    for _ in range(2):
        payments.clock.advance(DAY)
        assert await payments.retry() == 1

    fact = await charging.last()
    assert (fact["kind"], fact["retryAfterSeconds"]) == ("insufficient_funds", None)
    assert (fact["attemptsMade"], fact["mayStillBePaid"]) == (3, False)
    assert await charging.words() == ["accepted", "failed", "failed", "failed"]
    assert (await charging.state(order))[0] == "failed"


async def test_on_a_test_clock_a_long_wait_ends_with_an_order_and_not_by_time(
    charging: Charging,
) -> None:
    payments = charging.payments
    order = await poor(charging)
    fact = await charging.last()
    assert (fact["retryAfterSeconds"], fact["waitsForOrder"]) == (DAY, True)
    reply = await call(payments, "GET", order.payment_id)
    assert (reply.data["state"], reply.data["waitsFor"]) == ("waiting", "order_of_the_scheduler")

    payments.clock.advance(30 * DAY)
    assert await payments.retry() == 0
    payments.gateway.next_starts.append(paid())
    await charging.order(retry_of(order))

    assert await charging.words() == ["accepted", "failed", "succeeded"]
    assert (await charging.last())["attemptsMade"] == 2
    assert "retry_ordered" in await payments.story({"id": order.payment_id})


async def test_on_a_test_clock_a_short_wait_passes_by_itself(charging: Charging) -> None:
    payments = charging.payments
    payments.gateway.next_starts += [declined(FailureKind.NETWORK_ERROR), paid()]
    await charging.charge(is_on_test_clock=True)
    assert (await charging.last())["waitsForOrder"] is False

    assert await payments.retry() == 1

    assert await charging.words() == ["accepted", "failed", "succeeded"]


async def test_on_a_test_clock_a_lost_answer_is_asked_about_when_it_is_ordered(
    charging: Charging,
) -> None:
    payments = charging.payments
    payments.gateway.next_starts.append(Unknown("http_503"))
    order = await charging.charge(is_on_test_clock=True)
    fact = await charging.last()
    assert (fact["waitsForOrder"], fact["retryAfterSeconds"]) == (True, 60)
    reference = (await payments.read(order.payment_id))["gatewayReference"]
    payments.gateway.charge(reference)

    await charging.order(retry_of(order))

    assert len(payments.gateway.orders) == 1, "it was asked about, and not sent again"
    assert await charging.words() == ["accepted", "failed", "succeeded"]


async def test_an_order_to_retry_that_comes_again_does_not_end_the_next_wait(
    charging: Charging,
) -> None:
    order = await poor(charging)
    charging.payments.gateway.next_starts.append(POOR)
    await charging.order(retry_of(order), ids=[1_000])
    assert len(charging.payments.gateway.orders) == 2

    await charging.order(retry_of(order), ids=[1_000])

    assert len(charging.payments.gateway.orders) == 2
    assert await retry_state(charging, order) == "waiting"
    charging.payments.gateway.next_starts.append(paid())
    await charging.order(retry_of(order), ids=[1_001])
    assert await charging.words() == ["accepted", "failed", "failed", "succeeded"]


async def test_two_workers_with_the_same_order_to_retry_make_one(
    charging: Charging, new_database: str, redis_url: str
) -> None:
    payments = charging.payments
    orders = [await poor(charging) for _ in range(10)]
    payments.gateway.next_starts += [paid(number) for number in range(20)]
    async with (
        running_runtime(new_database, redis_url, payments.gateway, payments.clock) as runtime,
        open_receiver(runtime) as receiver,
    ):
        other = Charging(payments, receiver)
        ids = list(range(1_000, 1_010))
        retries = [retry_of(order) for order in orders]
        charging.deliver(*retries, ids=ids)
        other.deliver(*reversed(retries), ids=ids[::-1])
        await asyncio.gather(charging.confirmed(ids), other.confirmed(ids))

    assert len(payments.gateway.orders) == 20
    assert (await charging.words()).count("succeeded") == 10


async def test_an_order_to_retry_leaves_alone_what_does_not_wait_for_it(
    charging: Charging,
) -> None:
    payments = charging.payments
    payments.gateway.next_starts += [POOR, paid()]
    scheduled, done = charging.new(), charging.new()
    await charging.order(scheduled, done)

    await charging.order(retry_of(scheduled), retry_of(done), retry_of(charging.new()))

    assert len(payments.gateway.orders) == 2
    assert await retry_state(charging, scheduled) == "scheduled"
    assert await payments.dead_letters() == []


async def test_what_waits_for_an_order_cannot_be_claimed(charging: Charging) -> None:
    order = await poor(charging)

    with pytest.raises(asyncpg.CheckViolationError, match="must not go from waiting to running"):
        await charging.payments.sql(
            "UPDATE retry SET state = 'running' WHERE payment_id = $1", order.payment_id
        )


async def test_a_person_may_end_the_wait_as_well_and_the_scheduler_hears_of_it(
    charging: Charging,
) -> None:
    payments = charging.payments
    order = await poor(charging)

    reply = await call(payments, "POST", order.payment_id, "/now")

    assert (reply.status, reply.data["state"]) == (200, "scheduled")
    fact = await charging.last()
    assert (fact["waitsForOrder"], fact["retryAfterSeconds"]) == (False, 0)
    payments.gateway.next_starts.append(paid())
    assert await payments.retry() == 1
    assert (await charging.words())[-1] == "succeeded"


async def test_a_charge_that_is_over_is_not_tried_again_beside_its_subscription(
    charging: Charging,
) -> None:
    charging.payments.gateway.next_starts.append(declined(FailureKind.CONFIGURATION))
    order = await charging.charge()

    reply = await call(charging.payments, "POST", order.payment_id, body={})

    assert (reply.status, reply.error["code"]) == (409, "retry_conflict")
    assert "sub_1" in reply.error["message"]
    assert await charging.words() == ["accepted", "failed"]


async def test_a_retry_that_a_person_cancels_ends_the_charge(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(POOR)
    order = await charging.charge()

    reply = await call(charging.payments, "DELETE", order.payment_id)

    assert reply.status == 200
    fact = await charging.last()
    assert (fact["retryAfterSeconds"], fact["kind"]) == (None, "insufficient_funds")
    assert await charging.words() == ["accepted", "failed", "failed"]
