"""Operators hold single payments, release them, and have their gateways asked at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.payments.handlers.flow_sync import FlowSync
from shared.gateways.interface import FailureKind, RefundPending, Unknown
from shared.identifiers import new_id
from shared.money import Money
from tests.integration.payments.retrying import (
    call,
    declined,
    paid,
    processed,
    retry_of,
    wait_until,
)
from tests.integration.payments.world import Payments
from tests.support.clocks import START
from tests.support.http_api import Reply
from tests.support.messages import notice_received


async def do(
    payments: Payments, payment: dict[str, Any], what: str, key: str | None = None
) -> Reply:
    path = f"/api/payments/{payment['id']}/{what}"
    body = {"reason": "the customer called"}
    reply = await payments.api.call("POST", path, body, idempotency_key=key)
    payments.clock.advance(0.001)  # Actions are listed in the order of their milliseconds.
    return reply


async def recorded(payments: Payments, payment: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    path = f"/api/operations/actions?target={payment['id']}"
    data = (await payments.api.call("GET", path)).data
    return [(each["action"], each["before"], each["after"]) for each in data["actions"][::-1]]


async def test_a_held_payment_is_not_looked_at_and_not_enrolled_though_it_is_paid(
    payments: Payments,
) -> None:
    payment = await payments.create()

    held = (await do(payments, payment, "hold")).data
    await payments.paid(payment)
    payments.clock.advance(3_600)

    assert (held["state"], held["reason"], held["nextCheckAt"]) == (
        "on_hold",
        "held_by_operator",
        None,
    )
    assert await payments.look() == 0
    assert (await payments.read(payment["id"]))["state"] == "on_hold"
    assert await payments.announcements() == []
    assert await payments.story(payment) == ["created", "checkout_opened", "held_by_operator"]


async def test_a_released_payment_goes_on_where_its_gateway_says_it_stands(
    payments: Payments,
) -> None:
    payment = await payments.create()
    await do(payments, payment, "hold")
    await payments.paid(payment)

    released = (await do(payments, payment, "release")).data
    assert (released["state"], released["reason"]) == ("unknown", "released_by_operator")
    assert await payments.look() == 1

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(await payments.announcements()) == 1
    assert await recorded(payments, payment) == [
        (
            "hold",
            {"state": "pending", "reason": "customer_must_pay"},
            {"state": "on_hold", "reason": "held_by_operator"},
        ),
        (
            "release",
            {"state": "on_hold", "reason": "held_by_operator"},
            {"state": "unknown", "reason": "released_by_operator"},
        ),
    ]


async def test_a_released_payment_that_nobody_paid_waits_as_before(payments: Payments) -> None:
    payment = await payments.create()
    await do(payments, payment, "hold")
    await do(payments, payment, "release")

    assert await payments.look() == 1

    assert (await payments.read(payment["id"]))["state"] == "pending"


@pytest.mark.parametrize(
    ("charge", "reason"),
    [
        pytest.param({"is_risky": True}, "gateway_says_risky", id="risk"),
        pytest.param({"amount": Money(114_000, "BDT")}, "amount_differs", id="another amount"),
    ],
)
async def test_money_that_was_held_in_doubt_succeeds_when_it_is_released(
    payments: Payments, charge: dict[str, Any], reason: str
) -> None:
    payment = await payments.create()
    await payments.paid(payment, **charge)
    doubted = await payments.read(payment["id"])
    assert (doubted["state"], doubted["reason"]) == ("on_hold", reason)

    released = (await do(payments, payment, "release")).data

    assert (released["state"], released["reason"]) == ("succeeded", "released_by_operator")
    (announced,) = await payments.announcements()
    assert announced["paymentId"] == payment["id"]
    again = await do(payments, payment, "release")
    assert (again.status, again.error["code"]) == (409, "conflict")
    assert len(await payments.announcements()) == 1


async def test_a_release_races_the_gateway_that_takes_its_doubt_back(payments: Payments) -> None:
    for _ in range(5):
        payment = await payments.create()
        await payments.paid(payment, is_risky=True)
        payments.gateway.approve(payment["gatewayReference"])

        await asyncio.gather(
            do(payments, payment, "release"), payments.notify_of(payment, validation_id="")
        )

        assert (await payments.read(payment["id"]))["state"] == "succeeded"
    announced = [each["paymentId"] for each in await payments.announcements()]
    assert len(announced) == len(set(announced)) == 5


async def test_of_many_releases_at_once_one_announces(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment, is_risky=True)

    replies = await asyncio.gather(*(do(payments, payment, "release") for _ in range(10)))

    assert sorted(reply.status for reply in replies) == [200] + [409] * 9
    assert len(await payments.announcements()) == 1


async def test_a_hold_races_the_notice_and_no_money_is_lost(payments: Payments) -> None:
    for _ in range(5):
        payment = await payments.create()
        await asyncio.gather(do(payments, payment, "hold"), payments.paid(payment))
        if (await payments.read(payment["id"]))["state"] == "on_hold":
            await do(payments, payment, "release")
            await payments.look()
        assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(await payments.announcements()) == 5


@pytest.mark.parametrize("what", ["hold", "release"])
async def test_what_is_at_rest_cannot_be_held_and_what_is_not_held_cannot_be_released(
    payments: Payments, what: str
) -> None:
    payment = await payments.create()
    await payments.paid(payment)

    reply = await do(payments, payment, what)

    assert (reply.status, reply.error["details"]) == (409, {"state": "succeeded"})
    assert await recorded(payments, payment) == []


async def test_a_repeated_hold_that_was_cut_off_holds_no_second_time(payments: Payments) -> None:
    payment = await payments.create()
    await do(payments, payment, "hold", "k")
    await do(payments, payment, "release")
    await payments.rows(
        "UPDATE idempotency_key SET status = NULL, body = NULL,"
        " leased_until = clock_timestamp() WHERE key = 'k'"
    )

    assert (await do(payments, payment, "hold", "k")).data["state"] == "unknown"

    assert [action for action, _, _ in await recorded(payments, payment)] == ["hold", "release"]


async def test_money_on_its_way_back_is_not_released(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment, is_risky=True)
    payments.gateway.next_refunds = [RefundPending("on_its_way", "refund_1")]
    assert (await payments.refund(payment))["state"] == "pending"

    reply = await do(payments, payment, "release")

    assert (reply.status, reply.error["message"]) == (
        409,
        "its money is on its way back to the customer",
    )
    assert (await payments.read(payment["id"]))["state"] == "on_hold"
    assert await payments.announcements() == []


async def test_a_look_up_asks_at_once_and_says_what_was_said(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.charge(payment["gatewayReference"])

    looked_up = (await do(payments, payment, "look-up")).data

    assert (looked_up["outcome"], looked_up["reason"]) == ("paid", None)
    assert looked_up["payment"]["state"] == "succeeded"
    assert len(await payments.announcements()) == 1
    assert await recorded(payments, payment) == [
        (
            "look_up",
            {"state": "pending", "reason": "customer_must_pay"},
            {"state": "succeeded", "reason": None, "outcome": "paid"},
        )
    ]


async def test_a_look_up_finds_money_that_came_after_the_end(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.decline(payment["gatewayReference"], is_final=True)
    payments.clock.advance(60)
    await payments.look()
    assert (await payments.read(payment["id"]))["state"] == "failed"
    payments.gateway.charge(payment["gatewayReference"])

    looked_up = (await do(payments, payment, "look-up")).data

    assert looked_up["outcome"] == "paid"
    assert looked_up["payment"]["state"] == "succeeded"


async def test_a_look_up_that_finds_nothing_new_says_so(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment)
    assert (await do(payments, payment, "look-up")).data["outcome"] == "paid"
    assert len(await payments.announcements()) == 1

    other = await payments.create()
    payments.gateway.next_look_ups = [Unknown("timeout")]
    unknown = (await do(payments, other, "look-up")).data
    assert (unknown["outcome"], unknown["reason"]) == ("unknown", "timeout")


async def test_a_look_up_during_a_pause_is_refused_with_the_reason(payments: Payments) -> None:
    payment = await payments.create()
    body = {"target": "all", "reason": "bank is down"}
    await payments.api.call("POST", "/api/operations/pause", body)
    await FlowSync(payments.runtime, "http").synchronize()

    reply = await do(payments, payment, "look-up")

    assert (reply.status, reply.error["details"]["reason"]) == (502, "paused:all")
    assert payments.gateway.questions == []
    assert await recorded(payments, payment) == []


@pytest.mark.parametrize("what", ["hold", "release", "look-up"])
async def test_a_payment_that_there_is_not_is_404_and_a_missing_reason_400(
    payments: Payments, what: str
) -> None:
    payment = await payments.create()
    for payment_id in (new_id("pay", START), "pay_1", "%00", "x" * 3_000, "%ff"):
        path = f"/api/payments/{payment_id}/{what}"
        reply = await payments.api.call("POST", path, {"reason": "because"})
        assert reply.status == 404, payment_id
    path = f"/api/payments/{payment['id']}/{what}"
    assert (await payments.api.call("POST", path, {})).status == 400
    assert (await payments.api.call("POST", path, {"reason": "r"}, key="writer")).status == 403
    assert await recorded(payments, payment) == []


async def test_a_notice_of_failure_does_not_end_a_held_payment(payments: Payments) -> None:
    payment = await payments.create()
    await do(payments, payment, "hold")
    payments.gateway.decline(payment["gatewayReference"], is_final=True)

    await payments.notify(notice_received(payment["gatewayReference"], claim="failed"))

    assert (await payments.read(payment["id"]))["state"] == "on_hold"


async def test_a_held_retry_is_made_after_the_release(payments: Payments) -> None:
    payments.gateway.next_starts = [declined(FailureKind.PROCESSING_ERROR), paid()]
    payment = await processed(payments)
    assert payment["state"] == "retry_scheduled"

    assert (await do(payments, payment, "hold")).data["state"] == "on_hold"
    payments.clock.advance(3_600)
    await payments.retry()
    assert len(payments.gateway.orders) == 1

    assert (await do(payments, payment, "release")).data["state"] == "retry_scheduled"
    wait_until(payments, await retry_of(payments, payment))
    await payments.retry()
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 2


async def test_a_retry_that_was_cancelled_during_a_hold_is_not_made(payments: Payments) -> None:
    payments.gateway.next_starts = [declined(FailureKind.PROCESSING_ERROR)]
    payment = await processed(payments)
    await do(payments, payment, "hold")
    cancelled = await call(payments, "DELETE", payment["id"])
    assert cancelled.status == 200, cancelled.json

    released = (await do(payments, payment, "release")).data
    payments.gateway.decline(payment["gatewayReference"], is_final=True)
    payments.clock.advance(3_600)
    await payments.retry()
    await payments.look()

    assert released["state"] == "unknown"
    assert (await payments.read(payment["id"]))["state"] == "failed"
    assert len(payments.gateway.orders) == 1
