"""Subscriptions over HTTP: made, read, listed, changed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from services.scheduler.handlers import chargeable
from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored
from shared.contracts.scheduler import ChargeSubscription
from shared.identifiers import new_id
from shared.web.bodies import time_text
from tests.integration.scheduler.world import Scheduler, succeeded
from tests.support.clocks import START

NOW = time_text(START)


async def test_a_subscription_without_a_trial_is_billed_at_once(service: Scheduler) -> None:
    plan, method = await service.plan(), await service.method()

    made = await service.subscribe(plan, paymentMethodId=method, metadata={"seat": "4"})

    assert made == await service.read(made)
    assert made.pop("id").startswith("sub_")
    assert made == {
        "state": "trialing",
        "reason": "created",
        "attention": None,
        "customerId": "cus_1",
        "productId": "course_1",
        "planId": plan["id"],
        "nextPlanId": None,
        "paymentMethodId": method,
        "autoPay": True,
        "timeZone": "UTC",
        "startAt": NOW,
        "anchor": NOW,
        "endsAfter": None,
        "periodsBilled": 0,
        "trialEndsAt": NOW,
        "currentPeriod": None,
        "cancelAtPeriodEnd": False,
        "nextDueAt": NOW,
        "access": {"isGranted": False, "graceUntil": None},
        "dunning": None,
        "charge": None,
        "mayStillBePaid": False,
        "catchUp": None,
        "problem": None,
        "testClockId": None,
        "asOf": None,
        "metadata": {"seat": "4"},
        "createdAt": NOW,
        "updatedAt": made["updatedAt"],
    }


async def test_a_period_is_opened_charged_and_paid(service: Scheduler) -> None:
    plan = await service.plan()
    made = await service.subscribe(plan)

    await service.bill_due()
    (order,) = await service.orders()
    charging = await service.read(made)
    await service.hear(succeeded(order))
    paid = await service.read(made)

    assert isinstance(order, ChargeSubscription)
    assert (order.amount, order.currency, order.gateway) == (990, "EUR", "stripe")
    assert charging["charge"] == {
        "paymentId": order.payment_id,
        "jobId": f"job_{order.payment_id[4:]}",
        "retryAt": None,
    }
    period = {"number": 0, "start": NOW, "end": "2026-02-05T12:00:00Z"}
    assert charging["currentPeriod"] == {**period, "isPaid": False}
    assert paid["currentPeriod"] == {**period, "isPaid": True}
    assert (paid["state"], paid["reason"], paid["charge"]) == ("active", "paid", None)
    assert (paid["nextDueAt"], paid["access"]["isGranted"]) == ("2026-02-05T12:00:00Z", True)
    assert (paid["trialEndsAt"], paid["periodsBilled"]) == (None, 1)


async def test_a_trial_gives_access_and_bills_nothing_until_its_end(service: Scheduler) -> None:
    plan = await service.plan(trial={"unit": "week", "count": 2})
    made = await service.subscribe(plan)

    assert await service.bill_due() == 1
    begun = await service.read(made)

    assert (begun["state"], begun["trialEndsAt"]) == ("trialing", "2026-01-19T12:00:00Z")
    assert begun["access"]["isGranted"] is True
    assert begun["nextDueAt"] == begun["anchor"] == "2026-01-19T12:00:00Z"
    assert await service.orders() == []


async def test_periods_are_counted_in_the_zone_from_the_anchor(service: Scheduler) -> None:
    service.clock.now = START.replace(month=1, day=31, hour=23)
    made = await service.subscribe(await service.plan(), timeZone="Asia/Dhaka")

    await service.pay_due()

    # 31 January 23:00 UTC is 1 February 05:00 in Dhaka, and so is each 1st of a month.
    assert (await service.read(made))["currentPeriod"]["end"] == "2026-02-28T23:00:00Z"


async def test_an_anchor_and_a_start_are_taken_as_they_are_given(service: Scheduler) -> None:
    made = await service.subscribe(
        await service.plan(), startAt="2026-01-10T12:00:00+06:00", anchor="2026-02-01T00:00:00Z"
    )

    assert (made["startAt"], made["anchor"]) == ("2026-01-10T06:00:00Z", "2026-02-01T00:00:00Z")
    assert await service.bill_due() == 0
    assert await service.bill_due(START + timedelta(days=5)) == 1
    assert (await service.read(made))["access"]["isGranted"] is True


async def test_whoever_moves_here_keeps_the_day_and_pays_the_running_period(
    service: Scheduler,
) -> None:
    made = await service.subscribe(await service.plan(), startAt="2025-10-20T00:00:00Z")

    assert await service.pay_due() == 1

    skipped, paid = await service.cycles(made)
    assert (skipped["state"], skipped["periods"], skipped["number"]) == ("skipped", 2, 0)
    assert (paid["state"], paid["number"]) == ("paid", 2)
    assert time_text(paid["period_start"]) == "2025-12-20T00:00:00Z"


async def test_it_ends_after_as_many_periods_as_it_was_made_for(service: Scheduler) -> None:
    made = await service.subscribe(await service.plan(), endsAfter=2)

    charges = 0
    for _ in range(4):
        charges += await service.pay_due()
        service.clock.now += timedelta(days=31)

    assert charges == 2
    ended = await service.read(made)
    assert (ended["state"], ended["reason"], ended["nextDueAt"]) == (
        "ended",
        "ran_its_periods",
        None,
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"planId": "pln_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"}, "planId"),
    ({"planId": "nul"}, "planId"),
    ({"paymentMethodId": "pmt_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"}, "paymentMethodId"),
    ({"paymentMethodId": "4242424242424242"}, "paymentMethodId"),
    ({"testClockId": "clk_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"}, "testClockId"),
    ({"testClockId": "clock"}, "testClockId"),
    ({"timeZone": "Mars/Olympus"}, "timeZone"),
    ({"timeZone": "../../etc/passwd"}, "timeZone"),
    ({"timeZone": "localtime"}, "timeZone"),
    ({"startAt": "2025-01-03T12:00:00Z"}, "startAt"),
    ({"startAt": "2127-01-01T12:00:00Z"}, "startAt"),
    ({"startAt": "2026-01-05T12:00:00"}, "startAt"),
    ({"startAt": "0001-01-01T00:00:00+14:00"}, "startAt"),
    ({"startAt": 1_767_600_000}, "startAt"),
    ({"anchor": "2026-01-05T11:59:59Z"}, "anchor"),
    ({"anchor": "2200-01-01T00:00:00Z"}, "anchor"),
    ({"anchor": "9999-12-31T23:59:59-12:00"}, "anchor"),
    ({"endsAfter": 0}, "endsAfter"),
    ({"customerId": ""}, "customerId"),
    ({"customer": "cus_1"}, "customer"),
    ({"metadata": {"a": 1}}, "metadata.a"),
]


async def test_what_cannot_be_is_refused_by_its_field(service: Scheduler) -> None:
    plan, method = await service.plan(), await service.method()
    body = {"customerId": "cus_1", "planId": plan["id"], "paymentMethodId": method}

    for changes, field in WRONG:
        reply = await service.api.call("POST", "/api/subscriptions", body | changes)
        assert (reply.status, reply.error["code"]) == (400, "invalid_input"), changes
        assert list(reply.error["details"]) == [field]

    assert await service.rows("SELECT id FROM subscription") == []


async def test_an_anchor_within_the_trial_is_refused(service: Scheduler) -> None:
    plan = await service.plan(trial={"unit": "month", "count": 1})
    body = {"customerId": "cus_1", "planId": plan["id"]}

    early = await service.api.call(
        "POST", "/api/subscriptions", body | {"anchor": "2026-02-05T11:59:59Z"}
    )
    late = await service.api.call(
        "POST", "/api/subscriptions", body | {"anchor": "2026-02-05T12:00:00Z"}
    )

    assert (early.status, list(early.error["details"])) == (400, ["anchor"])
    assert late.status == 201


async def test_nobody_is_charged_with_what_is_anothers(service: Scheduler) -> None:
    plan = await service.plan()
    body = {"customerId": "cus_1", "planId": plan["id"]}

    for method in (await service.method("cus_2"), await service.method(gateway="x402")):
        reply = await service.api.call(
            "POST", "/api/subscriptions", body | {"paymentMethodId": method}
        )
        assert (reply.status, list(reply.error["details"])) == (400, ["paymentMethodId"])


async def test_what_is_archived_or_removed_is_refused(service: Scheduler) -> None:
    plan, method = await service.plan(), await service.method()
    body = {"customerId": "cus_1", "planId": plan["id"], "paymentMethodId": method}
    removal = PaymentMethodRemoved(
        payment_method_id=method, customer_id="cus_1", removed_at=service.clock()
    )

    await service.hear(removal)
    removed = await service.api.call("POST", "/api/subscriptions", body)
    await service.api.call("DELETE", f"/api/plans/{plan['id']}")
    archived = await service.api.call(
        "POST", "/api/subscriptions", body | {"paymentMethodId": None}
    )

    for reply, field in ((removed, "paymentMethodId"), (archived, "planId")):
        assert (reply.status, reply.error["details"]["field"]) == (409, field)


async def test_one_that_has_an_archived_plan_goes_on(service: Scheduler) -> None:
    plan = await service.plan()
    made = await service.subscribe(plan)
    await service.api.call("DELETE", f"/api/plans/{plan['id']}")

    assert await service.pay_due() == 1

    assert (await service.read(made))["state"] == "active"


async def test_the_news_of_a_new_method_is_awaited(service: Scheduler) -> None:
    plan, method = await service.plan(), new_id("pmt", service.clock())
    news = PaymentMethodStored(
        payment_method_id=method,
        customer_id="cus_1",
        gateway="stripe",
        kind="card",
        stored_at=service.clock(),
    )

    subscribed, _ = await asyncio.gather(
        service.subscribe(plan, paymentMethodId=method), service.hear(news)
    )

    assert subscribed["paymentMethodId"] == method


async def test_a_method_whose_news_do_not_come_may_be_tried_again(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chargeable, "TOLD_WITHIN_SECONDS", 0.1)
    plan, method = await service.plan(), new_id("pmt", service.clock())
    body = {"customerId": "cus_1", "planId": plan["id"], "paymentMethodId": method}

    async def ask() -> int:
        reply = await service.api.call("POST", "/api/subscriptions", body, idempotency_key="k")
        return reply.status

    assert await ask() == 503
    await service.rows(
        "INSERT INTO payment_method VALUES ($1, 'cus_1', 'stripe', 'card', $2)",
        method,
        service.clock(),
    )
    assert await ask() == 201


async def test_a_repeated_request_makes_one_subscription(service: Scheduler) -> None:
    plan = await service.plan()
    body = {"customerId": "cus_1", "planId": plan["id"]}

    replies = await asyncio.gather(
        *(
            service.api.call("POST", "/api/subscriptions", body, idempotency_key="once")
            for _ in range(3)
        )
    )

    assert {reply.status for reply in replies} <= {201, 409}
    assert await service.sql("SELECT count(*) FROM subscription") == 1
    assert await service.sql("SELECT count(*) FROM subscription_history") == 1


async def test_a_request_that_was_cut_off_after_its_commit_is_carried_on(
    service: Scheduler,
) -> None:
    plan = await service.plan()
    body = {"customerId": "cus_1", "planId": plan["id"]}
    first = await service.api.call("POST", "/api/subscriptions", body, idempotency_key="once")
    await service.api.call("DELETE", f"/api/plans/{plan['id']}")
    await service.cut_off_requests()

    again = await service.api.call("POST", "/api/subscriptions", body, idempotency_key="once")

    assert (again.status, again.data) == (201, first.data)
    assert await service.sql("SELECT count(*) FROM subscription_history") == 1


async def test_lists_have_filters_and_pages(service: Scheduler) -> None:
    plan, other = await service.plan(), await service.plan()
    made = []
    for number in range(4):
        customer = f"cus_{number % 2}"
        service.clock.advance(1)
        made.append(
            (await service.subscribe([plan, other][number // 2], customerId=customer))["id"]
        )
    await service.ask({"id": made[0]}, "cancel")
    await service.rows("UPDATE subscription SET problem = 'no such zone' WHERE id = $1", made[1])

    async def listed(query: str) -> list[int]:
        data = (await service.api.call("GET", f"/api/subscriptions?{query}", key="reader")).data
        return [made.index(each["id"]) for each in data["subscriptions"]]

    assert await listed("") == [3, 2, 1, 0]
    assert await listed("customerId=cus_1") == [3, 1]
    assert await listed(f"planId={plan['id']}") == [1, 0]
    assert await listed(f"planId={plan['id']}&customerId=cus_1") == [1]
    assert await listed("state=cancelled") == [0]
    assert await listed("state=active") == []
    assert await listed("state=trialing&customerId=cus_0") == [2]
    assert await listed("attention=set_aside") == [1]
    assert await listed("attention=catch_up_asked") == []
    assert await listed(f"limit=2&cursor={made[3]}") == [2, 1]
    shown = await service.read({"id": made[1]})
    assert (shown["attention"], shown["problem"]) == ("set_aside", "no such zone")


async def test_a_query_that_says_nothing_is_refused(service: Scheduler) -> None:
    for query in ("state=dead", "attention=please", "cursor=sub", "page=2"):
        reply = await service.api.call("GET", f"/api/subscriptions?{query}")

        assert (reply.status, list(reply.error["details"])) == (400, [query.partition("=")[0]])


async def test_cycles_and_history_are_told_last_first(service: Scheduler) -> None:
    made = await service.subscribe(await service.plan())
    for _ in range(3):
        await service.pay_due()
        service.clock.now += timedelta(days=31)
    path = f"/api/subscriptions/{made['id']}"

    first = (await service.api.call("GET", f"{path}/cycles?limit=2")).data
    rest = (await service.api.call("GET", f"{path}/cycles?cursor={first['nextCursor']}")).data
    events = (await service.api.call("GET", f"{path}/history?limit=2")).data
    more = (await service.api.call("GET", f"{path}/history?cursor={events['nextCursor']}")).data

    cycles = first["cycles"] + rest["cycles"]
    assert [cycle["number"] for cycle in cycles] == [2, 1, 0]
    assert {cycle["state"] for cycle in cycles} == {"paid"}
    assert (cycles[2]["start"], cycles[2]["amount"]) == (NOW, 990)
    assert cycles[2]["end"] == cycles[1]["start"]
    told = events["events"] + more["events"]
    assert [event["event"] for event in told] == ["paid", "period_opened"] * 3 + ["created"]
    assert (told[-1]["actor"], told[0]["actor"]) == ("admin", None)
    assert told[0]["paymentId"] == cycles[0]["paymentId"]


async def test_a_cursor_that_is_none_is_refused(service: Scheduler) -> None:
    made = await service.subscribe(await service.plan())

    for what in ("cycles?cursor=yesterday", "history?cursor=evt_x"):
        reply = await service.api.call("GET", f"/api/subscriptions/{made['id']}/{what}")
        assert (reply.status, reply.error["details"]) == (400, {"cursor": "malformed"})


async def test_a_subscription_that_is_not_there_is_not_found(service: Scheduler) -> None:
    reads, writes = ("", "/cycles", "/history"), ("pause", "resume", "cancel", "trigger-payment")
    for id_ in ("sub_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A", "sub_1", "%00"):
        path = f"/api/subscriptions/{id_}"
        replies = [await service.api.call("GET", f"{path}{each}") for each in reads]
        replies += [await service.api.call("POST", f"{path}/{each}") for each in writes]
        replies.append(await service.api.call("PATCH", path, {"autoPay": True}))
        replies.append(await service.api.call("DELETE", path))

        assert {reply.status for reply in replies} == {404}
