"""Figures over HTTP, against those made by hand: folded or not, of everything or of a choice."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from deploy.local.invariants.figures import FIGURES_AGREE
from deploy.local.invariants.findings import Findings
from deploy.local.service_databases import open_databases
from services.scheduler.handlers import analytics
from services.scheduler.store import analytics as analytics_store
from shared.contracts.scheduler import ChargeSubscription
from shared.money import Money
from tests.integration.api.world import opened_parts
from tests.integration.scheduler.test_test_clocks import NEW_YEAR, a_clock, advance, live, tell
from tests.integration.scheduler.world import Scheduler, failed, succeeded
from tests.support.http_api import serving
from tests.unit.scheduler.world import START, Story, a_plan

DAY = timedelta(days=1)
SPRING = "from=2026-01-01&to=2026-04-30&interval=month"

NOTHING = {"times": 0, "amount": 0}


def money(times: int, each: int = 500) -> dict[str, int]:
    return {"times": times, "amount": times * each}


async def figures(service: Scheduler, query: str = SPRING) -> Any:
    return (await service.api.call("GET", f"/api/subscriptions/analytics?{query}")).data


async def count(service: Scheduler, *stories: Story) -> None:
    """Count what happened in stories, as their moves are written: each in its own transaction."""
    for story in stories:
        for move in story.moves:
            async with service.core.database.transaction() as connection:
                await analytics_store.count(connection, [move])


async def a_spring(service: Scheduler) -> tuple[str, str]:
    """Let four subscriptions live from 31 January to April; return the ids of the two plans.

    One of 5 EUR is paid at once, in February by its second try, and on 1 April, a day after it
    failed, by dunning. One is never paid, and cancelled on 7 February. One pays 5000 XAF each
    month, and one like the first is on a test clock.
    """
    euros = (await service.plan(amount=500))["id"]
    francs = (await service.plan(amount=5_000, currency="XAF", gateway="fapshi"))["id"]
    plan = a_plan(id=euros)
    paying, never, test = (
        Story(plan, id="sub_paying"),
        Story(plan, id="sub_never"),
        Story(plan, id="sub_test", clock_id="clk_one", as_of=START),
    )
    phone = Story(a_plan(id=francs, amount=Money(5_000, "XAF"), gateway="fapshi"), id="sub_phone")
    for story in (paying, phone, test):
        story.pass_until(START)
        story.pay()
        story.pass_until(START + 28 * DAY)
        story.pay(attempts=2)
    paying.pass_until(START + 59 * DAY)
    paying.fail()
    paying.pass_until(START + 60 * DAY)
    paying.pay()
    phone.pass_until(START + 59 * DAY)
    phone.pay()
    never.pass_until(START)
    for days in (1, 3, 7, 8):
        never.fail()
        never.pass_until(START + days * DAY)
    await count(service, paying, never, phone, test)
    return euros, francs


async def test_figures_are_those_made_by_hand(service: Scheduler) -> None:
    await a_spring(service)

    found = await figures(service)

    buckets = {(each["start"], each["gateway"]): each for each in found["buckets"]}
    assert list(buckets) == [
        ("2026-01-01", "fapshi"),
        ("2026-01-01", "stripe"),
        ("2026-02-01", "fapshi"),
        ("2026-02-01", "stripe"),
        ("2026-03-01", "fapshi"),
        ("2026-03-01", "stripe"),
        ("2026-04-01", "stripe"),
    ]
    january, february = buckets["2026-01-01", "stripe"], buckets["2026-02-01", "stripe"]
    assert january == {
        "start": "2026-01-01",
        "gateway": "stripe",
        "currency": "EUR",
        "livingBefore": 0,
        "started": 2,
        "churned": 0,
        "churnRate": 0,
        "opened": money(2),
        "paidAtOnce": money(1),
        "paidByRetry": NOTHING,
        "paidByDunning": NOTHING,
        "revenue": money(1),
        "successRate": 50,
        "recovered": NOTHING,
        "paidLate": NOTHING,
        "paidTwice": NOTHING,
        "failedCharges": money(1),
        "writtenOff": NOTHING,
    }
    assert (february["livingBefore"], february["churned"], february["churnRate"]) == (2, 1, 50)
    assert (february["opened"], february["paidByRetry"]) == (money(1), money(1))
    assert (february["failedCharges"], february["writtenOff"]) == (money(3), money(1))
    march, april = buckets["2026-03-01", "stripe"], buckets["2026-04-01", "stripe"]
    assert (march["opened"], march["revenue"], march["successRate"]) == (money(1), NOTHING, 0)
    assert (april["opened"], april["recovered"], april["successRate"]) == (NOTHING, money(1), None)
    assert april["paidByDunning"] == april["revenue"] == money(1)
    assert [each["livingBefore"] for each in (march, april)] == [1, 1]
    card = next(each for each in found["byGateway"] if each["gateway"] == "stripe")
    assert (card["opened"], card["revenue"], card["successRate"]) == (money(4), money(3), 75)
    assert {each["currency"]: each["revenue"] for each in found["totals"]} == {
        "EUR": money(3),
        "XAF": money(3, each=5_000),
    }
    assert found["subscriptions"] == {
        "trialing": 0,
        "active": 2,
        "pastDue": 0,
        "paused": 0,
        "cancelled": 1,
        "ended": 0,
    }
    assert (found["firstDay"], found["lastDay"]) == ("2026-01-01", "2026-04-30")


async def test_folding_changes_no_figure_whoever_folds_and_however_often(
    service: Scheduler,
) -> None:
    await a_spring(service)
    before = await figures(service)
    waiting = await service.sql("SELECT count(*) FROM billing_count_new")

    folded = await asyncio.gather(*(analytics.fold(service.runtime) for _ in range(3)))

    assert sum(folded) == waiting > 0
    assert await figures(service) == before
    assert await service.sql("SELECT count(*) FROM billing_count_new") == 0
    await a_spring(service)
    await analytics.fold(service.runtime)
    doubled = await figures(service)
    assert [each["revenue"]["times"] for each in doubled["totals"]] == [6, 6]
    assert doubled["subscriptions"]["active"] == 4


async def test_what_is_rolled_back_was_never_counted(service: Scheduler) -> None:
    story = Story(a_plan(id=(await service.plan(amount=500))["id"]))

    async with service.core.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await analytics_store.count(connection, story.moves)
        await transaction.rollback()

    assert (await figures(service))["buckets"] == []


async def test_writers_of_the_same_count_do_not_wait_for_each_other(service: Scheduler) -> None:
    story = Story(a_plan(id=(await service.plan(amount=500))["id"]))
    database = service.core.database
    async with database.transaction() as first:
        await analytics_store.count(first, story.moves)
        async with asyncio.timeout(5), database.transaction() as second:
            await analytics_store.count(second, story.moves)
        assert await analytics.fold(service.runtime) == 2, "and neither does whoever folds"

    assert (await figures(service))["totals"][0]["started"] == 2


async def test_a_choice_narrows_and_the_time_of_clocks_is_left_out_unless_asked_for(
    service: Scheduler,
) -> None:
    euros, francs = await a_spring(service)

    async def revenue(query: str) -> dict[str, int]:
        found = await figures(service, f"{SPRING}&{query}")
        assert all(each["currency"] in {"EUR", "XAF"} for each in found["buckets"])
        return {each["currency"]: each["revenue"]["times"] for each in found["totals"]}

    assert await revenue("") == {"EUR": 3, "XAF": 3}
    assert await revenue("includeTest=true") == {"EUR": 5, "XAF": 3}
    assert await revenue("gateway=stripe") == {"EUR": 3}
    assert await revenue("currency=XAF") == {"XAF": 3}
    assert await revenue(f"planId={euros}") == {"EUR": 3}
    assert await revenue(f"planId={francs}&gateway=stripe") == {}
    assert await revenue("planId=%27%20OR%201%3D1") == {}
    with_test = await figures(service, f"{SPRING}&includeTest=true")
    assert with_test["subscriptions"]["active"] == 3


async def test_days_and_weeks_begin_where_the_calendar_says_and_are_cut_by_the_choice(
    service: Scheduler,
) -> None:
    """31 January 2026 is a Saturday, 7 February too."""
    await a_spring(service)

    async def starts(query: str) -> list[tuple[str, int]]:
        found = await figures(service, f"gateway=stripe&{query}")
        return [(each["start"], each["opened"]["times"]) for each in found["buckets"]]

    weeks = await starts("from=2026-01-31&to=2026-03-31&interval=week")
    assert weeks == [
        ("2026-01-26", 2),
        ("2026-02-02", 0),
        ("2026-02-23", 1),
        ("2026-03-30", 1),
    ]
    # What was opened on the Saturday is not of the same week's Sunday.
    cut = [("2026-01-26", 0), *weeks[1:3]]
    assert await starts("from=2026-02-01&to=2026-02-28&interval=week") == cut
    days = await starts("from=2026-01-31&to=2026-02-28&interval=day")
    assert (days[0], days[-1]) == (("2026-01-31", 2), ("2026-02-28", 1))
    assert await starts("from=2026-02-28&to=2026-02-28") == [("2026-02-28", 1)]
    assert await starts("from=0001-01-01&to=0001-01-02") == []
    assert await starts("to=0001-01-02") == []
    assert await starts("from=9999-12-31&to=9999-12-31&interval=month") == []


async def test_unless_told_it_is_about_the_thirty_days_until_today(service: Scheduler) -> None:
    found = await figures(service, "")

    today = service.clock().date()
    assert found["lastDay"] == today.isoformat()
    assert found["firstDay"] == (today - 29 * DAY).isoformat()
    assert found["interval"] == "day"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-02-01&to=2026-01-31", "to"),
        ("from=2020-01-01&to=2026-01-01", "from"),
        ("from=1990-01-01&to=2026-01-01&interval=month", "from"),
        ("from=0", "from"),
        ("from=2026-02-30", "from"),
        ("to=2026-01-01T00:00:00Z", "to"),
        ("to=20260101", "to"),
        ("first=2026-01-01", "first"),
        ("interval=year", "interval"),
        ("includeTest=perhaps", "includeTest"),
        ("gateway=", "gateway"),
        ("currency=%00", "currency"),
        ("more=1", "more"),
    ],
)
async def test_a_wrong_parameter_is_named(service: Scheduler, query: str, field: str) -> None:
    reply = await service.api.call("GET", f"/api/subscriptions/analytics?{query}")

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert list(reply.error["details"]) == [field]


async def test_gauges_tell_of_real_subscriptions_since_there_were_any(
    service: Scheduler, new_database: str, redis_url: str
) -> None:
    await a_spring(service)
    await analytics.fold(service.runtime)
    async with (
        opened_parts(["scheduler"], new_database, redis_url) as parts,
        serving(parts=parts) as api,
    ):
        text = (await api.call("GET", "/metrics", key=None)).raw.decode()

    euros, francs = 'currency="EUR",gateway="stripe"', 'currency="XAF",gateway="fapshi"'
    for line in (
        'subscriptions{state="active"} 2.0',
        'subscriptions{state="cancelled"} 1.0',
        'subscriptions{state="past_due"} 0.0',
        f'billing_events{{{euros},what="failed"}} 5.0',
        f'billing_events{{{euros},what="churned"}} 1.0',
        f'revenue_minor_units{{{euros},what="paid_by_retry"}} 500.0',
        f'revenue_minor_units{{{francs},what="paid_at_once"}} 10000.0',
    ):
        assert f"\nscheduler_{line}\n" in text


async def test_after_any_lives_the_figures_are_those_of_the_tables(service: Scheduler) -> None:
    """As the service lives them: over HTTP, by its scan and by messages."""
    monthly, weekly = (
        await service.plan(dunning={"days": [1], "end": "cancel"}),
        await service.plan(
            interval={"unit": "week", "count": 1}, trial={"unit": "day", "count": 3}
        ),
    )
    subscriptions = [await service.subscribe(plan) for plan in (monthly, weekly) * 4]
    ids = [each["id"] for each in subscriptions]
    charges = 0
    for day in range(40):
        service.clock.advance(86_400)
        while await service.bill_due():
            outcomes = []
            for order in await service.orders():
                if isinstance(order, ChargeSubscription):
                    charges += 1
                    # One has no money any more, and each fifth charge of the others fails.
                    fails = charges % 5 == 0 or (order.subscription_id == ids[3] and day > 20)
                    outcomes.append(failed(order) if fails else succeeded(order))
            if outcomes:
                await service.hear(*outcomes)
        if day == 10:
            await service.ask(subscriptions[0], "pause")
            await service.ask(subscriptions[2], "cancel", atPeriodEnd=True)
            change = {"planId": weekly["id"]}
            path = f"/api/subscriptions/{ids[4]}"
            assert (await service.api.call("PATCH", path, change)).status == 200
        if day == 20:
            await service.ask(subscriptions[0], "resume")
            await service.ask(subscriptions[5], "pause")
            await analytics.fold(service.runtime)

    last = service.clock().date()
    found = await figures(service, f"from={last - 60 * DAY}&to={last}&interval=month")

    states = {row["state"]: row["n"] for row in await service.rows(_STATES)}
    assert len(states) > 2, "lives differ"
    shown = found["subscriptions"]
    assert {state: shown[to_camel(state)] for state in states} == states
    assert sum(shown.values()) == len(subscriptions)
    (total,) = found["totals"]
    opened, paid, revenue, given_up = (await service.rows(_CYCLES))[0]
    assert total["opened"]["times"] == opened
    assert total["revenue"] == {"times": paid, "amount": revenue}
    assert paid > opened / 2
    jobs_failed = await service.sql("SELECT count(*) FROM job WHERE status = 'failed'")
    assert total["failedCharges"]["times"] == jobs_failed > 0
    assert total["writtenOff"]["times"] == given_up
    assert total["churned"] == states["cancelled"] > 0
    by_plan = [
        (await figures(service, f"from={last - 60 * DAY}&to={last}&planId={plan['id']}"))["totals"]
        for plan in (monthly, weekly)
    ]
    assert sum(each["revenue"]["amount"] for (each,) in by_plan) == revenue


_STATES = "SELECT state, count(*) AS n FROM subscription GROUP BY state"

_CYCLES = """
    SELECT count(*) FILTER (WHERE state <> 'skipped'), count(*) FILTER (WHERE state = 'paid'),
           sum(amount) FILTER (WHERE state = 'paid'),
           count(*) FILTER (WHERE state = 'uncollectible')
      FROM billing_cycle
