"""Subscriptions on test clocks, as users make and change them."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.handlers.clock_scan import follow_clocks
from shared.contracts.scheduler import CancelCharge
from tests.integration.scheduler.test_test_clocks import DAY, NEW_YEAR, a_clock, advance, live, text
from tests.integration.scheduler.world import Scheduler, failed, succeeded

#: In real time the tests begin in 2026; the clock stands in 2024.
MONTH = 31 * DAY


@pytest.fixture
async def clock(service: Scheduler) -> str:
    return await a_clock(service)


async def on_clock(service: Scheduler, clock: str, **changes: Any) -> dict[str, Any]:
    return await service.subscribe(await service.plan(), testClockId=clock, **changes)


async def test_it_begins_when_its_clock_says(service: Scheduler, clock: str) -> None:
    made = await on_clock(service, clock)

    assert made["testClockId"] == clock
    assert made["startAt"] == made["asOf"] == text(NEW_YEAR)
    assert await service.bill_due() == 0, "real time does not pass for it"
    assert await live(service) == 1
    assert (await service.read(made))["currentPeriod"]["end"] == "2024-02-29T09:00:00Z"


async def test_it_may_begin_long_before_its_clock_and_catches_up(
    service: Scheduler, clock: str
) -> None:
    made = await on_clock(service, clock, startAt="2021-01-31T09:00:00Z")

    assert made["asOf"] == "2021-01-31T09:00:00Z"
    assert await live(service) == 37

    cycles = await service.cycles(made)
    assert {cycle["state"] for cycle in cycles} == {"paid"}
    shown = await service.read(made)
    assert (shown["asOf"], shown["nextDueAt"]) == (text(NEW_YEAR), "2024-02-29T09:00:00Z")


async def test_new_subscriptions_of_a_customer_are_on_the_customers_clock(
    service: Scheduler, clock: str
) -> None:
    path = f"/api/test-clocks/{clock}/attach"
    assert (await service.api.call("POST", path, {"customerId": "cus_1"})).status == 200
    plan, other = await service.plan(), await a_clock(service)

    made = await service.subscribe(plan)
    body = {"customerId": "cus_1", "planId": plan["id"], "testClockId": other}
    refused = await service.api.call("POST", "/api/subscriptions", body)

    assert made["testClockId"] == clock
    assert (refused.status, refused.error["details"]["field"]) == (409, "testClockId")


async def test_a_removed_clock_takes_nobody_new(service: Scheduler, clock: str) -> None:
    await service.api.call("DELETE", f"/api/test-clocks/{clock}")
    plan = await service.plan()

    body = {"customerId": "cus_1", "planId": plan["id"], "testClockId": clock}
    reply = await service.api.call("POST", "/api/subscriptions", body)

    assert (reply.status, reply.error["details"]["field"]) == (409, "testClockId")


async def test_what_is_done_happens_at_the_time_of_the_clock(
    service: Scheduler, clock: str
) -> None:
    made = await on_clock(service, clock)
    await live(service)
    await advance(service, clock, NEW_YEAR + 10 * DAY)
    await live(service)

    paused = (await service.ask(made, "pause")).data

    assert paused["asOf"] == text(NEW_YEAR + 10 * DAY)
    events = await service.api.call("GET", f"/api/subscriptions/{made['id']}/history?limit=1")
    assert events.data["events"][0]["at"] == text(NEW_YEAR + 10 * DAY)


async def test_nothing_is_done_while_it_is_on_its_way(service: Scheduler, clock: str) -> None:
    made = await on_clock(service, clock)
    await live(service)
    await advance(service, clock, NEW_YEAR + 3 * MONTH)

    for what in ("pause", "cancel", "trigger-payment"):
        reply = await service.ask(made, what)
        assert (reply.status, reply.error["details"]["reason"]) == (409, "clock_is_advancing")
    assert (await service.change(made, autoPay=False)).status == 409
    assert (await service.change(made, metadata={"a": "b"})).status == 200

    assert await live(service) == 3
    assert (await service.ask(made, "pause")).status == 200


async def test_a_change_of_several_things_happens_at_one_time(
    service: Scheduler, clock: str
) -> None:
    made = await on_clock(service, clock)
    await live(service)
    await advance(service, clock, NEW_YEAR + 10 * DAY)
    await live(service)
    dearer = await service.plan(amount=1_990)

    changes = {"planId": dearer["id"], "autoPay": False, "cancelAtPeriodEnd": True}
    changed = (await service.change(made, **changes)).data

    assert changed["asOf"] == text(NEW_YEAR + 10 * DAY)
    assert (changed["nextPlanId"], changed["autoPay"]) == (dearer["id"], False)


async def test_a_charge_in_flight_is_cancelled_in_its_own_time(
    service: Scheduler, clock: str
) -> None:
    made = await on_clock(service, clock)
    await follow_clocks(service.runtime)
    (order,) = await service.orders()
    await advance(service, clock, NEW_YEAR + 3 * MONTH)

    cancelled = (await service.ask(made, "cancel")).data
    (cancellation,) = await service.orders()

    assert (cancelled["state"], cancelled["asOf"]) == ("cancelled", text(NEW_YEAR))
    assert isinstance(cancellation, CancelCharge)
    assert cancellation.payment_id == order.payment_id


async def test_dunning_is_over_in_virtual_days(service: Scheduler, clock: str) -> None:
    made = await on_clock(service, clock)
    await advance(service, clock, NEW_YEAR + 3 * MONTH)
    orders: list[Any] = []

    def pay_once(order: Any) -> Any:
        orders.append(order)
        return failed(order) if len(orders) > 1 else succeeded(order)

    await live(service, pay_once)

    unpaid = await service.read(made)
    assert (unpaid["state"], unpaid["reason"]) == ("cancelled", "dunning_over")
    assert [order.period_start.isoformat() for order in orders[1:]] == (
        ["2024-02-29T09:00:00+00:00"] * 4
    )
    assert unpaid["asOf"] == "2024-03-07T09:00:00Z"
