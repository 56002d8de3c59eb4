"""A test clock is a ceiling: what is due until then happens in order, as if time had passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from services.scheduler.handlers.clock_scan import follow_clocks
from services.scheduler.store import test_clocks as clock_store
from shared.contracts.base import Message
from shared.contracts.scheduler import ChargeSubscription, RetryCharge
from tests.integration.scheduler.world import (
    Scheduler,
    failed,
    running_runtime,
    succeeded,
)
from tests.support.http_api import Reply

NEW_YEAR = datetime(2024, 1, 31, 9, tzinfo=UTC)
DAY = timedelta(days=1)


def text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


async def a_clock(service: Scheduler, now: datetime = NEW_YEAR) -> str:
    made = await service.made("/api/test-clocks", {"name": "a year", "now": text(now)})
    return str(made["id"])


async def tell(service: Scheduler, clock: str, what: str, **body: Any) -> Reply:
    return await service.api.call("POST", f"/api/test-clocks/{clock}/{what}", body or None)


async def shown(service: Scheduler, clock: str) -> Any:
    return (await service.api.call("GET", f"/api/test-clocks/{clock}")).data


async def advance(service: Scheduler, clock: str, to: datetime) -> None:
    assert (await tell(service, clock, "advance", to=text(to))).status == 202


async def live(
    service: Scheduler, answer: Callable[[ChargeSubscription], Message] = succeeded
) -> int:
    """Let clocks and payments go on until nothing happens any more; return how many charges."""
    charges = 0
    while True:
        await follow_clocks(service.runtime)
        orders = [each for each in await service.orders() if isinstance(each, ChargeSubscription)]
        if not orders:
            await follow_clocks(service.runtime)
            return charges
        charges += len(orders)
        await service.hear(*(answer(order) for order in orders))


async def test_a_year_passes_in_order(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(), testClockId=clock)

    await advance(service, clock, NEW_YEAR + 365 * DAY)
    charges = await live(service)

    starts = [each["period_start"] for each in await service.cycles(mine)]
    assert [(each.month, each.day) for each in starts] == [
        *[(1, 31), (2, 29), (3, 31), (4, 30), (5, 31), (6, 30)],
        *[(7, 31), (8, 31), (9, 30), (10, 31), (11, 30), (12, 31)],
    ]
    assert charges == 12
    told = await service.rows("SELECT at FROM subscription_history WHERE event = 'period_opened'")
    assert [each["at"] for each in told] == starts
    assert (await shown(service, clock))["state"] == "ready"
    assert (await service.read(mine))["state"] == "active"


async def test_the_real_time_passes_it_by(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(), testClockId=clock)
    await live(service)

    service.clock.advance(400 * 86_400)

    assert await service.bill_due() == 0
    assert await live(service) == 0
    assert len(await service.cycles(mine)) == 1


async def test_time_stands_still_while_a_charge_is_at_the_gateway(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(graceDays=0), testClockId=clock)

    await advance(service, clock, NEW_YEAR + 100 * DAY)
    await follow_clocks(service.runtime)
    (order,) = await service.orders()
    for _ in range(3):
        await follow_clocks(service.runtime)

    assert await service.orders() == []
    view = await shown(service, clock)
    assert view["state"] == "advancing"
    assert view["progress"]["charging"] == 1
    assert view["waitingFor"] == [
        {
            "subscriptionId": mine["id"],
            "jobId": f"job_{order.payment_id[4:]}",
            "paymentId": order.payment_id,
            "since": text(NEW_YEAR),
        }
    ]
    await service.hear(succeeded(order))
    assert await live(service) == 3
    assert (await shown(service, clock))["waitingFor"] == []


async def test_a_retry_waits_for_its_time_on_the_clock(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(), testClockId=clock)
    await follow_clocks(service.runtime)
    (order,) = await service.orders()
    await service.hear(failed(order, retry_after_seconds=86_400, waits_for_order=True))

    await advance(service, clock, NEW_YEAR + DAY / 2)
    assert await live(service) == 0
    assert (await shown(service, clock))["state"] == "ready"
    assert (await service.read(mine))["state"] == "past_due"

    await advance(service, clock, NEW_YEAR + 2 * DAY)
    await follow_clocks(service.runtime)
    assert await service.orders() == [
        RetryCharge(payment_id=order.payment_id, subscription_id=mine["id"])
    ]
    assert (await shown(service, clock))["waitingFor"][0]["since"] == text(NEW_YEAR + DAY)
    await service.hear(succeeded(order, attempts_made=2))
    assert await live(service) == 0
    assert (await service.cycles(mine))[0]["paid_at"] == NEW_YEAR + DAY
    assert (await shown(service, clock))["state"] == "ready"


async def test_what_is_never_paid_ends_by_dunning_on_its_days(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(), testClockId=clock)

    await advance(service, clock, NEW_YEAR + 300 * DAY)

    assert await live(service, failed) == 4
    jobs = await service.jobs(mine)
    assert sorted((each["ordered_at"] - NEW_YEAR).days for each in jobs) == [0, 1, 3, 7]
    view = await service.read(mine)
    assert (view["state"], view["reason"]) == ("cancelled", "dunning_over")
    assert (await shown(service, clock))["state"] == "ready"


async def test_a_clock_does_not_go_back(service: Scheduler) -> None:
    clock = await a_clock(service)

    reply = await tell(service, clock, "advance", to=text(NEW_YEAR - DAY))

    assert reply.status == 400
    assert reply.error["details"].keys() == {"to"}
    for year in (1899, 8001):
        reply = await tell(service, clock, "advance", to=text(NEW_YEAR.replace(year=year, day=1)))
        assert reply.error["details"].keys() == {"to"}
    assert (await shown(service, clock))["now"] == text(NEW_YEAR)


async def test_a_clock_goes_as_far_as_one_likes(service: Scheduler) -> None:
    clock = await a_clock(service)
    plan = await service.plan(interval={"unit": "year", "count": 100})
    mine = await service.subscribe(plan, testClockId=clock)

    await advance(service, clock, datetime(2999, 12, 31, tzinfo=UTC))

    assert await live(service) == 10
    assert (await service.cycles(mine))[-1]["period_start"] == NEW_YEAR.replace(year=2924)


async def test_a_clock_may_run_and_be_frozen(service: Scheduler) -> None:
    clock = await a_clock(service)
    plan = await service.plan(interval={"unit": "minute", "count": 1})
    mine = await service.subscribe(plan, testClockId=clock)

    assert (await tell(service, clock, "run")).data["state"] == "running"
    service.clock.advance(150)
    assert await live(service) == 3
    assert (await tell(service, clock, "freeze")).data["now"] == text(
        NEW_YEAR + timedelta(seconds=150)
    )
    service.clock.advance(1_000)

    assert await live(service) == 0
    assert len(await service.cycles(mine)) == 3
    assert (await shown(service, clock))["state"] == "ready"


async def test_a_customer_is_attached_with_what_comes_later(service: Scheduler) -> None:
    plan = await service.plan(trial={"unit": "day", "count": 10})
    before = await service.subscribe(plan)
    clock = await a_clock(service, service.clock())

    reply = await tell(service, clock, "attach", customerId="cus_1")
    after = await service.subscribe(plan)
    other = await service.subscribe(plan, customerId="cus_2")

    assert reply.data["progress"]["subscriptions"] == 1
    views = [await service.read(each) for each in (before, after, other)]
    assert [each["testClockId"] for each in views] == [clock, clock, None]
    await advance(service, clock, service.clock() + 11 * DAY)
    assert await live(service) == 2
    assert (await tell(service, clock, "attach", customerId="cus_1")).status == 200


async def test_one_subscription_is_attached_alone(service: Scheduler) -> None:
    plan = await service.plan(trial={"unit": "day", "count": 10})
    one, two = await service.subscribe(plan), await service.subscribe(plan)
    clock = await a_clock(service, service.clock() + DAY)

    assert (await tell(service, clock, "attach", subscriptionId=one["id"])).status == 200

    assert [(await service.read(each))["testClockId"] for each in (one, two)] == [clock, None]
    assert await service.story(one) == ["created", "attached_to_test_clock"]


async def test_a_subscription_is_not_attached_where_its_time_would_be_wrong(
    service: Scheduler,
) -> None:
    mine = await service.subscribe(await service.plan())
    late = await a_clock(service, service.clock() + DAY)
    early = await a_clock(service, service.clock() - DAY)

    async def refusal(clock: str) -> Any:
        reply = await tell(service, clock, "attach", subscriptionId=mine["id"])
        return reply.status, reply.error["details"].get("reason")

    assert await refusal(early) == (409, "clock_is_behind")
    await service.bill_due()
    assert await refusal(late) == (409, "charge_unresolved")
    await service.hear(*(succeeded(order) for order in await service.orders()))
    assert (await tell(service, late, "attach", subscriptionId=mine["id"])).status == 200
    assert await refusal(early) == (409, "is_on_another_clock")
    unknown = await tell(service, late, "attach", subscriptionId="sub_unknown")
    assert unknown.error["details"].keys() == {"subscriptionId"}
    both = await tell(service, late, "attach", subscriptionId=mine["id"], customerId="cus_1")
    assert both.status == 400


async def test_a_customer_is_on_one_clock(service: Scheduler) -> None:
    first, second = await a_clock(service), await a_clock(service)
    await tell(service, first, "attach", customerId="cus_1")

    reply = await tell(service, second, "attach", customerId="cus_1")

    assert (reply.status, reply.error["details"]["reason"]) == (409, "is_on_another_clock")


async def test_a_removed_clock_takes_its_subscriptions_along(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(), testClockId=clock)
    await follow_clocks(service.runtime)

    reply = await service.api.call("DELETE", f"/api/test-clocks/{clock}")

    assert reply.data["state"] == "removed"
    assert (await service.read(mine))["state"] == "cancelled"
    assert "CancelCharge" in {type(each).__name__ for each in await service.orders()}
    assert (await tell(service, clock, "advance", to=text(NEW_YEAR + DAY))).status == 409
    assert (await service.api.call("DELETE", f"/api/test-clocks/{clock}")).status == 200


async def test_who_acts_waits_until_the_clock_is_there(service: Scheduler) -> None:
    clock = await a_clock(service)
    mine = await service.subscribe(await service.plan(), testClockId=clock)
    await live(service)
    await advance(service, clock, NEW_YEAR + 40 * DAY)

    reply = await service.ask(mine, "pause")
    assert (reply.status, reply.error["details"]["reason"]) == (409, "clock_is_advancing")

    await follow_clocks(service.runtime)  # Its charge is at the gateway: time stands still.
    assert (await service.ask(mine, "cancel")).status == 200
    ended = (await service.rows("SELECT max(at) AS at FROM subscription_history"))[0]["at"]
    assert ended == datetime(2024, 2, 29, 9, tzinfo=UTC)


async def test_clocks_are_listed_newest_first(service: Scheduler) -> None:
    clocks = []
    for _ in range(3):
        clocks.append(await a_clock(service))
        service.clock.advance(1)

    first = (await service.api.call("GET", "/api/test-clocks?limit=2")).data
    cursor = first["nextCursor"]
    rest = (await service.api.call("GET", f"/api/test-clocks?limit=2&cursor={cursor}")).data

    found = [each["id"] for page in (first, rest) for each in page["testClocks"]]
    assert found == clocks[::-1]
    assert rest["nextCursor"] is None
    assert (await service.api.call("GET", "/api/test-clocks/clk_unknown")).status == 404


async def test_a_clock_is_not_ready_while_somebody_writes(service: Scheduler) -> None:
    clock = await a_clock(service)
    await advance(service, clock, NEW_YEAR + DAY)

    async with service.core.database.transaction() as connection:
        await clock_store.set_going(connection, [clock])
        await follow_clocks(service.runtime)
        assert (await shown(service, clock))["state"] == "advancing"
    await follow_clocks(service.runtime)

    assert (await shown(service, clock))["state"] == "ready"


async def test_a_clock_that_is_advanced_during_a_scan_is_not_ready(service: Scheduler) -> None:
    clock = await a_clock(service)
    await service.subscribe(await service.plan(), testClockId=clock)
    await live(service)
    await advance(service, clock, NEW_YEAR + DAY)

    async with service.core.database.transaction() as connection:
        (found,) = await clock_store.find_going(connection)
        await advance(service, clock, NEW_YEAR + 40 * DAY)
        await clock_store.set_ready(connection, found.id, service.clock())

    assert (await shown(service, clock))["state"] == "advancing"


async def test_two_scans_do_everything_once(
    service: Scheduler, new_database: str, redis_url: str
) -> None:
    clock = await a_clock(service)
    plan = await service.plan()
    for _ in range(20):
        await service.subscribe(plan, testClockId=clock)

    async with running_runtime(new_database, redis_url, service.clock) as second:
        await asyncio.gather(follow_clocks(service.runtime), follow_clocks(second))

    assert len(await service.orders()) == 20


async def test_what_cannot_be_done_is_set_aside_alone(service: Scheduler) -> None:
    clock = await a_clock(service)
    plan = await service.plan()
    good, bad = [await service.subscribe(plan, testClockId=clock) for _ in range(2)]
    await service.sql(
        """
        INSERT INTO billing_cycle (subscription_id, period_start, period_end, number, state,
                                   plan_id, amount, currency, opened_at)
        VALUES ($1, $2, $3, 0, 'unpaid', $4, 1, 'EUR', $2)
        """,
        *(bad["id"], NEW_YEAR, NEW_YEAR + DAY, plan["id"]),
    )

    assert await live(service) == 1

    assert (await service.read(good))["state"] == "active"
    assert (await service.read(bad))["problem"] is not None
    view = await shown(service, clock)
    assert (view["state"], view["progress"]["setAside"]) == ("ready", 1)
