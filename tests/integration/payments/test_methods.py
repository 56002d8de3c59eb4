"""Payments by prompt, card and wallet: settled by what the gateway answers, begun once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.payments.domain.check_schedule import CHARGE_DELAYS
from shared.gateways.interface import (
    ActionRequired,
    Capabilities,
    Card,
    Checkout,
    Declined,
    FailureKind,
    Limits,
    Method,
    Paid,
    Pending,
    Prompt,
    Unknown,
    Wallet,
)
from shared.gateways.registration import SpendingLimits
from shared.money import Money
from tests.integration.payments.world import Payments, running_payments
from tests.support.fake_gateway import FakeGateway
from tests.support.queues import items_on

PHONE = "8801700000000"
RECIPIENT = "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"

PROMPT = {"type": "prompt", "phone": PHONE}
CARD = {"type": "card", "paymentMethod": "pm_1", "gatewayCustomer": "cus_9", "offSession": True}
WALLET = {"type": "wallet", "recipient": RECIPIENT}

METHODS: list[tuple[dict[str, Any] | None, Method]] = [
    (None, Checkout()),
    ({"type": "checkout"}, Checkout()),
    (PROMPT, Prompt(PHONE)),
    (CARD, Card("pm_1", "cus_9", off_session=True)),
    ({"type": "card", "paymentMethod": "pm_1"}, Card("pm_1")),
    (WALLET, Wallet(RECIPIENT)),
]

PROMPTED = Pending("customer_must_confirm", handle="txn_1")
DECLINED = Declined("51", FailureKind.INSUFFICIENT_FUNDS, is_final=True, handle="txn_1")
REFUSED = Declined("no such payment method", FailureKind.CONFIGURATION, is_final=True)


def paid(reference: str = "any") -> Paid:
    return Paid(reference, Money(115_000, "BDT"), "txn_1", "charge_1")


@pytest.fixture
async def payments(new_database: str, redis_url: str) -> AsyncIterator[Payments]:
    """Run the service with a wallet that may pay."""
    limits = {"sslcommerz": SpendingLimits(per_payment=200_000, per_day=1_000_000)}
    async with running_payments(new_database, redis_url, spending_limits=limits) as payments:
        yield payments


def due_after(payments: Payments, seconds: float) -> str:
    moment = payments.clock() + timedelta(seconds=seconds)
    return moment.isoformat().replace("+00:00", "Z")


async def attempts(payments: Payments) -> list[tuple[Any, ...]]:
    rows = await payments.rows("SELECT state, handle, checkout_url FROM attempt ORDER BY number")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(("body", "method"), METHODS)
async def test_a_method_reaches_the_gateway_and_only_its_type_is_shown(
    payments: Payments, body: dict[str, Any] | None, method: Method
) -> None:
    reply = await payments.post(method=body)

    assert reply.status == 201
    assert reply.data["method"] == {"type": method.kind}
    (order,) = payments.gateway.orders
    assert order.method == method
    assert PHONE.encode() not in reply.raw
    assert b"pm_1" not in reply.raw


@pytest.mark.parametrize(("body", "_method"), METHODS)
async def test_a_look_up_asks_about_the_very_order_that_was_begun(
    payments: Payments, body: dict[str, Any] | None, _method: Method
) -> None:
    """Rebuilt from the stored rows, to the microsecond: a repeated call must be the same call."""
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post(method=body)
    payments.clock.advance(3_600)
    await payments.look()

    assert payments.gateway.looked_up == payments.gateway.orders


async def test_a_prompt_is_pending_and_looked_at_within_seconds(payments: Payments) -> None:
    payments.gateway.next_starts.append(PROMPTED)
    reply = await payments.post(method=PROMPT)

    assert reply.status == 201
    payment = reply.data
    assert (payment["state"], payment["reason"]) == ("pending", "customer_must_confirm")
    assert payment["checkoutUrl"] is None
    assert payment["nextCheckAt"] == due_after(payments, 5)
    assert await payments.story(payment) == ["created", "accepted"]
    assert await attempts(payments) == [("open", "txn_1", None)]


async def test_an_unanswered_prompt_is_looked_at_often_at_first_and_by_its_handle(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(PROMPTED)
    payment = (await payments.post(method=PROMPT)).data
    payments.gateway.next_look_ups += [PROMPTED] * 6
    gaps = []
    for _ in range(6):
        due = datetime.fromisoformat((await payments.read(payment["id"]))["nextCheckAt"])
        gaps.append(due - payments.clock())
        payments.clock.now = due
        assert await payments.look() == 1

    assert tuple(gaps) == CHARGE_DELAYS[:6]
    assert {order.handle for order in payments.gateway.looked_up} == {"txn_1"}
    payments.gateway.charge(payment["gatewayReference"])
    payments.clock.advance(60)
    assert await payments.look() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_a_charge_that_is_paid_at_once_has_succeeded_and_is_announced(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(paid())
    reply = await payments.post("key", method=CARD)

    assert reply.status == 201
    payment = reply.data
    assert (payment["state"], payment["nextCheckAt"]) == ("succeeded", None)
    assert payment["gatewayPaymentId"] == "charge_1"
    assert await payments.story(payment) == ["created", "confirmed"]
    (announced,) = await payments.announcements()
    assert announced["paymentId"] == payment["id"]
    assert announced["noticedAt"] == "2026-01-05T12:00:00Z"
    assert (await payments.post("key", method=CARD)).data == payment
    assert len(payments.gateway.orders) == 1


async def test_another_amount_than_asked_for_is_held_also_when_it_comes_at_once(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(replace(paid(), amount=Money(114_999, "BDT")))
    payment = (await payments.post(method=CARD)).data

    assert (payment["state"], payment["reason"]) == ("on_hold", "amount_differs")
    assert await payments.announcements() == []


async def test_a_declined_charge_is_a_payment_that_has_failed_and_is_not_looked_at(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(DECLINED)
    reply = await payments.post("key", method=CARD)

    assert reply.status == 201
    payment = reply.data
    assert (payment["state"], payment["reason"]) == ("failed", "insufficient_funds:51")
    assert payment["nextCheckAt"] is None
    assert await payments.story(payment) == ["created", "declined"]
    assert await attempts(payments) == [("refused", "txn_1", None)]
    assert (await payments.post("key", method=CARD)).data == payment
    payments.clock.advance(86_400)
    assert await payments.look() == 0
    assert len(payments.gateway.orders) == 1


async def test_a_charge_that_the_gateway_would_not_begin_is_refused(payments: Payments) -> None:
    payments.gateway.next_starts.append(REFUSED)
    reply = await payments.post(method=CARD)

    assert (reply.status, reply.error["code"]) == (422, "gateway_refused")
    payment = await payments.read(reply.error["details"]["paymentId"])
    assert (payment["state"], payment["nextCheckAt"]) == ("failed", None)
    assert payment["reason"] == "gateway_refused:no such payment method"
    assert await payments.story(payment) == ["created", "charge_refused"]


async def test_a_charge_for_which_the_customer_must_come_back_has_a_page(
    payments: Payments,
) -> None:
    url = "https://gateway.example/authenticate"
    payments.gateway.next_starts.append(ActionRequired("authentication_required", url, "txn_1"))
    payment = (await payments.post(method=CARD)).data

    assert (payment["state"], payment["reason"]) == ("pending", "authentication_required")
    assert payment["checkoutUrl"] == url
    assert await attempts(payments) == [("open", "txn_1", url)]
    (item,) = await items_on(payments.core.redis, "webhook.checkouts")
    assert item["payload"]["returnUrl"] == payment["returnUrl"]


async def test_a_charge_whose_answer_was_lost_is_looked_up_and_never_begun_again(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    reply = await payments.post("key", method=PROMPT)

    assert (reply.status, reply.error["code"]) == (502, "gateway_unavailable")
    payment = await payments.read(reply.error["details"]["paymentId"])
    assert (payment["state"], payment["reason"]) == ("unknown", "charge_unknown:timeout")
    assert payment["nextCheckAt"] == due_after(payments, 5)

    payments.gateway.next_look_ups.append(PROMPTED)
    payments.clock.advance(5)
    await payments.look()
    assert (await payments.read(payment["id"]))["state"] == "pending"
    assert await attempts(payments) == [("open", "txn_1", None)], "its name is known now"

    repeated = await payments.post("key", method=PROMPT)
    assert (repeated.status, repeated.data["state"]) == (201, "pending")
    assert len(payments.gateway.orders) == 1


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (paid(), "succeeded"),
        (DECLINED, "failed"),
        (PROMPTED, "pending"),
        (Declined("no answer yet"), "pending"),
        (ActionRequired("authentication_required", "https://gateway.example/a"), "pending"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_repeated_request_answers_what_became_of_the_first_try(
    payments: Payments, outcome: Any, state: str
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key", method=PROMPT)
    payments.gateway.next_look_ups.append(outcome)

    reply = await payments.post("key", method=PROMPT)

    assert (reply.status, reply.data["state"]) == (201, state)
    assert len(payments.gateway.orders) == 1
    assert len(await payments.announcements()) == (1 if state == "succeeded" else 0)


async def test_only_a_gateway_that_knows_of_no_try_is_asked_anew_and_only_by_the_caller(
    payments: Payments,
) -> None:
    payments.gateway.next_starts += [Unknown("timeout"), PROMPTED]
    payment_id = (await payments.post("key", method=PROMPT)).error["details"]["paymentId"]
    payments.clock.advance(5)
    await payments.look()
    waiting = await payments.read(payment_id)
    assert (waiting["state"], waiting["reason"]) == ("pending", "not_attempted")
    assert len(payments.gateway.orders) == 1, "nobody asked for it"

    reply = await payments.post("key", method=PROMPT)

    assert (reply.status, reply.data["id"]) == (201, payment_id)
    first, second = payments.gateway.orders
    assert first.reference != second.reference == reply.data["gatewayReference"]
    assert replace(second, reference=first.reference, started_at=first.started_at) == first
    assert [state for state, *_ in await attempts(payments)] == ["abandoned", "open"]


async def test_a_decline_that_a_look_finds_ends_the_payment_for_good(payments: Payments) -> None:
    payments.gateway.next_starts += [PROMPTED, PROMPTED]
    declined = (await payments.post(method=PROMPT)).data
    cancelled = (await payments.post(method=PROMPT)).data
    payments.gateway.decline(declined["gatewayReference"], "low balance", is_final=True)
    payments.gateway.decline(
        cancelled["gatewayReference"], "rejected", cancelled=True, is_final=True
    )
    payments.clock.advance(5)
    assert await payments.look() == 2

    found = [await payments.read(payment["id"]) for payment in (declined, cancelled)]
    assert [(payment["state"], payment["reason"]) for payment in found] == [
        ("failed", "unknown_code:low balance"),
        ("cancelled", "cancelled:rejected"),
    ]
    assert {payment["nextCheckAt"] for payment in found} == {None}


async def test_a_page_whose_address_was_lost_is_shown_once_a_look_finds_it(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    payment_id = (await payments.post(method=CARD)).error["details"]["paymentId"]
    url = "https://gateway.example/authenticate"
    action = ActionRequired("authentication_required", url, "txn_1")
    payments.gateway.next_look_ups += [action, action]
    for _ in range(2):
        payments.clock.advance(60)
        assert await payments.look() == 1

    payment = await payments.read(payment_id)
    assert (payment["state"], payment["checkoutUrl"]) == ("pending", url)
    assert len(await items_on(payments.core.redis, "webhook.checkouts")) == 1


WRONG: list[tuple[Any, str]] = [
    ("prompt", "method"),
    ([], "method"),
    ({}, "method.type"),
    ({"type": "cash"}, "method.type"),
    ({"type": ["card"]}, "method.type"),
    ({"type": "prompt"}, "method.phone"),
    ({"type": "prompt", "phone": "+8801700000000"}, "method.phone"),
    ({"type": "prompt", "phone": 8801700000000}, "method.phone"),
    ({"type": "prompt", "phone": "01700000000"}, "method.phone"),
    ({"type": "card"}, "method.paymentMethod"),
    ({"type": "card", "paymentMethod": "pm_1", "offSession": "yes"}, "method.offSession"),
    ({"type": "card", "paymentMethod": "pm_1", "number": "4242"}, "method.number"),
    ({"type": "wallet", "recipient": "0x12"}, "method.recipient"),
    ({"type": "checkout", "phone": PHONE}, "method.phone"),
]


@pytest.mark.parametrize(("method", "field"), WRONG, ids=str)
async def test_a_wrong_method_is_refused_with_the_name_of_its_field(
    payments: Payments, method: Any, field: str
) -> None:
    reply = await payments.post(method=method)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert field in reply.error["details"]
    assert payments.gateway.orders == []


async def test_what_a_gateway_cannot_do_is_refused_up_front_and_never_tried(
    new_database: str, redis_url: str
) -> None:
    prompts_only = Capabilities(methods=("prompt", "card"), limits={"XAF": Limits(100, 500_000)})
    gateway = FakeGateway(name="fapshi", capabilities=prompts_only)
    async with running_payments(new_database, redis_url, gateway=gateway) as payments:
        francs: dict[str, Any] = {
            "gateway": "fapshi",
            "currency": "XAF",
            "amount": 5_000,
            "method": PROMPT,
        }
        for change, field in (
            ({"gateway": "sslcommerz"}, "gateway"),
            ({"method": None}, "method"),
            ({"method": {"type": "checkout"}}, "method.type"),
            ({"method": CARD}, "method.offSession"),
            ({"currency": "BDT"}, "currency"),
            ({"amount": 99}, "amount"),
            ({"amount": 500_001}, "amount"),
        ):
            reply = await payments.post(**(francs | change))
            assert (reply.status, reply.error["code"]) == (400, "invalid_input"), change
            assert list(reply.error["details"]) == [field]
        unknown = await payments.post(**(francs | {"gateway": "paypall"}))
        assert "fapshi" in unknown.error["message"]
        assert gateway.orders == []
        assert await payments.sql("SELECT count(*) FROM payment") == 0
        assert (await payments.post(**francs)).status == 201


async def test_a_payment_of_a_gateway_that_was_switched_off_waits_visibly(
    payments: Payments, new_database: str, redis_url: str
) -> None:
    payment = await payments.create()
    other = FakeGateway(name="fapshi")
    async with running_payments(
        new_database, redis_url, gateway=other, clock=payments.clock
    ) as without:
        without.clock.advance(30)
        assert await without.look() == 1
        waiting = await without.read(payment["id"])

    assert (waiting["state"], waiting["reason"]) == ("pending", "gateway_is_off")
    assert waiting["nextCheckAt"] is not None
