"""What becomes of a payment when notices come: believed only after the gateway was asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, get_args

import pytest
from prometheus_client import REGISTRY

from services.payments.domain.check_schedule import CONFIRMATION_DELAYS
from shared.gateways.interface import Claim
from shared.messaging import receiver as receiver_module
from shared.money import Money
from tests.integration.payments.world import Payments, running_payments
from tests.support.messages import notice_received
from tests.support.payments import REFERENCE
from tests.support.polling import eventually
from tests.support.queues import batch_of, items_on, receipts_for
from tests.support.tcp_proxy import proxied


def foreign_notices() -> float:
    labels = {"gateway": "sslcommerz"}
    return REGISTRY.get_sample_value("payments_foreign_notices_total", labels) or 0.0


async def test_a_confirmed_payment_has_succeeded_and_is_announced(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment)

    now = await payments.read(payment["id"])
    assert (now["state"], now["reason"], now["nextCheckAt"]) == ("succeeded", None, None)
    assert now["gatewayPaymentId"] == "bank_1"
    assert payments.gateway.questions == [("confirm", payment["gatewayReference"])]
    assert await payments.story(payment) == ["created", "checkout_opened", "confirmed"]
    (announced,) = await payments.announcements()
    assert announced == {
        "paymentId": payment["id"],
        "customerId": "cus_1",
        "productId": "course_1",
        "amount": 115_000,
        "currency": "BDT",
        "noticedAt": "2026-01-05T12:00:00Z",
    }
    (item,) = await items_on(payments.core.redis, "enrollment.grants")
    assert item["payload"] == announced


async def test_money_with_a_risk_is_held_and_released_when_the_gateway_takes_its_doubt_back(
    payments: Payments,
) -> None:
    payment = await payments.create()
    await payments.paid(payment, is_risky=True)
    held = await payments.read(payment["id"])
    assert (held["state"], held["reason"]) == ("on_hold", "gateway_says_risky")
    assert await payments.announcements() == []

    payments.gateway.approve(payment["gatewayReference"])
    await payments.notify_of(payment)
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(await payments.announcements()) == 1


@pytest.mark.parametrize(
    ("money", "reason"),
    [
        (Money(115_001, "BDT"), "amount_differs"),
        (Money(114_999, "BDT"), "amount_differs"),
        (Money(115_000, "USD"), "currency_differs"),
    ],
)
async def test_another_amount_than_asked_for_is_held(
    payments: Payments, money: Money, reason: str
) -> None:
    payment = await payments.create()
    await payments.paid(payment, amount=money)

    held = await payments.read(payment["id"])
    assert (held["state"], held["reason"]) == ("on_hold", reason)
    assert await payments.announcements() == []


@pytest.mark.parametrize(
    ("claim", "state"), [("failed", "failed"), ("cancelled", "cancelled"), ("expired", "cancelled")]
)
async def test_a_decline_that_the_gateway_confirms_ends_the_payment(
    payments: Payments, claim: Claim, state: str
) -> None:
    payment = await payments.create()
    payments.gateway.decline(payment["gatewayReference"], cancelled=state == "cancelled")
    await payments.notify_of(payment, claim=claim, validation_id="")

    ended = await payments.read(payment["id"])
    assert (ended["state"], ended["reason"]) == (state, "no funds")
    assert payments.gateway.questions == [("look_up", payment["gatewayReference"])]
    assert await payments.announcements() == []


async def test_a_notice_that_claims_a_decline_is_not_believed_when_there_is_money(
    payments: Payments,
) -> None:
    payment = await payments.create()
    payments.gateway.charge(payment["gatewayReference"])
    await payments.notify_of(payment, claim="failed", validation_id="")

    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_a_notice_that_claims_money_is_not_believed_when_there_is_none(
    payments: Payments,
) -> None:
    """A forged or foreign val_id: our own reference decides."""
    payment = await payments.create()
    other = await payments.create()
    charge = payments.gateway.charge(other["gatewayReference"])
    for validation_id in ("made-up", charge.validation_id):
        await payments.notify_of(payment, validation_id=validation_id)

    waiting = await payments.read(payment["id"])
    assert waiting["state"] == "processing"
    assert waiting["nextCheckAt"] is not None
    assert await payments.announcements() == []


async def test_a_decline_without_a_word_of_the_end_lets_the_customer_try_again(
    payments: Payments,
) -> None:
    payment = await payments.create()
    payments.gateway.decline(payment["gatewayReference"])
    await payments.notify_of(payment, claim="other", validation_id="")
    assert (await payments.read(payment["id"]))["state"] == "pending"

    await payments.paid(payment)
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_a_silent_gateway_is_asked_after_2_4_8_16_and_32_seconds_and_then_more_rarely(
    payments: Payments,
) -> None:
    payment = await payments.create()
    payments.gateway.is_silent = True
    charge = payments.gateway.charge(payment["gatewayReference"])
    await payments.notify_of(payment, validation_id=charge.validation_id)

    for delay in CONFIRMATION_DELAYS:
        waiting = await payments.read(payment["id"])
        assert (waiting["state"], waiting["reason"]) == ("processing", "timeout")
        due = payments.clock() + delay
        assert waiting["nextCheckAt"] == due.isoformat().replace("+00:00", "Z")
        assert await payments.look() == 0, "not before it is due"
        payments.clock.advance(delay.total_seconds())
        assert await payments.look() == 1

    unknown = await payments.read(payment["id"])
    assert unknown["state"] == "unknown"
    due = payments.clock() + timedelta(seconds=30)
    assert unknown["nextCheckAt"] == due.isoformat().replace("+00:00", "Z")
    assert {operation for operation, _ in payments.gateway.questions} == {"confirm"}

    payments.gateway.is_silent = False
    payments.clock.advance(30)
    assert await payments.look() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(await payments.announcements()) == 1


async def test_a_confirmation_that_comes_while_waiting_ends_the_wait(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.is_silent = True
    charge = payments.gateway.charge(payment["gatewayReference"])
    await payments.notify_of(payment, validation_id=charge.validation_id)
    payments.gateway.is_silent = False
    payments.clock.advance(2)

    assert await payments.look() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    payments.clock.advance(3_600)
    assert await payments.look() == 0


@pytest.mark.parametrize("claim", sorted({*get_args(Claim)} - {"dispute"}))
async def test_money_that_comes_after_the_end_still_counts(
    payments: Payments, claim: Claim
) -> None:
    payment = await payments.create()
    payments.gateway.decline(payment["gatewayReference"])
    await payments.notify_of(payment, claim="failed", validation_id="")
    assert (await payments.read(payment["id"]))["state"] == "failed"

    charge = payments.gateway.charge(payment["gatewayReference"])
    validation_id = charge.validation_id if claim == "paid" else ""
    await payments.notify_of(payment, claim=claim, validation_id=validation_id)
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert (await payments.story(payment))[-1] == "confirmed_late"
    assert len(await payments.announcements()) == 1


async def test_a_late_notice_of_money_is_not_dropped_while_the_gateway_is_silent(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The payment waits for nothing any more, so only the message can bring the money up again."""
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.01,))
    payment = await payments.create()
    payments.clock.advance(25 * 3_600)
    assert await payments.look() == 1
    assert (await payments.read(payment["id"]))["state"] == "failed"
    assert (await payments.read(payment["id"]))["nextCheckAt"] is None

    payments.gateway.is_silent = True
    charge = payments.gateway.charge(payment["gatewayReference"])
    notice = notice_received(payment["gatewayReference"], validation_id=charge.validation_id)
    asked_before = len(payments.gateway.questions)
    payments.receiver.accept("payments.medium", {"batch": batch_of("webhook", [(99, notice)])})

    async def tried_twice_and_left() -> bool:
        return (
            len(payments.gateway.questions) == asked_before + 2 and not payments.receiver._in_hand
        )

    await eventually(tried_twice_and_left)
    assert 99 not in await receipts_for(payments.core.redis, "webhook")

    payments.gateway.is_silent = False
    payments.receiver.accept("payments.medium", {"batch": batch_of("webhook", [(99, notice)])})

    async def has_succeeded() -> bool:
        return bool((await payments.read(payment["id"]))["state"] == "succeeded")

    await eventually(has_succeeded)
    assert await payments.dead_letters() == []


