"""What the scheduler orders is charged once, and it hears what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payments.handlers import charges as charges_module
from services.payments.handlers.beginning import record_answers
from services.payments.handlers.flow_sync import FlowSync
from services.payments.store import attempts as attempt_store
from services.payments.store.charges import NewCharge, record_charges
from services.payments.store.payments import NewPayment
from shared.errors import DatabaseUnavailableError
from shared.gateways.interface import FailureKind, Pending, Prompt, Unknown, Wallet
from shared.gateways.registration import SpendingLimits
from shared.identifiers import new_id
from shared.money import Money
from tests.integration.payments.charging import CARD, Charging, open_receiver
from tests.integration.payments.retrying import PROMPTED, declined, paid
from tests.integration.payments.world import Payments, running_payments, running_runtime
from tests.support.polling import eventually

PHONE = Prompt("8801700000000")


@pytest.fixture
async def charging(payments: Payments) -> AsyncIterator[Charging]:
    async with open_receiver(payments.runtime) as receiver:
        charging = Charging(payments, receiver)
        await charging.store()
        yield charging


async def test_a_charge_that_is_paid_at_once_is_told_step_by_step(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(paid(7))

    order = await charging.charge()

    (accepted, at_first), (succeeded, fact) = await charging.told()
    assert (accepted, at_first["attemptsMade"]) == ("accepted", 0)
    assert succeeded == "succeeded"
    assert fact == {
        "paymentId": order.payment_id,
        "subscriptionId": "sub_1",
        "attemptsMade": 1,
        "amount": 115_000,
        "currency": "BDT",
        "gateway": "sslcommerz",
        "gatewayPaymentId": "charge_7",
        "succeededAt": "2026-01-05T12:00:00Z",
    }
    payment = await charging.payments.read(order.payment_id)
    assert (payment["state"], payment["subscriptionId"]) == ("succeeded", "sub_1")
    assert payment["metadata"] == {"periodStart": "2026-01-05T12:00:00Z"}
    assert await charging.payments.announcements() == [], "access follows the subscription"
    assert await charging.payments.dead_letters() == []
    (asked,) = charging.payments.gateway.orders
    assert (asked.method, asked.customer.phone) == (CARD, "0170000")


async def test_an_order_that_comes_again_is_the_same_order(charging: Charging) -> None:
    charging.payments.gateway.next_starts += [paid(), paid()]
    order = charging.new()

    await charging.order(order, order)
    await charging.order(order, order)

    assert len(charging.payments.gateway.orders) == 1
    assert await charging.words() == ["accepted", "succeeded"]


async def test_two_workers_with_the_same_orders_charge_each_once(
    charging: Charging, new_database: str, redis_url: str
) -> None:
    payments = charging.payments
    orders = [charging.new() for _ in range(20)]
    payments.gateway.next_starts += [paid(number) for number in range(40)]
    async with (
        running_runtime(new_database, redis_url, payments.gateway, payments.clock) as runtime,
        open_receiver(runtime) as receiver,
    ):
        other = Charging(payments, receiver)
        ids = charging.deliver(*orders), other.deliver(*reversed(orders), ids=range(101, 121))
        await asyncio.gather(charging.confirmed(ids[0]), other.confirmed(ids[1]))

    assert len(payments.gateway.orders) == 20
    words = await charging.words()
    assert (words.count("accepted"), words.count("succeeded"), len(words)) == (20, 20, 40)


async def test_many_orders_are_recorded_together_and_a_slow_one_delays_no_other(
    charging: Charging, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = 0
    gateway = charging.payments.gateway
    started = gateway.start
    held = asyncio.Event()
    slow = charging.new()

    async def count(runtime: Any, answers: Any) -> None:
        nonlocal commits
        commits += 1
        await record_answers(runtime, answers)

    async def start(order: Any) -> Any:
        if order.amount.minor_units == 7:
            await held.wait()
        return await started(order)

    monkeypatch.setattr(charges_module, "record_answers", count)
    monkeypatch.setattr(gateway, "start", start)
    gateway.next_starts += [paid(number) for number in range(31)]
    slow = charging.new(amount=7)
    ids = charging.deliver(slow, *(charging.new() for _ in range(30)))

    async def others_are_done() -> bool:
        return (await charging.words()).count("succeeded") == 30

    await eventually(others_are_done)
    assert (await charging.state(slow))[0] == "created"
    assert commits < 20, "answers that come together are recorded together"
    held.set()
    await charging.confirmed(ids)


async def test_a_prompt_that_is_answered_late_is_told_when_it_is(charging: Charging) -> None:
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    order = await charging.charge()
    assert await charging.words() == ["accepted", "sent"]
    payment = await charging.payments.read(order.payment_id)

    charging.payments.clock.advance(900)
    await charging.payments.paid(payment)

    assert await charging.words() == ["accepted", "sent", "succeeded"]
    assert await charging.payments.announcements() == []


async def test_a_prompt_that_nobody_answers_ends_as_expired(charging: Charging) -> None:
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    await charging.charge()
    charging.payments.gateway.next_look_ups.append(declined(FailureKind.EXPIRED))
    charging.payments.clock.advance(5)

    await charging.payments.look()

    fact = await charging.last()
    assert (fact["kind"], fact["retryAfterSeconds"]) == ("expired", None)
    assert (fact["attemptsMade"], fact["mayStillBePaid"]) == (1, False)


async def test_what_may_still_be_paid_when_its_time_is_over_is_told_again_when_it_is_closed(
    charging: Charging,
) -> None:
    await charging.store(PHONE)
    charging.payments.gateway.next_starts.append(PROMPTED)
    order = await charging.charge()
    charging.payments.gateway.next_look_ups += [Pending("prompted"), declined(FailureKind.EXPIRED)]

    charging.payments.clock.now += charging.payments.runtime.expires_after
    await charging.payments.look()
    open_fact = await charging.last()
    charging.payments.clock.now += timedelta(hours=2)
    await charging.payments.look()

    assert (open_fact["mayStillBePaid"], open_fact["retryAfterSeconds"]) == (True, None)
    assert await charging.words() == ["accepted", "sent", "failed", "failed"]
    assert (await charging.last())["mayStillBePaid"] is False
    assert (await charging.state(order))[0] == "failed"


async def test_money_that_comes_after_the_end_is_told_all_the_same(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(declined(FailureKind.CARD_DECLINED))
    order = await charging.charge()
    payment = await charging.payments.read(order.payment_id)

    await charging.payments.paid(payment)

    assert await charging.words() == ["accepted", "failed", "succeeded"]


async def test_held_money_is_told_and_so_is_its_release(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(paid(amount=100_000))
    order = await charging.charge()
    assert await charging.words() == ["accepted", "held"]

    path = f"/api/payments/{order.payment_id}/release"
    reply = await charging.payments.api.call("POST", path, {"reason": "agreed"})

    assert reply.status == 200
    assert await charging.words() == ["accepted", "held", "succeeded"]
    assert (await charging.last())["attemptsMade"] == 1


async def test_held_money_that_is_given_back_ends_the_charge(charging: Charging) -> None:
    charging.payments.gateway.next_starts.append(replace(paid(), is_risky=True))
    order = await charging.charge()
    payment = await charging.payments.read(order.payment_id)

    await charging.payments.refund(payment)
    await charging.payments.carry_out_refunds()

    assert (await charging.state(order))[0] == "refunded"
    fact = await charging.last()
    assert (fact["kind"], fact["code"], fact["retryAfterSeconds"]) == (
        "cancelled",
        "refunded",
        None,
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"payment_method_id": "pmt_x"}, "payment_method_unknown", id="unknown method"),
        pytest.param({"gateway": "stripe"}, "gateway_is_off", id="gateway off"),
        pytest.param({"gateway": "nobody"}, "gateway_unknown", id="gateway unknown"),
        pytest.param(
            {"customer_id": "cus_2"}, "payment_method_of_another_customer", id="another's method"
        ),
        pytest.param({"currency": "EUR"}, "cannot_take_currency", id="currency not taken"),
    ],
)
async def test_an_order_that_cannot_be_carried_out_is_over_and_stays_so(
    charging: Charging, changes: dict[str, Any], code: str
) -> None:
    order = charging.new(**changes)

    await charging.order(order)
    await charging.order(order)

    assert charging.payments.gateway.orders == []
    ((word, fact),) = await charging.told()
    assert (word, fact["kind"], fact["code"]) == ("failed", "configuration", code)
    assert (fact["attemptsMade"], fact["retryAfterSeconds"]) == (0, None)
    assert await charging.state(order) == ("failed", f"configuration:{code}")
    assert await charging.payments.story({"id": order.payment_id}) == ["ordered", "order_refused"]
    assert await charging.payments.dead_letters() == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"amount": 0}, "cannot_take_amount", id="nothing"),
        pytest.param({"amount": 10**16}, "cannot_take_amount", id="too much for a row"),
        pytest.param({"currency": "ZZZ"}, "cannot_take_currency", id="unknown currency"),
        pytest.param({"payment_id": "sub_1"}, "cannot_take_payment_id", id="not an id"),
    ],
)
async def test_an_order_that_fits_no_row_is_refused_and_spoils_no_neighbour(
    charging: Charging, changes: dict[str, Any], code: str
) -> None:
    charging.payments.gateway.next_starts.append(paid())
    wrong, right = charging.new(**changes), charging.new()

    await charging.order(wrong, right)

    assert await charging.words(right.payment_id) == ["accepted", "succeeded"]
    ((_, fact),) = await charging.told(wrong.payment_id)
    assert (fact["kind"], fact["code"]) == ("configuration", code)
    assert await charging.payments.dead_letters() == []


async def test_a_removed_method_charges_nobody_and_the_customer_is_asked_for_another(
    charging: Charging,
) -> None:
    await charging.erase()

    order = await charging.charge()

    fact = await charging.last()
    assert (fact["code"], fact["customerAdvice"]) == (
        "payment_method_removed",
        "use_another_payment_method",
    )
    assert charging.payments.gateway.orders == []
    payment = await charging.payments.read(order.payment_id)
    assert payment["state"] == "failed"


async def test_nothing_is_begun_during_a_drain_and_all_of_it_afterwards(
    charging: Charging,
) -> None:
    payments = charging.payments
    drain = await payments.api.call("POST", "/api/operations/drain", {"reason": "new version"})
    assert drain.status == 200
    await FlowSync(payments.runtime, "worker").synchronize()
    order = await charging.charge()
    waiting = await payments.read(order.payment_id)
    payments.clock.advance(60)
    assert await payments.look() == 1
    assert payments.gateway.orders == []

    body = {"target": "new", "reason": "it runs"}
    assert (await payments.api.call("POST", "/api/operations/resume", body)).status == 200
    await FlowSync(payments.runtime, "worker").synchronize()
    payments.gateway.next_starts.append(paid())
    payments.clock.advance(60)
    await payments.look()

    assert (waiting["state"], waiting["reason"]) == ("created", "paused:new")
    assert waiting["nextCheckAt"] == "2026-01-05T12:01:00Z"
    assert await charging.words() == ["accepted", "succeeded"]


async def test_what_a_gateway_does_not_keep_pace_with_waits_in_the_database(
    charging: Charging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(charges_module, "ROOM_WAIT_SECONDS", 0.2)
    gateway = charging.payments.gateway
    gateway.is_answering.clear()
    gateway.next_starts += [paid(number) for number in range(80)]
    ids = charging.deliver(*(charging.new() for _ in range(80)))

    async def all_recorded() -> bool:
        return (await charging.words()).count("accepted") == 80

    await eventually(all_recorded)
    waiting = await charging.payments.sql(
        "SELECT count(*) FROM payment WHERE reason = 'waits_for_its_turn'"
    )
    gateway.is_answering.set()
    await charging.confirmed(ids)
    assert waiting == 30, "as many are in hand as there is room for"
    while await charging.payments.look():
        pass
    assert (await charging.words()).count("succeeded") == 80
    assert len(gateway.orders) == 80


async def test_a_process_that_dies_after_the_record_leaves_a_charge_that_is_asked_about(
    charging: Charging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_arguments: Any, **_options: Any) -> None:
        raise DatabaseUnavailableError("the process died")

    with monkeypatch.context() as patch:
        patch.setattr(charges_module, "ask_for_money", die)
        order = await charging.charge()
    payments = charging.payments
    assert payments.gateway.orders == []

    payments.clock.advance(61)
    await payments.look()
    assert payments.gateway.orders == [], "it is asked about before anything is sent again"
    payments.gateway.next_starts.append(paid())
    await payments.retry()

    assert [operation for operation, _ in payments.gateway.questions] == ["look_up"] * 2
    assert len(payments.gateway.orders) == 1
    assert await charging.words() == ["accepted", "failed", "succeeded"]
    (doubt,) = [fact for word, fact in await charging.told() if word == "failed"]
    assert (doubt["kind"], doubt["retryAfterSeconds"]) == ("network_error", 0.0)
    assert (await charging.state(order))[0] == "succeeded"


async def test_an_answer_that_was_not_recorded_is_found_at_the_gateway(
    charging: Charging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_arguments: Any) -> None:
        raise DatabaseUnavailableError("the process died")

    payments = charging.payments
    payments.gateway.next_starts.append(PROMPTED)
    with monkeypatch.context() as patch:
        patch.setattr(charges_module, "record_answers", die)
        order = await charging.charge()
    payments.gateway.charge((await payments.read(order.payment_id))["gatewayReference"])

    payments.clock.advance(30)
    await payments.look()

    assert len(payments.gateway.orders) == 1
    assert await charging.words() == ["accepted", "succeeded"]


async def test_an_order_is_recorded_whole_or_not_at_all(
    charging: Charging, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: Any) -> Any:
        raise DatabaseUnavailableError("away")

    payments = charging.payments
    with monkeypatch.context() as patch:
        patch.setattr(attempt_store, "find_orders", fail)
        ids = charging.deliver(order := charging.new())

        async def is_put_back() -> bool:
            return not charging.receiver._tasks

        await eventually(is_put_back)
        assert await payments.sql("SELECT count(*) FROM charge_order") == 0
        assert await payments.sql("SELECT count(*) FROM payment") == 0
    payments.gateway.next_starts.append(paid())
    await charging.confirmed(ids)

    assert await charging.words(order.payment_id) == ["accepted", "succeeded"]


async def test_of_two_who_record_the_same_order_one_does(charging: Charging) -> None:
    now, payment_id = charging.payments.clock(), new_id("pay", charging.payments.clock())

    def charge() -> NewCharge:
        payment = NewPayment(
            id=payment_id,
            gateway="sslcommerz",
            method=CARD,
            amount=Money(1_000, "BDT"),
            customer={"id": "cus_1"},
            product={"id": "course_1", "name": "Course"},
            return_url=None,
            metadata={},
            created_at=now,
            expires_at=now,
            next_check_at=now,
        )
        return NewCharge(
            payment=payment,
            subscription_id="sub_1",
            waits_for_orders=False,
            reference=new_id("att", now),
            attempt_state="started",
            reason=None,
            message=None,
            traceparent=None,
        )

    async def record() -> frozenset[str]:
        async with charging.payments.core.database.transaction() as connection:
            return (await record_charges(connection, [charge()], now))[0]

    first, second = await asyncio.gather(record(), record())

    assert sorted([*first, *second]) == [payment_id]
    assert await charging.payments.sql("SELECT count(*) FROM attempt") == 1


async def test_a_lost_answer_is_told_with_the_time_of_the_next_question(
    charging: Charging,
) -> None:
    charging.payments.gateway.next_starts.append(Unknown("http_503"))

    order = await charging.charge()

    fact = await charging.last()
    assert (fact["kind"], fact["code"]) == ("service_unavailable", "http_503")
    assert fact["retryAfterSeconds"] == 60
    assert (await charging.state(order))[0] == "unknown"


async def test_what_our_wallet_may_pay_on_a_day_holds_for_all_charges_together(
    new_database: str, redis_url: str
) -> None:
    limits = {"sslcommerz": SpendingLimits(per_payment=400, per_day=1_000)}
    async with (
        running_payments(new_database, redis_url, spending_limits=limits) as payments,
        open_receiver(payments.runtime) as receiver,
    ):
        charging = Charging(payments, receiver)
        await charging.store(Wallet("0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"))
        payments.gateway.next_starts += [paid(number, amount=400) for number in range(4)]
        await charging.order(*(charging.new(amount=400) for _ in range(3)))
        await charging.charge(amount=401)

        words = await charging.words()
        failed = [fact["code"] for word, fact in await charging.told() if word == "failed"]
        assert words.count("succeeded") == 2
        assert failed == ["over_wallet_limit_on_one_day", "over_wallet_limit_at_once"]
        assert len(payments.gateway.orders) == 2


async def test_payments_of_a_subscription_are_listed(charging: Charging) -> None:
    charging.payments.gateway.next_starts += [paid(1), paid(2), paid(3)]
    first = await charging.charge()
    await charging.charge(subscription_id="sub_2")
    charging.payments.clock.advance(1)
    second = await charging.charge()

    async def listed(query: str) -> list[str]:
        reply = await charging.payments.api.call("GET", f"/api/payments?{query}")
        return [payment["id"] for payment in reply.data["payments"]]

    assert await listed("subscriptionId=sub_1") == [second.payment_id, first.payment_id]
    assert await listed("subscriptionId=sub_1&limit=1") == [second.payment_id]
    assert await listed("subscriptionId=sub_1&state=failed") == []
    assert await listed("subscriptionId=sub_1&customerId=cus_2") == []