"""


async def test_on_a_clock_the_figures_are_of_its_days_and_follow_whoever_is_attached(
    service: Scheduler, new_database: str
) -> None:
    async def states(query: str) -> dict[str, int]:
        shown = (await figures(service, query))["subscriptions"]
        return {state: number for state, number in shown.items() if number}

    plan = await service.plan()
    real = await service.subscribe(plan)
    await service.pay_due()
    clock = await a_clock(service)
    await service.subscribe(plan, testClockId=clock)
    assert await states("") == {"active": 1}
    assert await states("includeTest=true") == {"active": 1, "trialing": 1}

    await advance(service, clock, NEW_YEAR + 100 * DAY)
    assert await live(service) == 4
    query = "from=2024-01-01&to=2024-12-31&interval=month"
    assert (await figures(service, query))["buckets"] == []
    found = (await figures(service, f"{query}&includeTest=true"))["buckets"]
    revenue = [(each["start"], each["revenue"]["times"]) for each in found]
    assert revenue == [(f"2024-0{month}-01", 1) for month in (1, 2, 3, 4)]

    await advance(service, clock, service.clock() + DAY)
    await live(service)
    assert (await tell(service, clock, "attach", subscriptionId=real["id"])).status == 200
    assert await states("") == {}
    assert await states("includeTest=true") == {"active": 2}
    assert (await service.api.call("DELETE", f"/api/test-clocks/{clock}")).status == 200
    assert await states("includeTest=true") == {"cancelled": 2}
    findings = Findings()
    async with open_databases({"DATABASE_URL": new_database}) as databases:
        await FIGURES_AGREE.check(databases, findings)
    assert (findings.checked, findings.examples) == (2 + len(await service.rows(_JOBS)), [])


_JOBS = "SELECT id FROM job"