async def test_the_same_notice_again_changes_nothing_and_asks_nothing(payments: Payments) -> None:
    payment = await payments.create()
    await payments.paid(payment)
    questions, version = (
        len(payments.gateway.questions),
        await payments.sql("SELECT version FROM payment"),
    )

    for _ in range(3):
        await payments.notify_of(payment)

    assert len(payments.gateway.questions) == questions
    assert await payments.sql("SELECT version FROM payment") == version
    assert len(await payments.announcements()) == 1


async def test_five_copies_of_a_notice_at_once_are_one_success(payments: Payments) -> None:
    """Two judgements of one payment meet in one batch of results."""
    payment = await payments.create()
    charge = payments.gateway.charge(payment["gatewayReference"])
    notice = notice_received(payment["gatewayReference"], validation_id=charge.validation_id)
    payments.gateway.is_answering.clear()
    delivering = asyncio.create_task(payments.notify(*[notice] * 5))

    async def all_asked() -> bool:
        return len(payments.gateway.questions) == 5

    await eventually(all_asked)
    payments.gateway.is_answering.set()
    await delivering

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert await payments.story(payment) == ["created", "checkout_opened", "confirmed"]
    assert len(await payments.announcements()) == 1
    assert await payments.dead_letters() == []


async def test_contrary_notices_at_once_end_where_the_gateway_says(payments: Payments) -> None:
    payment = await payments.create()
    reference = payment["gatewayReference"]
    payments.gateway.decline(reference)
    charge = payments.gateway.charge(reference)
    await payments.notify(
        notice_received(reference, claim="failed", validation_id=""),
        notice_received(reference, claim="cancelled", validation_id=""),
        notice_received(reference, validation_id=charge.validation_id),
    )

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(await payments.announcements()) == 1


