"""Payments that go on without their callers: lost answers, dead processes, and the worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from services.payments.handlers import retry_worker
from services.payments.handlers.orders import Purchase
from services.payments.handlers.retries import process_payment
from shared.gateways.interface import Card, FailureKind, Outcome, Pending
from shared.money import Money
from tests.integration.payments.retrying import (
    LOST,
    PROMPT,
    PROMPTED,
    call,
    declined,
    paid,
    process,
    processed,
    retry_of,
    wait_until,
)
from tests.integration.payments.world import Payments, running_runtime
from tests.support.polling import eventually

BROKEN = declined(FailureKind.PROCESSING_ERROR)


async def test_a_payment_whose_answer_is_lost_is_no_error_and_is_begun_once_per_key(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(LOST)
    first, again = [await process(payments, "key") for _ in range(2)]

    assert (first.status, first.data["state"]) == (201, "unknown")
    assert again.data == first.data
    retry = await retry_of(payments, first.data)
    assert (retry["kind"], retry["code"], retry["state"]) == (
        "network_error",
        "timeout",
        "scheduled",
    )
    payments.gateway.charge(first.data["gatewayReference"])
    assert await payments.retry() == 1
    assert (await payments.read(first.data["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 1


async def test_a_gateway_that_stays_silent_is_asked_ever_more_rarely_and_not_charged_again(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(LOST)
    payment = await processed(payments)
    payments.gateway.is_silent = True
    waits = []
    for _ in range(6):
        waits.append(wait_until(payments, await retry_of(payments, payment)).total_seconds())
        assert await payments.retry() == 1

    assert waits == [0, 2, 4, 8, 16, 32]
    assert len(payments.gateway.orders) == 1
    assert (await payments.read(payment["id"]))["state"] == "unknown"


async def test_a_look_that_finds_no_trace_of_a_lost_try_leaves_it_to_be_made_again(
    payments: Payments,
) -> None:
    payments.gateway.next_starts += [LOST, LOST, paid()]
    payment = await processed(payments)
    await payments.retry()
    payments.clock.advance(3_600)
    assert await payments.look() == 1
    looked_at = await payments.read(payment["id"])
    assert (looked_at["state"], looked_at["reason"]) == ("pending", "not_attempted")

    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 3


async def test_a_request_whose_process_died_goes_on_by_itself(payments: Payments) -> None:
    """The first try is on record, and nobody knows whether it was sent; no caller comes back."""
    payments.gateway.next_starts.append(LOST)
    payment = await processed(payments)
    await payments.sql("DELETE FROM retry")
    await payments.sql("UPDATE payment SET reason = NULL")
    payments.clock.advance(59)
    await payments.look()
    assert await payments.sql("SELECT count(*) FROM retry") == 0
    payments.clock.advance(60)
    await payments.look()
    retry = await retry_of(payments, payment)
    assert (retry["kind"], retry["code"]) == ("network_error", "not_attempted")

    payments.gateway.next_starts.append(paid())
    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 2


async def test_the_worker_makes_what_is_due_and_lets_nothing_slow_hold_it_up(
    payments: Payments, new_database: str, redis_url: str
) -> None:
    payments.gateway.next_starts += [PROMPTED]
    prompt = await processed(payments, method=PROMPT)
    payments.gateway.next_look_ups.append(Pending("customer_must_confirm", "txn_1"))
    payments.gateway.next_starts += [BROKEN, BROKEN]
    slow = await processed(payments, product={"id": "course_2"})
    quick = await processed(payments, product={"id": "course_3"})
    await call(payments, "POST", slow["id"], "/now")
    payments.gateway.is_answering.clear()
    async with running_runtime(new_database, redis_url, payments.gateway, payments.clock) as worker:
        (made,) = await retry_worker.take_up_due(worker, 10)
        await call(payments, "POST", quick["id"], "/now")
        (second,) = await retry_worker.take_up_due(worker, 10)
        payments.gateway.next_starts += [paid(1), paid(2)]
        payments.gateway.is_answering.set()
        await made
        await second

    states = [(await payments.read(each["id"]))["state"] for each in (prompt, slow, quick)]
    assert states == ["pending", "succeeded", "succeeded"]


async def test_a_failure_that_is_told_twice_is_counted_once(payments: Payments) -> None:
    payments.gateway.next_starts += [PROMPTED, paid()]
    payment = await processed(payments, method=PROMPT)
    payments.gateway.decline(payment["gatewayReference"], is_final=True)
    payments.clock.advance(5)
    await payments.look()
    before = await retry_of(payments, payment)
    # A notice claims money after all; the gateway does not confirm it at first, and then says no.
    payments.gateway.next_look_ups.append(Pending("gateway_pending", "txn_1"))
    await payments.notify_of(payment, claim="paid", validation_id="val_9")
    assert (await payments.read(payment["id"]))["state"] == "processing"
    payments.clock.advance(2)
    await payments.look()

    assert (await payments.read(payment["id"]))["state"] == "retry_scheduled"
    after = await retry_of(payments, payment)
    assert (after["state"], after["nextAttemptAt"]) == ("scheduled", before["nextAttemptAt"])
    wait_until(payments, after)
    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_a_repeated_request_whose_first_one_died_needs_no_third(payments: Payments) -> None:
    payments.gateway.next_starts += [LOST, paid()]
    payment = await processed(payments)
    await payments.sql("DELETE FROM retry")
    await payments.sql("UPDATE payment SET state = 'unknown', reason = NULL")
    payments.gateway.is_silent = True
    purchase = Purchase(
        gateway="sslcommerz",
        method=Card("pm_1", "cus_9", off_session=True),
        amount=Money(115_000, "BDT"),
        customer={"id": "cus_1", "name": "Ada", "email": "ada@shop.example", "phone": "0170000"},
        product={"id": "course_1", "name": "Course"},
        return_url=None,
        metadata={},
    )
    view = await process_payment(payments.runtime, payment["id"], purchase)
    assert view.payment.state == "unknown"
    retry = await retry_of(payments, payment)
    assert (retry["state"], retry["code"]) == ("scheduled", "no_answer")

    payments.gateway.is_silent = False
    assert await payments.retry() == 1
    assert (await retry_of(payments, payment))["waitsFor"] == "sender_may_come_back"
    payments.clock.advance(60)
    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 2


async def test_the_worker_finds_what_is_due_and_what_was_left_behind(payments: Payments) -> None:
    payments.gateway.next_starts += [BROKEN, BROKEN]
    due, left = await processed(payments), await processed(payments, product={"id": "course_2"})
    payments.gateway.next_starts += [paid(1), paid(2)]
    await payments.sql(
        "UPDATE retry SET state = 'running', token = 1,"
        " leased_until = clock_timestamp() - interval '1 second' WHERE payment_id = $1",
        left["id"],
    )
    payments.clock.advance(60)
    worker = asyncio.create_task(retry_worker.make_retries(payments.runtime))

    async def all_paid() -> bool:
        states = [(await payments.read(each["id"]))["state"] for each in (due, left)]
        return states == ["succeeded", "succeeded"]

    await eventually(all_paid)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    assert len(payments.gateway.orders) == 4


@pytest.mark.parametrize("answer", [paid(), LOST], ids=["paid", "lost"])
async def test_a_first_try_that_is_put_off_needs_no_caller_either(
    payments: Payments, answer: Outcome
) -> None:
    runtime = payments.runtime
    runtime.flow.controls = replace(runtime.flow.controls, paused={"all": "incident"})
    payment = await processed(payments)
    assert (payment["state"], payment["reason"]) == ("created", "paused:all")
    assert payments.gateway.orders == []
    reply = await call(payments, "POST", payment["id"])
    assert (reply.status, reply.error["code"]) == (409, "retry_conflict")

    runtime.flow.controls = replace(runtime.flow.controls, paused={})
    payments.gateway.next_starts += [answer, paid()]
    payments.clock.advance(60)
    assert await payments.look() == 1
    await payments.retry()
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
