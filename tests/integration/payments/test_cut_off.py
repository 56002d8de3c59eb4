"""A process that dies around a charge: the gateway is asked first, and charges once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from shared.gateways.interface import (
    Declined,
    Order,
    Outcome,
    Paid,
    Pending,
    Prompt,
    Unknown,
)
from shared.identifiers import new_id
from shared.messaging import receiver as receiver_module
from shared.money import Money
from tests.integration.payments.world import Payments
from tests.support.messages import notice_received
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for

PROMPT = {"type": "prompt", "phone": "8801700000000"}
PROMPTED = Pending("customer_must_confirm", handle="txn_1")


async def recorded_only(payments: Payments) -> str:
    """Leave what a process leaves that dies between its commit and its call; return the id."""
    now = payments.clock()
    payment_id, reference = new_id("pay", now), new_id("att", now)
    customer = {"id": "cus_1", "name": "Ada", "email": "ada@shop.example", "phone": "0170000"}
    new = payment_store.NewPayment(
        id=payment_id,
        gateway="sslcommerz",
        method=Prompt(PROMPT["phone"]),
        amount=Money(115_000, "BDT"),
        customer=customer,
        product={"id": "course_1", "name": "Course"},
        return_url=None,
        metadata={},
        created_at=now,
        expires_at=now + payments.runtime.expires_after,
        next_check_at=now + payments.runtime.first_check_after,
    )
    async with payments.core.database.transaction() as connection:
        assert await payment_store.insert_payment(connection, new, reference)
        await attempt_store.insert_attempt(
            connection, reference=reference, payment_id=payment_id, number=1, now=now
        )
    return payment_id


async def called_only(payments: Payments) -> str:
    """Leave what a process leaves that dies between the call and the commit of its answer."""
    payments.gateway.is_answering.clear()
    dying = asyncio.create_task(payments.post("key", method=PROMPT))

    async def called() -> bool:
        return bool(payments.gateway.orders)

    await eventually(called)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    await payments.sql("UPDATE idempotency_key SET leased_until = clock_timestamp()")
    # The request goes on in the server, which a killed process would not.
    payments.gateway.is_answering = asyncio.Event()
    payments.gateway.is_answering.set()
    return str(await payments.sql("SELECT id FROM payment"))


async def test_what_was_recorded_and_never_sent_is_looked_up_and_not_sent_by_the_reconciler(
    payments: Payments,
) -> None:
    payment_id = await recorded_only(payments)
    payments.clock.advance(30)

    assert await payments.look() == 1

    payment = await payments.read(payment_id)
    assert (payment["state"], payment["reason"]) == ("created", "not_attempted")
    assert payment["nextCheckAt"] is not None
    assert [order.method for order in payments.gateway.looked_up] == [Prompt(PROMPT["phone"])]
    assert payments.gateway.orders == []


async def test_what_was_never_sent_fails_when_its_time_is_over(payments: Payments) -> None:
    payment_id = await recorded_only(payments)
    payments.clock.advance(24 * 3_600)

    assert await payments.look() == 1

    payment = await payments.read(payment_id)
    assert (payment["state"], payment["reason"]) == ("failed", "never_attempted")


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (PROMPTED, "pending"),
        (Paid("any", Money(115_000, "BDT"), "txn_1", "charge_1"), "succeeded"),
        (Declined("low balance", is_final=True), "failed"),
        (Unknown("timeout"), "created"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_was_sent_and_not_recorded_is_found_by_a_look(
    payments: Payments, found: Any, state: str
) -> None:
    payment_id = await called_only(payments)
    payments.gateway.next_look_ups.append(found)
    payments.clock.advance(30)

    assert await payments.look() == 1

    assert (await payments.read(payment_id))["state"] == state
    assert len(payments.gateway.orders) == 1
    assert len(await payments.announcements()) == (1 if state == "succeeded" else 0)


async def test_the_repeated_request_finds_what_the_first_one_sent(payments: Payments) -> None:
    payment_id = await called_only(payments)
    payments.gateway.next_look_ups.append(PROMPTED)

    reply = await payments.post("key", method=PROMPT)

    assert (reply.status, reply.data["id"]) == (201, payment_id)
    assert reply.data["state"] == "pending"
    assert len(payments.gateway.orders) == 1


async def test_nothing_is_begun_anew_while_a_notice_says_that_there_is_money(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key", method=PROMPT)
    (order,) = payments.gateway.orders
    await payments.notify(notice_received(order.reference, validation_id="txn_1"))

    reply = await payments.post("key", method=PROMPT)

    assert (reply.status, reply.data["state"]) == (201, "processing")
    assert len(payments.gateway.orders) == 1


async def test_a_notice_that_comes_during_the_look_of_a_repeated_request_keeps_it_from_beginning(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key", method=PROMPT)
    (order,) = payments.gateway.orders

    async def notice_meanwhile(_order: Order) -> Outcome:
        charge = payments.gateway.charge(order.reference)
        notice = notice_received(order.reference, validation_id=charge.validation_id)
        await payments.notify(notice)
        return Pending("not_attempted")  # As the gateway said just before.

    monkeypatch.setattr(payments.gateway, "look_up", notice_meanwhile)
    reply = await payments.post("key", method=PROMPT)

    assert (reply.status, reply.data["state"]) == (201, "succeeded")
    assert len(payments.gateway.orders) == 1


async def given_up_and_begun_anew(payments: Payments) -> tuple[dict[str, Any], str]:
    """Return a payment at its second attempt, and the reference of its first."""
    payments.gateway.next_starts += [Unknown("timeout"), PROMPTED]
    await payments.post("key", method=PROMPT)
    payment = (await payments.post("key", method=PROMPT)).data
    return payment, payments.gateway.orders[0].reference


@pytest.mark.parametrize("claim", ["failed", "expired", "other", "paid"])
async def test_bad_news_of_an_attempt_that_was_given_up_does_not_end_the_live_one(
    payments: Payments, claim: Any
) -> None:
    payment, first = await given_up_and_begun_anew(payments)
    payments.gateway.decline(first, "expired", is_final=True)
    await payments.notify(notice_received(first, claim=claim, validation_id=""))

    assert (await payments.read(payment["id"]))["state"] == "pending"
    await payments.paid(payment)
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_money_of_an_attempt_that_was_given_up_counts(payments: Payments) -> None:
    payment, first = await given_up_and_begun_anew(payments)
    charge = payments.gateway.charge(first)
    await payments.notify(notice_received(first, validation_id=charge.validation_id))

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    await payments.paid(payment)
    surplus = await payments.read(payment["id"])
    assert (surplus["state"], surplus["reason"]) == ("succeeded", "surplus_charge")
    assert len(await payments.announcements()) == 1


async def test_a_notice_of_money_under_an_attempt_that_was_given_up_is_kept_until_it_is_confirmed(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reconciler asks about the live attempt, so only the message can bring it up again."""
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.01,) * 100)
    payment, first = await given_up_and_begun_anew(payments)
    charge = payments.gateway.charge(first)
    payments.gateway.is_silent = True
    notice = notice_received(first, validation_id=charge.validation_id)
    asked = len(payments.gateway.questions)
    payments.receiver.accept("payments.medium", {"batch": batch_of("webhook", [(99, notice)])})

    async def asked_again() -> bool:
        return len(payments.gateway.questions) >= asked + 2

    await eventually(asked_again)
    assert 99 not in await receipts_for(payments.core.redis, "webhook")
    payments.gateway.is_silent = False

    async def has_succeeded() -> bool:
        return bool((await payments.read(payment["id"]))["state"] == "succeeded")

    await eventually(has_succeeded)


@pytest.mark.parametrize(
    "outcome",
    [PROMPTED, Declined("51", is_final=True), Unknown("timeout"), "paid"],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_notice_that_overtakes_the_answer_to_the_charge_decides(
    payments: Payments, monkeypatch: pytest.MonkeyPatch, outcome: Any
) -> None:
    gateway = payments.gateway
    start = gateway.start

    async def pay_first(asked: Any) -> Any:
        await start(asked)
        charge = gateway.charge(asked.reference)
        notice = notice_received(asked.reference, validation_id=charge.validation_id)
        await payments.notify(notice)
        return charge if outcome == "paid" else outcome

    monkeypatch.setattr(gateway, "start", pay_first)
    await payments.post(method=PROMPT)

    payment = await payments.read(await payments.sql("SELECT id FROM payment"))
    assert (payment["state"], payment["reason"]) == ("succeeded", None)
    assert len(await payments.announcements()) == 1