async def test_a_hundred_notices_of_one_payment_at_once_lose_nothing(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.is_silent = True
    payments.gateway.is_answering.clear()
    notices = [
        notice_received(payment["gatewayReference"], validation_id=f"made-up-{number}")
        for number in range(100)
    ]
    delivering = asyncio.create_task(payments.notify(*notices))

    async def all_asked() -> bool:
        return len(payments.gateway.questions) == 100

    await eventually(all_asked)
    payments.gateway.is_answering.set()
    await delivering

    assert (await payments.read(payment["id"]))["state"] in {"processing", "unknown"}
    assert await payments.dead_letters() == []


async def test_a_notice_of_another_system_on_the_account_is_counted_and_ended(
    payments: Payments,
) -> None:
    before = foreign_notices()
    await payments.notify(notice_received("INV-1"), notice_received("pi_3PxT"))

    assert foreign_notices() == before + 2
    assert await payments.dead_letters() == []
    assert payments.gateway.questions == []


async def test_a_notice_of_a_reference_of_ours_that_we_do_not_know_becomes_a_dead_letter(
    payments: Payments,
) -> None:
    payment = await payments.create()
    charge = payments.gateway.charge(payment["gatewayReference"])
    await payments.notify(
        notice_received(REFERENCE),
        notice_received(payment["gatewayReference"], validation_id=charge.validation_id),
    )

    (letter,) = await payments.dead_letters()
    assert (letter["sender"], letter["queue"]) == ("webhook", "payments.medium")
    assert letter["reason"] == f"NotFoundError: no payment has the reference {REFERENCE}"
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_a_slow_answer_of_the_gateway_delays_no_other_payment(payments: Payments) -> None:
    slow, fast = await payments.create(), await payments.create()
    slow_charge, fast_charge = (
        payments.gateway.charge(payment["gatewayReference"]) for payment in (slow, fast)
    )
    confirm = payments.gateway.confirm
    go_on = asyncio.Event()

    async def confirm_slowly(reference: str, validation_id: str) -> Any:
        if reference == slow["gatewayReference"]:
            await go_on.wait()
        return await confirm(reference, validation_id)

    payments.gateway.confirm = confirm_slowly  # type: ignore[method-assign]
    delivering = asyncio.create_task(
        payments.notify(
            notice_received(slow["gatewayReference"], validation_id=slow_charge.validation_id),
            notice_received(fast["gatewayReference"], validation_id=fast_charge.validation_id),
        )
    )

    async def fast_is_confirmed() -> bool:
        return await receipts_for(payments.core.redis, "webhook") == [2]

    await eventually(fast_is_confirmed)
    assert (await payments.read(fast["id"]))["state"] == "succeeded"
    go_on.set()
    await delivering
    assert (await payments.read(slow["id"]))["state"] == "succeeded"


async def test_while_postgresql_is_away_notices_get_no_receipt_and_are_handled_afterwards(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.1,) * 50)
    async with (
        proxied(new_database) as (proxy, url),
        running_payments(url, redis_url) as payments,
    ):
        payment = await payments.create()
        charge = payments.gateway.charge(payment["gatewayReference"])
        payments.gateway.is_answering.clear()
        delivering = asyncio.create_task(
            payments.notify_of(payment, validation_id=charge.validation_id)
        )

        async def asked() -> bool:
            return bool(payments.gateway.questions)

        await eventually(asked)
        await proxy.cut()
        payments.gateway.is_answering.set()

        async def asked_again() -> bool:
            return bool(payments.receiver._waiting)

        await eventually(asked_again)
        assert await receipts_for(payments.core.redis, "webhook") == []
        await proxy.mend()
        await delivering
        assert (await payments.read(payment["id"]))["state"] == "succeeded"
        assert len(await payments.announcements()) == 1
