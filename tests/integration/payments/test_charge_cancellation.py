"""A cancelled charge is tried no more, and money that moved all the same is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.payments.handlers.flow_sync import FlowSync
from shared.gateways.interface import Declined, FailureKind, Paid, Prompt, Unknown
from shared.messaging import receiver as receiver_module
from shared.money import Money
from tests.integration.payments.charging import (
    Charging,
    cancellation_of,
    open_receiver,
    retry_of,
)
from tests.integration.payments.retrying import PROMPTED, declined, paid
from tests.integration.payments.world import Payments, running_runtime
from tests.support.polling import eventually

PHONE = Prompt("8801700000000")
CLOSED = Declined("closed_by_us", FailureKind.CANCELLED, is_final=True)


@pytest.fixture
async def charging(payments: Payments) -> AsyncIterator[Charging]:
    async with open_receiver(payments.runtime) as receiver:
        charging = Charging(payments, receiver)
        await charging.store()
        yield charging


def closing(charging: Charging) -> None:
    """Let the gateway close what is open."""
    gateway = charging.payments.gateway
    gateway.capabilities = replace(gateway.capabilities, cancels=True)


async def test_what_waits_for_its_next_try_is_over_at_once(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(declined(FailureKind.INSUFFICIENT_FUNDS))
    order = await charging.charge()

    await charging.order(cancellation_of(order))
    await charging.order(cancellation_of(order))

    fact = await charging.last()
    assert (fact["kind"], fact["code"]) == ("cancelled", "cancelled_at_once")
    assert (fact["retryAfterSeconds"], fact["attemptsMade"]) == (None, 1)
    assert await charging.words() == ["accepted", "failed", "failed"]
    assert await charging.state(order) == ("cancelled", "cancelled:cancelled_at_once")
    charging.payments.clock.advance(30 * 86_400)
    assert await charging.payments.retry() == 0


async def test_what_waits_for_an_order_on_a_test_clock_is_over_too(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(declined(FailureKind.INSUFFICIENT_FUNDS))
    order = await charging.charge(is_on_test_clock=True)

    await charging.order(cancellation_of(order), retry_of(order))
    await charging.order(retry_of(order))

    assert len(charging.payments.gateway.orders) == 1
    assert (await charging.state(order))[0] == "cancelled"


async def test_an_order_that_comes_after_its_cancellation_charges_nobody(
    charging: Charging,
) -> None:
    order = charging.new()

    await charging.order(cancellation_of(order))
    await charging.order(cancellation_of(order))
    await charging.order(order)

    assert charging.payments.gateway.orders == []
    ((word, fact),) = await charging.told()
    assert (word, fact["kind"], fact["code"]) == ("failed", "cancelled", "cancelled_at_once")
    assert fact["attemptsMade"] == 0
    assert await charging.payments.sql("SELECT count(*) FROM payment") == 0


async def test_an_order_and_its_cancellation_at_the_same_time_end_the_same_for_both(
    charging: Charging, new_database: str, redis_url: str
) -> None:
    payments = charging.payments
    orders = [charging.new() for _ in range(20)]
    payments.gateway.next_starts += [declined(FailureKind.INSUFFICIENT_FUNDS) for _ in orders]
    async with (
        running_runtime(new_database, redis_url, payments.gateway, payments.clock) as runtime,
        open_receiver(runtime) as receiver,
    ):
        other = Charging(payments, receiver)
        ids = charging.deliver(*orders)
        later = other.deliver(*(cancellation_of(each) for each in orders), ids=range(101, 121))
        await asyncio.gather(charging.confirmed(ids), other.confirmed(later))

    payments.clock.advance(30 * 86_400)
    assert await payments.retry() == 0, "whoever came first, no other try is made"
    for order in orders:
        words = await charging.words(order.payment_id)
        assert words in (["failed"], ["accepted", "failed"], ["accepted", "failed", "failed"])
        last = (await charging.told(order.payment_id))[-1][1]
        assert last["retryAfterSeconds"] is None


async def test_what_is_put_off_is_never_begun(charging: Charging) -> None:
    payments = charging.payments
    body = {"target": "all", "reason": "bank is down"}
    assert (await payments.api.call("POST", "/api/operations/pause", body)).status == 200
    await FlowSync(payments.runtime, "worker").synchronize()
    order = await charging.charge()

    await charging.order(cancellation_of(order))
    assert (await payments.api.call("POST", "/api/operations/resume", body)).status == 200
    await FlowSync(payments.runtime, "worker").synchronize()
    payments.clock.advance(3_600)
    await payments.look()

    assert payments.gateway.orders == []
    assert await charging.words() == ["accepted", "failed"]
    assert (await charging.last())["attemptsMade"] == 0


async def test_a_charge_in_flight_is_told_to_be_paid_when_it_is(charging: Charging) -> None:
    gateway = charging.payments.gateway
    gateway.is_answering.clear()
    gateway.next_starts.append(paid())
    order = charging.new()
    ids = charging.deliver(order)

    async def is_asked() -> bool:
        return bool(gateway.orders)

    await eventually(is_asked)
    later = charging.deliver(cancellation_of(order))

    async def is_cancelled() -> bool:
        return "charge_cancelled" in await charging.payments.story({"id": order.payment_id})

    await eventually(is_cancelled)
    gateway.is_answering.set()
    await charging.confirmed(ids + later)

    assert await charging.words() == ["accepted", "succeeded"]


async def test_a_charge_in_flight_that_fails_is_tried_no_more(charging: Charging) -> None:
    gateway = charging.payments.gateway
    gateway.is_answering.clear()
    gateway.next_starts.append(declined(FailureKind.INSUFFICIENT_FUNDS))
    order = charging.new()
    ids = charging.deliver(order)

    async def is_asked() -> bool:
        return bool(gateway.orders)

    await eventually(is_asked)
    later = charging.deliver(cancellation_of(order))

    async def is_cancelled() -> bool:
        return "charge_cancelled" in await charging.payments.story({"id": order.payment_id})

    await eventually(is_cancelled)
    gateway.is_answering.set()
    await charging.confirmed(ids + later)

    fact = await charging.last()
    assert (fact["kind"], fact["retryAfterSeconds"]) == ("insufficient_funds", None)
    assert (await charging.state(order))[0] == "failed"


async def test_an_open_prompt_is_closed_where_the_gateway_can_do_that(
    charging: Charging,
) -> None:
    closing(charging)
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    charging.payments.gateway.next_cancels.append(CLOSED)
    order = await charging.charge()

    await charging.order(cancellation_of(order))

    assert [each.handle for each in charging.payments.gateway.cancelled] == ["txn_1"]
    fact = await charging.last()
    assert (fact["kind"], fact["retryAfterSeconds"]) == ("cancelled", None)
    assert (await charging.state(order))[0] == "cancelled"


async def test_a_prompt_that_was_confirmed_at_the_last_moment_is_told_to_be_paid(
    charging: Charging,
) -> None:
    closing(charging)
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    charging.payments.gateway.next_cancels.append(
        Paid("any", Money(115_000, "BDT"), "txn_1", "charge_1")
    )
    order = await charging.charge()

    await charging.order(cancellation_of(order))

    assert await charging.words() == ["accepted", "sent", "succeeded"]


async def test_a_gateway_that_does_not_close_it_is_asked_again(
    charging: Charging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.05,) * 5)
    closing(charging)
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    charging.payments.gateway.next_cancels += [Unknown("timeout"), CLOSED]
    order = await charging.charge()

    await charging.order(cancellation_of(order))

    assert len(charging.payments.gateway.cancelled) == 2
    assert (await charging.state(order))[0] == "cancelled"


async def test_where_nothing_can_be_closed_the_end_is_told_when_the_gateway_tells_it(
    charging: Charging,
) -> None:
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    order = await charging.charge()
    await charging.order(cancellation_of(order))
    assert await charging.words() == ["accepted", "sent"]

    charging.payments.gateway.next_look_ups.append(declined(FailureKind.INSUFFICIENT_FUNDS))
    charging.payments.clock.advance(5)
    await charging.payments.look()

    fact = await charging.last()
    assert (fact["kind"], fact["retryAfterSeconds"]) == ("insufficient_funds", None)
    assert charging.payments.gateway.cancelled == []


async def test_what_is_paid_or_over_stays_as_it_is(charging: Charging) -> None:
    charging.payments.gateway.next_starts += [paid(), declined(FailureKind.CARD_DECLINED)]
    done, over = charging.new(), charging.new()
    await charging.order(done)
    await charging.order(over)
    told = await charging.told()

    await charging.order(cancellation_of(done), cancellation_of(over))

    assert await charging.told() == told
    assert (await charging.state(done))[0] == "succeeded"
    assert await charging.payments.dead_letters() == []
