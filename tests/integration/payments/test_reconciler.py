"""The reconciler: finds what no notice told, once, on a schedule, until the payment expires."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime, timedelta

import pytest

from services.payments.domain.check_schedule import POLL_DELAYS
from services.payments.handlers import reconciler
from services.payments.store.looks import CHECK_LEASE_SECONDS
from shared.gateways.interface import Order, Outcome
from tests.integration.payments.world import (
    Payments,
    look_at_due,
    running_payments,
    running_runtime,
)
from tests.support.polling import eventually
from tests.support.tcp_proxy import proxied


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def until_due(payments: Payments, payment_id: str) -> None:
    """Move the clock to the next look."""
    payments.clock.now = moment((await payments.read(payment_id))["nextCheckAt"])


async def test_a_payment_whose_notice_never_comes_is_found_after_thirty_seconds(
    payments: Payments,
) -> None:
    payment = await payments.create()
    payments.gateway.charge(payment["gatewayReference"])
    payments.clock.advance(29.9)
    assert await payments.look() == 0
    payments.clock.advance(0.1)
    assert await payments.look() == 1

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert payments.gateway.questions == [("look_up", payment["gatewayReference"])]
    (announced,) = await payments.announcements()
    assert moment(announced["noticedAt"]) == payments.clock()


async def test_a_customer_who_never_comes_is_looked_for_ever_more_rarely_until_the_payment_expires(
    payments: Payments,
) -> None:
    payment = await payments.create()
    created = payments.clock()
    gaps = []
    while (now := await payments.read(payment["id"]))["state"] == "pending":
        gaps.append(moment(now["nextCheckAt"]) - payments.clock())
        await until_due(payments, payment["id"])
        assert await payments.look() == 1

    assert tuple(gaps[: len(POLL_DELAYS)]) == POLL_DELAYS
    assert set(gaps[len(POLL_DELAYS) :]) == {POLL_DELAYS[-1]}
    assert (now["state"], now["reason"], now["nextCheckAt"]) == ("failed", "never_attempted", None)
    assert timedelta(hours=24) <= payments.clock() - created <= timedelta(hours=25)
    payments.clock.advance(86_400)
    assert await payments.look() == 0


async def test_a_declined_payment_is_looked_at_until_it_expires_and_its_money_found(
    payments: Payments,
) -> None:
    declined, forgotten = await payments.create(), await payments.create()
    for payment in (declined, forgotten):
        payments.gateway.decline(payment["gatewayReference"])
        await payments.notify_of(payment, claim="failed", validation_id="")
    payments.gateway.charge(declined["gatewayReference"])

    for _ in range(60):
        due = await payments.sql("SELECT min(next_check_at) FROM payment")
        if due is None:
            break
        payments.clock.now = due
        await payments.look()

    assert (await payments.read(declined["id"]))["state"] == "succeeded"
    assert (await payments.read(forgotten["id"]))["state"] == "failed"
    assert payments.clock() >= moment(forgotten["expiresAt"])


async def test_two_processes_look_at_each_due_payment_once(
    new_database: str, redis_url: str
) -> None:
    async with running_payments(new_database, redis_url) as payments:
        created = await asyncio.gather(*(payments.create() for _ in range(40)))
        for payment in created[:20]:
            payments.gateway.charge(payment["gatewayReference"])
        payments.clock.advance(30)
        async with running_runtime(
            new_database, redis_url, payments.gateway, payments.clock
        ) as second:
            counts = await asyncio.gather(
                *(
                    look_at_due(runtime)
                    for runtime in (payments.runtime, second, payments.runtime, second)
                )
            )

        assert sum(counts) == 40
        looks = Counter(reference for _, reference in payments.gateway.questions)
        assert set(looks.values()) == {1}
        assert len(looks) == 40
        states = await payments.rows("SELECT state, count(*) FROM payment GROUP BY state")
        assert dict(map(tuple, states)) == {"succeeded": 20, "pending": 20}
        assert len(await payments.announcements()) == 20


async def test_a_look_that_a_killed_process_began_is_repeated_when_its_lease_is_over(
    new_database: str, redis_url: str
) -> None:
    async with running_payments(new_database, redis_url) as payments:
        payment = await payments.create()
        payments.gateway.charge(payment["gatewayReference"])
        payments.clock.advance(30)
        answering = payments.gateway.is_answering
        payments.gateway.is_answering = asyncio.Event()
        killed = asyncio.create_task(payments.look())

        async def asked() -> bool:
            return bool(payments.gateway.questions)

        await eventually(asked)
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        payments.gateway.is_answering = answering
        lease = await payments.sql(
            "SELECT extract(epoch FROM check_leased_until - clock_timestamp())::float FROM payment"
        )
        assert lease == pytest.approx(CHECK_LEASE_SECONDS, abs=5)
        assert await payments.look() == 0, "it might still be alive"

        await payments.sql("UPDATE payment SET check_leased_until = clock_timestamp()")
        assert await payments.look() == 1
        assert (await payments.read(payment["id"]))["state"] == "succeeded"
        assert await payments.sql("SELECT check_leased_until FROM payment") is None


async def test_a_notice_during_a_look_and_the_look_make_one_success(payments: Payments) -> None:
    payment = await payments.create()
    charge = payments.gateway.charge(payment["gatewayReference"])
    payments.clock.advance(30)
    payments.gateway.is_answering.clear()
    looking = asyncio.create_task(payments.look())
    delivering = asyncio.create_task(
        payments.notify_of(payment, validation_id=charge.validation_id)
    )

    async def both_asked() -> bool:
        return len(payments.gateway.questions) == 2

    await eventually(both_asked)
    payments.gateway.is_answering.set()
    await asyncio.gather(looking, delivering)

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(await payments.announcements()) == 1
    assert (await payments.story(payment)).count("confirmed") == 1


async def test_a_slow_answer_that_says_less_does_not_undo_what_was_found_meanwhile(
    new_database: str, redis_url: str
) -> None:
    """The look began before the customer paid; its old verdict arrives after the success."""
    async with running_payments(new_database, redis_url) as payments:
        payment = await payments.create()
        payments.gateway.decline(payment["gatewayReference"])
        payments.clock.advance(30)
        look_up = payments.gateway.look_up
        go_on = asyncio.Event()

        async def look_up_slowly(order: Order) -> Outcome:
            verdict = await look_up(order)
            await go_on.wait()
            return verdict

        payments.gateway.look_up = look_up_slowly  # type: ignore[method-assign]
        looking = asyncio.create_task(payments.look())

        async def asked() -> bool:
            return bool(payments.gateway.questions)

        await eventually(asked)
        await payments.paid(payment)
        go_on.set()
        await looking

        assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_the_running_reconciler_outlives_an_outage_of_postgresql(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "RECONCILE_INTERVAL_SECONDS", 0.02)
    async with (
        proxied(new_database) as (proxy, url),
        running_payments(url, redis_url) as payments,
    ):
        payment = await payments.create()
        payments.gateway.charge(payment["gatewayReference"])
        await proxy.cut()
        running = asyncio.create_task(reconciler.reconcile(payments.runtime))
        payments.clock.advance(30)
        assert not await payments.core.database.ping()
        assert not running.done()
        await proxy.mend()

        async def has_succeeded() -> bool:
            reply = await payments.api.call("GET", f"/api/payments/{payment['id']}")
            return reply.status == 200 and reply.data["state"] == "succeeded"

        await eventually(has_succeeded)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
