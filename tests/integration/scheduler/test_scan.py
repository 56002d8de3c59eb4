"""The scan: everything that is due is done once, most urgent first, whatever is wrong with one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from prometheus_client import REGISTRY

from services.scheduler.handlers import billing, scan, setting_aside
from services.scheduler.runtime import Runtime
from services.scheduler.store import due as due_store
from shared.contracts.priorities import Priority
from shared.contracts.scheduler import ChargeSubscription
from shared.errors import DatabaseUnavailableError
from tests.integration.scheduler.world import Scheduler, failed, running_runtime, succeeded
from tests.support.clocks import START, ManualClock
from tests.support.polling import eventually
from tests.support.subscriptions import Many, insert_plan, insert_subscriptions

DAY = timedelta(days=1)


@asynccontextmanager
async def connected(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "scheduler"})
    try:
        yield connection
    finally:
        await connection.close()


async def fill(service: Scheduler, count: int, **differently: Any) -> None:
    """Make subscriptions that are due now, a millisecond apart."""
    many = Many(START - timedelta(hours=1), START - 30 * DAY, timedelta(milliseconds=1))
    async with service.core.database.connection() as connection:
        await insert_plan(connection)
        await insert_subscriptions(connection, replace(many, **differently), 1, count)


async def test_what_is_due_is_done_in_batches_until_nothing_is_due(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BATCH_SIZE", 50)
    await fill(service, 320)

    assert await scan.scan(service.runtime) == 320
    assert await scan.scan(service.runtime) == 0

    orders = await service.orders()
    assert len(orders) == len({order.subscription_id for order in orders}) == 320
    assert await service.sql("SELECT count(*) FROM billing_cycle WHERE state = 'charging'") == 320
    assert await service.sql("SELECT count(*) FROM job WHERE status = 'waiting'") == 320


async def test_orders_are_published_when_they_are_committed(service: Scheduler) -> None:
    await fill(service, 3)
    await scan.scan(service.runtime)

    assert await service.core.redis.llen("{sluice.payments}:payments.charges") == 1


async def test_the_most_urgent_go_first_and_the_others_get_their_share(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BATCH_SIZE", 100)
    monkeypatch.setattr(scan, "LANES", 1)
    await fill(service, 200, priority="normal", first_due_at=START - DAY)
    async with service.core.database.connection() as connection:
        high = Many(START - timedelta(hours=1), START - 29 * DAY, priority="high")
        await insert_subscriptions(connection, high, 1_001, 200)

    await scan.scan(service.runtime)

    found = await service.rows(
        "SELECT priority FROM outbox JOIN subscription"
        "    ON subscription.id = outbox.payload->>'subscriptionId' ORDER BY outbox.id"
    )
    batches = [Counter(row["priority"] for row in found[at : at + 90]) for at in (0, 90)]
    assert batches == [{"high": 80, "normal": 10}, {"high": 80, "normal": 10}]
    assert len(found) == 400


async def test_a_charge_in_flight_is_left_alone_until_payments_has_said_what_became_of_it(
    service: Scheduler,
) -> None:
    plan = await service.plan(interval={"unit": "day", "count": 1})
    subscription = await service.subscribe(plan)
    await scan.scan(service.runtime)
    (order,) = await service.orders()

    service.clock.now += 5 * DAY
    await scan.scan(service.runtime)
    assert await service.orders() == []

    await service.hear(succeeded(order))
    await scan.scan(service.runtime)
    (order,) = await service.orders()
    assert order.period_start == START + 5 * DAY
    cycles = await service.cycles(subscription)
    assert [(each["state"], each["periods"]) for each in cycles] == [
        ("paid", 1),
        ("skipped", 4),
        ("charging", 1),
    ]


@pytest.mark.parametrize(
    ("policy", "cap", "expected"),
    [
        ("current", 12, [("paid", 1), ("skipped", 3), ("paid", 1)]),
        ("every", 12, [("paid", 1), ("paid", 1), ("paid", 1), ("paid", 1), ("paid", 1)]),
        ("every", 2, [("paid", 1), ("skipped", 2), ("paid", 1), ("paid", 1)]),
        ("ask", 12, [("paid", 1)]),
    ],
)
async def test_after_a_downtime_the_policy_says_which_periods_are_billed(
    service: Scheduler, policy: str, cap: int, expected: list[tuple[str, int]]
) -> None:
    """A day without any scheduler, in periods of six hours."""
    plan = await service.plan(
        interval={"unit": "hour", "count": 6}, catchUp={"policy": policy, "periodsMax": cap}
    )
    subscription = await service.subscribe(plan)

    async def scan_and_pay() -> None:
        while await scan.scan(service.runtime):
            orders = await service.orders()
            assert len(orders) <= 1, "one charge at a time"
            if orders:
                await service.hear(succeeded(orders[0]))

    await scan_and_pay()
    service.clock.now += DAY
    await scan_and_pay()

    cycles = await service.cycles(subscription)
    assert [(each["state"], each["periods"]) for each in cycles] == expected
    shown = await service.read(subscription)
    assert (shown["attention"] == "catch_up_asked") == (policy == "ask")
    for one, following in pairwise(cycles):
        assert one["period_end"] == following["period_start"]


async def test_dunning_and_the_end_of_access_come_in_their_time(service: Scheduler) -> None:
    subscription = await service.subscribe(await service.plan())
    await scan.scan(service.runtime)
    (order,) = await service.orders()
    await service.hear(failed(order))

    events = {}
    for hour in range(24 * 12):
        service.clock.now = START + timedelta(hours=hour)
        await scan.scan(service.runtime)
        for order in await service.orders():
            if isinstance(order, ChargeSubscription):
                events[hour] = "charged"
                await service.hear(failed(order))

    assert events == {24: "charged", 72: "charged", 168: "charged"}
    assert (await service.read(subscription))["state"] == "cancelled"


async def test_the_loop_wakes_at_the_due_time_however_long_its_interval(
    new_database: str, redis_url: str
) -> None:
    clock = ManualClock()
    async with (
        running_runtime(new_database, redis_url, clock) as runtime,
        connected(new_database) as connection,
    ):
        assert runtime.settings.scheduler_interval == timedelta(minutes=5)
        await insert_plan(connection)
        loop = asyncio.create_task(scan.scan_for_ever(runtime))
        try:
            many = Many(START + timedelta(seconds=90), START - DAY)
            await insert_subscriptions(connection, many, 1, 5)

            async def is_billed() -> bool:
                billed = await connection.fetchval("SELECT count(*) FROM billing_cycle")
                assert billed == 0 or clock.now > START + timedelta(seconds=60)
                return bool(billed == 5)

            clock.advance(60)
            assert not await is_billed()
            clock.advance(30)
            await eventually(is_billed)
        finally:
            loop.cancel()


async def test_one_that_cannot_be_decided_is_set_aside_and_the_others_are_billed(
    service: Scheduler,
) -> None:
    before = REGISTRY.get_sample_value("scheduler_set_aside_total") or 0
    await fill(service, 300)
    ids = [row["id"] for row in await service.rows("SELECT id FROM subscription ORDER BY id")]
    await service.rows("UPDATE subscription SET zone = 'Nowhere/Here' WHERE id = $1", ids[17])
    # As if this period were billed: the primary key refuses a second time.
    await service.rows(
        "INSERT INTO billing_cycle (subscription_id, period_start, period_end, number, state,"
        "                           payment_id, plan_id, amount, currency, opened_at)"
        "SELECT id, period_end, period_end + interval '1 day', 1, 'charging', 'pay_x', plan_id, 1,"
        "       'USD', now() FROM subscription WHERE id = $1",
        ids[200],
    )

    await scan.scan(service.runtime)

    orders = await service.orders()
    assert {order.subscription_id for order in orders} == set(ids) - {ids[17], ids[200]}
    aside = await service.rows("SELECT id, problem FROM subscription WHERE problem IS NOT NULL")
    assert {row["id"] for row in aside} == {ids[17], ids[200]}
    problems = {row["id"]: row["problem"] for row in aside}
    assert "Nowhere/Here" in problems[ids[17]]
    assert problems[ids[200]].startswith("UniqueViolationError")
    assert (REGISTRY.get_sample_value("scheduler_set_aside_total") or 0) - before == 2
    listed = await service.api.call("GET", "/api/subscriptions?attention=set_aside", key="reader")
    assert {each["id"] for each in listed.data["subscriptions"]} == {ids[17], ids[200]}


async def test_what_is_set_aside_is_billed_when_an_operator_clears_it(service: Scheduler) -> None:
    subscription = await service.subscribe(await service.plan())
    await service.rows("UPDATE subscription SET zone = 'Nowhere/Here'")
    service.clock.now += timedelta(seconds=1)
    await scan.scan(service.runtime)
    assert (await service.read(subscription))["attention"] == "set_aside"
    path = f"/api/subscriptions/{subscription['id']}/clear-problem"
    refused = await service.api.call("POST", path, key="writer")
    again = await service.api.call("POST", path, key="admin")
    assert (refused.status, again.status) == (403, 200)

    await scan.scan(service.runtime)
    assert (await service.read(subscription))["attention"] == "set_aside"

    await service.rows("UPDATE subscription SET zone = 'UTC'")
    cleared = await service.api.call("POST", path, key="admin")
    twice = await service.api.call("POST", path, key="admin")
    await scan.scan(service.runtime)

    assert cleared.data["attention"] is None
    assert (twice.status, twice.error["details"]["reason"]) == (409, "not_set_aside")
    assert len(await service.orders()) == 1
    assert (await service.story(subscription))[-2:] == ["problem_cleared", "period_opened"]
    assert (await service.story(subscription)).count("set_aside") == 2


async def test_when_nearly_all_fail_it_is_not_their_fault(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setting_aside, "SET_ASIDE_MAX", 10)
    await fill(service, 60)
    await service.rows("UPDATE subscription SET zone = 'Nowhere/Here'")

    with pytest.raises(setting_aside.ScanGivesUpError):
        await scan.scan(service.runtime)

    assert await service.sql("SELECT count(*) FROM subscription WHERE problem IS NOT NULL") == 10


async def test_nothing_is_set_aside_for_what_the_server_does(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(service, 5)

    for error in (asyncpg.UndefinedTableError("not migrated"), DatabaseUnavailableError("away")):

        async def fail(*_arguments: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(scan, "do_what_is_due", fail)
        with pytest.raises(type(error)):
            await scan.scan(service.runtime)

    monkeypatch.setattr(scan, "do_what_is_due", billing.do_what_is_due)
    assert await scan.scan(service.runtime) == 5


async def test_orders_of_all_scans_together_keep_their_pace(
    new_database: str, redis_url: str
) -> None:
    clock = ManualClock()
    pace = {"scheduler_orders_per_second": 200}
    async with (
        running_runtime(new_database, redis_url, clock, **pace) as first,
        running_runtime(new_database, redis_url, clock, **pace) as second,
        connected(new_database) as connection,
    ):
        await insert_plan(connection)
        many = Many(START - DAY, START - 30 * DAY, timedelta(milliseconds=1))
        await insert_subscriptions(connection, many, 1, 700)
        begun = asyncio.get_running_loop().time()
        taken = await asyncio.gather(scan.scan(first), scan.scan(second))
        seconds = asyncio.get_running_loop().time() - begun

    assert sum(taken) == 700
    # What a second allows is there at once, the rest comes at the pace.
    assert seconds > (700 - 200) / 200 - 0.2


async def test_due_and_set_aside_are_measured(service: Scheduler) -> None:
    await fill(service, 12)
    await service.rows(
        "UPDATE subscription SET problem = 'x' WHERE id IN (SELECT id FROM subscription LIMIT 2)"
    )
    await scan.measure(service.runtime)

    def value(name: str) -> float | None:
        return REGISTRY.get_sample_value(name)

    assert value("scheduler_due_subscriptions") == 10
    assert value("scheduler_set_aside_subscriptions") == 2
    assert 3_590 < (value("scheduler_due_age_seconds") or 0) <= 3_600


async def test_the_claim_reads_the_index_of_what_is_due(service: Scheduler) -> None:
    await fill(service, 50)
    arguments = (str(Priority.MEDIUM), due_store.LONG_AGO, START, 10)
    plan = await explained(service.runtime, due_store.CLAIM, *arguments)

    assert "Index Scan using subscription_due" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan


async def explained(runtime: Runtime, statement: str, *arguments: Any) -> str:
    async with runtime.core.database.connection() as connection:
        await connection.execute("SET LOCAL enable_seqscan = on")
        rows = await connection.fetch(f"EXPLAIN {statement}", *arguments)
    return "\n".join(row[0] for row in rows)
