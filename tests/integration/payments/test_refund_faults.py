"""Refunds that race, processes that die or stall around them, gateways that are not called."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.postgres_server import PostgresServer
from services.payments.domain.breaker import BreakerState
from services.payments.domain.refunds import SUCCEEDED_DELAYS, order_of
from services.payments.flow.controls import BreakerView
from services.payments.handlers import refunds
from services.payments.store import payments as payment_store
from services.payments.store import refunds as refund_store
from services.payments.store.refunds import NewRefund
from shared.contracts.payments import PaymentRefunded, RefundReturned
from shared.gateways.interface import RefundOrder, RefundOutcome, Unknown
from shared.gateways.send_deadline import is_too_late
from shared.identifiers import new_id
from shared.money import Money
from tests.integration.payments.test_refunds import PRICE, paid_payment, returned
from tests.integration.payments.world import Payments, running_payments, running_runtime
from tests.support.blocking import execute
from tests.support.databases import fresh_database
from tests.support.messages import notice_received
from tests.support.polling import eventually


@pytest.fixture
async def paid(payments: Payments) -> dict[str, Any]:
    return await paid_payment(payments)


async def race(payments: Payments, payment: dict[str, Any], amounts: list[int]) -> list[int]:
    """Ask for refunds of which each has found enough left, and return the statuses.

    The payment's row is held until all of them wait for it: what was left they have read by then.
    """
    async with payments.core.database.transaction() as connection:
        await payment_store.lock_payment(connection, payment["id"])
        replies = [
            asyncio.create_task(payments.try_refund(payment, amount=amount)) for amount in amounts
        ]

        async def all_wait() -> bool:
            # Nobody sees what sessions of another user wait for, but everybody their locks.
            waiting = await connection.fetchval(
                "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
                " AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
            )
            return bool(waiting == len(amounts))

        await eventually(all_wait)
    return sorted([(await reply).status for reply in replies])


async def test_of_two_refunds_that_race_only_what_was_paid_is_given_back(
    payments: Payments, paid: dict[str, Any]
) -> None:
    assert await race(payments, paid, [PRICE, PRICE]) == [201, 409]

    assert await returned(payments, paid) == (PRICE, 0)
    assert len(payments.gateway.given_back) == 1
    assert len(await payments.facts(PaymentRefunded)) == 1


async def test_of_many_parts_that_race_no_more_than_fit_are_given_back(
    payments: Payments, paid: dict[str, Any]
) -> None:
    assert await race(payments, paid, [50_000] * 5) == [201, 201, 409, 409, 409]

    assert await returned(payments, paid) == (100_000, 0)
    assert len(payments.gateway.given_back) == 2


@pytest.fixture
def unguarded_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Make a database in which nothing holds the sum of refunds."""
    with fresh_database(postgres, template_database) as url:
        execute(url, "ALTER TABLE payments.payment DROP CONSTRAINT refunds_within_amount")
        yield url


async def test_without_the_constraint_the_same_race_gives_back_too_much(
    unguarded_database: str, redis_url: str
) -> None:
    """The test of the tests above."""
    async with running_payments(unguarded_database, redis_url) as payments:
        paid = await paid_payment(payments)

        assert await race(payments, paid, [PRICE, PRICE]) == [201, 201]

        assert await returned(payments, paid) == (2 * PRICE, 0)
        assert len(payments.gateway.given_back) == 2


async def insert(payments: Payments, payment: dict[str, Any], amount: int = PRICE) -> str:
    """Record a refund as a process does that dies at once."""
    now = payments.clock()
    new = NewRefund(
        id=new_id("ref", now),
        payment_id=payment["id"],
        gateway="sslcommerz",
        amount=Money(amount, "BDT"),
        reason="changed their mind",
        requested_by="admin",
        created_at=now,
    )
    async with payments.core.database.transaction() as connection:
        assert await refund_store.insert_refund(connection, new)
        assert not await refund_store.insert_refund(connection, new), "repeated it is the same"
    return new.id


async def claim(payments: Payments, refund_id: str) -> None:
    async with payments.core.database.connection() as connection:
        claimed = await refund_store.claim_refund(connection, refund_id, payments.clock())
    assert claimed is not None


async def end_lease(payments: Payments) -> None:
    """Let the time of a lease pass."""
    await payments.sql("UPDATE refund SET leased_until = clock_timestamp() - interval '1 second'")


