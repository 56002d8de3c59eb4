"""What a pause keeps from being begun is begun later, once: by a repetition, or by a worker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.payments.handlers.flow_sync import FlowSync
from shared.gateways.interface import Pending
from tests.integration.payments.world import Payments, look_at_due, running_runtime
from tests.support.http_api import Reply
from tests.support.polling import eventually


async def pause(payments: Payments, what: str = "pause") -> None:
    body = {"target": "all", "reason": "bank is down"}
    reply = await payments.api.call("POST", f"/api/operations/{what}", body)
    assert reply.status == 200
    await FlowSync(payments.runtime, "http").synchronize()


async def put_off(payments: Payments, key: str = "k", **changes: Any) -> Reply:
    """Ask for a payment during a pause, and end the pause."""
    await pause(payments)
    reply = await payments.post(key, **changes)
    assert (reply.status, reply.error["details"]["reason"]) == (502, "paused:all")
    await pause(payments, "resume")
    return reply


async def attempts(payments: Payments) -> list[tuple[int, str]]:
    rows = await payments.rows("SELECT number, state FROM attempt ORDER BY reference")
    return [(row["number"], row["state"]) for row in rows]


async def test_a_repeated_request_begins_it_without_asking_whether_it_was_begun(
    payments: Payments,
) -> None:
    # So a gateway answers that does not list at once what was begun.
    payments.gateway.next_look_ups = [Pending("not_visible_yet")]
    refused = await put_off(payments)

    reply = await payments.post("k")

    assert (reply.status, reply.data["state"]) == (201, "pending")
    assert reply.data["id"] == refused.error["details"]["paymentId"]
    assert payments.gateway.questions == []
    assert len(payments.gateway.orders) == 1
    assert await attempts(payments) == [(1, "open")]


async def test_it_waits_with_its_reason_and_a_worker_begins_it(payments: Payments) -> None:
    await pause(payments)
    refused = await payments.post("k")
    payment_id = refused.error["details"]["paymentId"]
    payments.clock.advance(300)
    waiting = await payments.read(payment_id)
    assert (waiting["state"], waiting["reason"]) == ("created", "paused:all")
    assert await payments.look() == 0
    assert await attempts(payments) == [(1, "put_off")]

    await pause(payments, "resume")
    assert await payments.look() == 1

    begun = await payments.read(payment_id)
    assert (begun["state"], len(payments.gateway.orders)) == ("pending", 1)
    assert payments.gateway.orders[0].started_at == payments.clock.now
    assert begun["checkoutUrl"] is not None
    assert (await payments.post("k")).data["id"] == payment_id
    assert len(payments.gateway.orders) == 1
    assert await payments.story(begun) == ["created", "put_off", "checkout_opened"]


async def test_processes_that_begin_it_at_once_send_it_once(
    payments: Payments, new_database: str, redis_url: str
) -> None:
    other = running_runtime(new_database, redis_url, payments.gateway, payments.clock)
    async with other as second:
        for number in range(1, 41):
            await put_off(
                payments, f"k{number}", method={"type": "prompt", "phone": "237670000000"}
            )

            await asyncio.gather(
                payments.post(f"k{number}", method={"type": "prompt", "phone": "237670000000"}),
                look_at_due(payments.runtime),
                look_at_due(second),
            )

            assert len(payments.gateway.orders) == number
    assert [number for number, _ in await attempts(payments)] == [1] * 40


async def test_a_repetition_while_a_worker_begins_it_begins_nothing(payments: Payments) -> None:
    async def heard_of_it() -> bool:
        return bool(payments.gateway.orders)

    await put_off(payments)
    payments.gateway.is_answering.clear()
    looking = asyncio.create_task(payments.look())
    await eventually(heard_of_it)
    # What a gateway says that has not worked on the order yet.
    payments.gateway.next_look_ups = [Pending("not_attempted")]

    async with asyncio.timeout(15):  # The gateway answers nobody, so nobody may ask it.
        during = await payments.post("k")
    payments.gateway.is_answering.set()
    await looking
    after = await payments.post("k")

    assert (during.status, during.error["code"]) == (502, "gateway_unavailable")
    assert (after.status, after.data["state"]) == (201, "pending")
    assert len(payments.gateway.orders) == 1


async def test_a_second_pause_puts_it_off_again(payments: Payments) -> None:
    await put_off(payments)
    await pause(payments)

    assert (await payments.post("k")).status == 502

    assert await attempts(payments) == [(1, "put_off")]
    assert payments.gateway.orders == []
    await pause(payments, "resume")
    assert (await payments.post("k")).status == 201


async def test_what_is_held_meanwhile_is_not_begun_until_it_is_released(
    payments: Payments,
) -> None:
    refused = await put_off(payments)
    path = f"/api/payments/{refused.error['details']['paymentId']}"
    await payments.api.call("POST", f"{path}/hold", {"reason": "who is that?"})

    assert (await payments.post("k")).data["state"] == "on_hold"
    assert await payments.look() == 0
    assert payments.gateway.orders == []

    await payments.api.call("POST", f"{path}/release", {"reason": "a good customer"})
    assert await payments.look() == 1
    assert len(payments.gateway.orders) == 1


@pytest.mark.parametrize("key", ["k", "another"])
async def test_what_nobody_begins_in_time_has_failed(payments: Payments, key: str) -> None:
    await pause(payments)
    refused = await payments.post("k")
    payments.clock.advance(25 * 3_600)
    await pause(payments, "resume")

    assert await payments.look() == 1

    payment = await payments.read(refused.error["details"]["paymentId"])
    assert (payment["state"], payment["reason"]) == ("failed", "never_attempted")
    assert payments.gateway.orders == []
    assert (await payments.post(key)).status == 201
    assert len(payments.gateway.orders) == (0 if key == "k" else 1)