async def test_a_refund_whose_process_died_before_the_call_is_sent_by_another(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund_id = await insert(payments, paid)

    assert await payments.carry_out_refunds() == 1

    assert payments.gateway.given_back.keys() == {refund_id}
    assert (await payments.read(paid["id"]))["state"] == "refunded"


async def test_a_refund_whose_process_died_around_the_call_is_looked_up(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund_id = await insert(payments, paid)
    await claim(payments, refund_id)
    assert await payments.carry_out_refunds() == 0, "another has it"
    await end_lease(payments)

    assert await payments.carry_out_refunds() == 1

    assert payments.gateway.refund_calls == [], "it may have been sent: it is only asked about"
    assert ("look_up_refund", refund_id) in payments.gateway.questions
    assert (await payments.read_refund({"id": refund_id}))["state"] == "succeeded"


async def test_money_that_moved_before_the_process_died_moves_once(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund_id = await insert(payments, paid)
    async with payments.core.database.connection() as connection:
        refund = await refund_store.claim_refund(connection, refund_id, payments.clock())
        found = await payment_store.find_by_ids(connection, [paid["id"]])
    assert refund is not None
    await payments.gateway.refund(order_of(refund, found[paid["id"]], paid["gatewayReference"]))
    await end_lease(payments)

    assert await payments.carry_out_refunds() == 1

    assert len(payments.gateway.refund_calls) == 1
    assert payments.gateway.given_back.keys() == {refund_id}
    assert await returned(payments, paid) == (PRICE, 0)


async def test_a_request_that_was_cut_off_carries_on_when_it_is_repeated(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund_id = await insert(payments, paid, 40_000)
    wish = refunds.RefundWish(40_000, "changed their mind", "admin")

    refund = await refunds.request_refund(payments.runtime, paid["id"], refund_id, wish)

    assert (refund.id, refund.state) == (refund_id, "succeeded")
    assert await returned(payments, paid) == (40_000, 0)


async def test_a_process_that_stalls_past_its_lease_changes_nothing_when_it_goes_on(
    payments: Payments, paid: dict[str, Any], new_database: str, redis_url: str
) -> None:
    payments.gateway.is_answering.clear()
    stalled = asyncio.create_task(payments.refund(paid, amount=40_000))

    async def is_called() -> bool:
        return len(payments.gateway.refund_calls) == 1

    await eventually(is_called)
    await end_lease(payments)
    async with running_runtime(new_database, redis_url, payments.gateway, payments.clock) as other:
        (work,) = await refunds.take_up_refunds(other, 10)
        payments.gateway.is_answering.set()
        await work
    refund = await payments.read_refund(await stalled)

    assert refund["state"] == "succeeded"
    assert payments.gateway.given_back.keys() == {refund["id"]}
    assert await returned(payments, paid) == (40_000, 0)
    assert len(await payments.facts(PaymentRefunded)) == 1


async def test_a_call_cannot_leave_any_more_when_another_may_have_the_refund(
    payments: Payments, paid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How clients obey is tested with them."""
    seen = []

    async def refund(_order: RefundOrder) -> RefundOutcome:
        seen.append(is_too_late())
        now = time.monotonic() + refund_store.REFUND_LEASE_SECONDS - payments_timeout
        monkeypatch.setattr("shared.gateways.send_deadline.time.monotonic", lambda: now)
        seen.append(is_too_late())
        monkeypatch.undo()
        return Unknown("not_sent_in_time")

    payments_timeout = payments.runtime.settings.gateway_timeout_seconds
    monkeypatch.setattr(payments.gateway, "refund", refund)
    found = await payments.refund(paid)

    assert seen == [False, True]
    assert (found["state"], found["detail"]) == ("unknown", "not_sent_in_time")


async def test_two_workers_never_have_the_same_refund(
    payments: Payments, paid: dict[str, Any], new_database: str, redis_url: str
) -> None:
    ids = {await insert(payments, paid, 100) for _ in range(200)}
    async with running_runtime(new_database, redis_url, payments.gateway, payments.clock) as other:
        runtimes = (payments.runtime, other)
        while any(
            taken := await asyncio.gather(
                *(refunds.take_up_refunds(runtime, 7) for runtime in runtimes)
            )
        ):
            await asyncio.gather(*(work for works in taken for work in works))

    sent = [order.reference for order in payments.gateway.refund_calls]
    assert sorted(sent) == sorted(ids)
    assert await returned(payments, paid) == (20_000, 0)


async def test_a_gateway_that_is_paused_is_not_called_and_the_wait_is_told(
    payments: Payments, paid: dict[str, Any]
) -> None:
    controls = payments.runtime.flow.controls
    payments.runtime.flow.controls = replace(controls, paused={"all": "maintenance"})

    refund = await payments.refund(paid)

    assert (refund["state"], refund["detail"]) == ("requested", "paused:all")
    assert payments.gateway.refund_calls == []
    payments.clock.advance(7 * 86_400)
    assert await payments.carry_out_refunds() == 0
    payments.runtime.flow.controls = controls
    assert await payments.carry_out_refunds() == 1
    assert (await payments.read_refund(refund))["state"] == "succeeded"
    (order,) = payments.gateway.refund_calls
    assert order.started_at == payments.clock(), "what was never sent has no age"


async def test_while_a_breaker_is_open_refunds_wait_until_it_is_tried(
    payments: Payments, paid: dict[str, Any]
) -> None:
    until = payments.clock() + timedelta(seconds=60)
    view = BreakerView(BreakerState.OPEN, until=until, reason="breaker_open")
    payments.runtime.flow.controls = replace(
        payments.runtime.flow.controls, breakers={"sslcommerz": view}
    )

    refund = await payments.refund(paid)

    assert refund["state"] == "requested"
    assert refund["nextLookAt"] == "2026-01-05T12:01:00Z"
    assert payments.gateway.refund_calls == []


async def test_a_gateway_that_was_switched_off_is_waited_for(
    payments: Payments, paid: dict[str, Any]
) -> None:
    await insert(payments, paid)
    off = replace(payments.runtime, gateways={})

    await asyncio.gather(*await refunds.take_up_refunds(off, 10))
    waiting = (await payments.api.call("GET", "/api/refunds")).data["refunds"][0]
    payments.clock.advance(600)
    await payments.carry_out_refunds()

    assert (waiting["state"], waiting["detail"]) == ("requested", "gateway_is_off")
    assert (await payments.read_refund(waiting))["state"] == "succeeded"


async def test_a_refund_that_came_back_is_found_by_a_later_look(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund = await payments.refund(paid)
    payments.gateway.bounced.add(refund["id"])

    payments.clock.advance(SUCCEEDED_DELAYS[0].total_seconds())
    assert await payments.carry_out_refunds() == 1

    refund = await payments.read_refund(refund)
    assert (refund["state"], refund["detail"], refund["nextLookAt"]) == ("failed", "bounced", None)
    assert (await payments.read(paid["id"]))["state"] == "succeeded"
    assert (await payments.story(paid))[-1] == "refund_returned"
    (fact,) = await payments.facts(RefundReturned)
    assert (fact["refundId"], fact["amount"], fact["refundedTotal"]) == (refund["id"], PRICE, 0)
    assert await returned(payments, paid) == (0, 0)


async def test_a_notice_about_a_refunded_payment_lets_its_refunds_be_looked_at(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund = await payments.refund(paid, amount=100)
    payments.gateway.bounced.add(refund["id"])
    assert await payments.carry_out_refunds() == 0

    await payments.notify_of(paid, claim="other")
    assert await payments.carry_out_refunds() == 1

    assert (await payments.read_refund(refund))["state"] == "failed"


async def test_money_that_came_under_an_earlier_name_is_given_back_under_it(
    payments: Payments,
) -> None:
    payments.gateway.next_starts = [Unknown("timeout")]
    lost = await payments.post("key-1")
    assert lost.status == 502
    first = payments.gateway.orders[0].reference
    payment = (await payments.post("key-1")).data
    assert payment["gatewayReference"] != first, "a second attempt was made"
    charge = payments.gateway.charge(first)
    await payments.notify(notice_received(first, validation_id=charge.validation_id))

    await payments.refund(payment)

    assert [order.payment_reference for order in payments.gateway.refund_calls] == [first]


async def test_held_money_is_given_back_whole(payments: Payments) -> None:
    held = await paid_payment(payments, is_risky=True)
    part = await payments.try_refund(held, amount=100)

    refund = await payments.refund(held)

    assert (held["state"], part.status) == ("on_hold", 409)
    assert refund["state"] == "succeeded"
    assert (await payments.read(held["id"]))["state"] == "refunded"


async def test_money_that_differs_is_not_given_back_by_us(payments: Payments) -> None:
    held = await paid_payment(payments, amount=Money(1, "BDT"))

    assert (await payments.try_refund(held)).status == 409


@pytest.mark.parametrize(
    ("amount", "constraint"),
    [
        pytest.param(PRICE + 1, "refunds_within_amount", id="too much"),
        pytest.param(0, "refund_amount_check", id="nothing"),
    ],
)
async def test_the_database_refuses_what_the_code_did_not(
    payments: Payments, paid: dict[str, Any], amount: int, constraint: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        await payments.sql(
            "INSERT INTO refund (id, payment_id, gateway, amount, currency, state, reason,"
            " requested_by, next_look_at, created_at, updated_at)"
            " VALUES ('ref_1', $1, 'sslcommerz', $2, 'BDT', 'requested', 'x', 'x', $3, $3, $3)",
            paid["id"],
            amount,
            payments.clock(),
        )

    assert caught.value.constraint_name == constraint
    assert await returned(payments, paid) == (0, 0)


async def test_the_ledger_has_what_went_back(payments: Payments, paid: dict[str, Any]) -> None:
    refund = await payments.refund(paid, amount=40_000)
    payments.gateway.bounced.add(refund["id"])
    await payments.notify_of(paid, claim="other")
    await payments.carry_out_refunds()

    found = await payments.rows(
        "SELECT kind, occasion, debit, credit, amount FROM ledger_transfer"
        " WHERE payment_id = $1 AND kind LIKE 'refund%' ORDER BY kind",
        paid["id"],
    )
    assert [tuple(row) for row in found] == [
        ("refund", refund["id"], "refunds", "gateway:sslcommerz", 40_000),
        ("refund_returned", refund["id"], "gateway:sslcommerz", "refunds", 40_000),
    ]
