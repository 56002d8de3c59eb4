"""Jobs over HTTP: how far each charge has come, and how many there are."""

from __future__ import annotations

from typing import Any

import pytest

from services.scheduler.handlers import jobs
from shared.contracts.scheduler import ChargeSubscription
from tests.integration.scheduler.world import Scheduler, failed, progressed, succeeded

DAY_SECONDS = 86_400.0

Shown = dict[str, Any]


async def charged(service: Scheduler, **changes: Any) -> tuple[Shown, ChargeSubscription]:
    """Return a subscription whose first period is charged, and the order that payments got."""
    subscription = await service.subscribe(await service.plan(**changes))
    assert await service.bill_due() == 1
    (order,) = await service.orders()
    return subscription, order


async def read(service: Scheduler, path: str) -> Any:
    return (await service.api.call("GET", path)).data


async def job_of(service: Scheduler, order: ChargeSubscription) -> Any:
    return await read(service, f"/api/jobs/job_{order.payment_id[4:]}")


async def test_a_job_is_followed_from_its_order_to_its_result(service: Scheduler) -> None:
    subscription, order = await charged(service)
    ordered = await job_of(service, order)
    service.clock.advance(5)
    await service.hear(progressed(order))
    accepted = await job_of(service, order)
    await service.hear(progressed(order, "sent", attempts_made=1))
    sent = await job_of(service, order)
    service.clock.advance(5)
    await service.hear(succeeded(order))
    done = await job_of(service, order)

    assert ordered["data"] == {
        "subscriptionId": subscription["id"],
        "customerId": "cus_1",
        "planId": subscription["planId"],
        "paymentId": order.payment_id,
        "paymentMethodId": order.payment_method_id,
        "gateway": "stripe",
        "amount": 990,
        "currency": "EUR",
        "periodStart": "2026-01-05T12:00:00Z",
        "chargeNumber": 1,
        "occasion": "period",
    }
    seen = [
        (each["status"], each["progress"], each["waitsFor"], each["attemptsMade"])
        for each in (ordered, accepted, sent, done)
    ]
    assert seen == [
        ("waiting", 10, "payments", 0),
        ("active", 30, "payments", 0),
        ("active", 50, "gateway", 1),
        ("completed", 100, None, 1),
    ]
    assert (ordered["result"], ordered["processedAt"], ordered["finishedAt"]) == (None, None, None)
    assert done["result"] == {
        "success": True,
        "transactionHash": None,
        "gatewayReference": f"ch_{order.payment_id[4:]}",
        "amount": 990,
        "currency": "EUR",
    }
    assert done["createdAt"] == "2026-01-05T12:00:00Z"
    assert done["processedAt"] == "2026-01-05T12:00:05Z"
    assert done["finishedAt"] == "2026-01-05T12:00:10Z"


async def test_the_hash_of_a_transaction_is_in_the_result(service: Scheduler) -> None:
    plan = await service.plan(gateway="x402", currency="USDC", amount=5_000_000)
    method = await service.method(gateway="x402", kind="wallet")
    await service.subscribe(plan, paymentMethodId=method)
    assert await service.bill_due() == 1
    (order,) = await service.orders()
    transaction = "0x" + 64 * "a"

    await service.hear(succeeded(order, gateway_payment_id=transaction))

    result = (await job_of(service, order))["result"]
    assert (result["transactionHash"], result["gatewayReference"]) == (transaction, transaction)


async def test_a_retry_shows_its_time_and_its_reason(service: Scheduler) -> None:
    _, order = await charged(service)

    await service.hear(failed(order, retry_after_seconds=3_600.0))

    job = await job_of(service, order)
    assert (job["status"], job["progress"], job["waitsFor"]) == ("delayed", 50, "retry")
    assert job["failedReason"] == "insufficient_funds:insufficient_funds"
    assert job["nextRetryAt"] == "2026-01-05T13:00:00Z"

    await service.hear(failed(order, retry_after_seconds=7_200.0))

    assert (await job_of(service, order))["nextRetryAt"] == "2026-01-05T14:00:00Z"


async def test_a_failed_job_has_a_result_too(service: Scheduler) -> None:
    _, order = await charged(service)

    await service.hear(failed(order, kind="card_declined", code="lost_card"))

    job = await job_of(service, order)
    assert (job["status"], job["failedReason"]) == ("failed", "card_declined:lost_card")
    assert job["result"] == {
        "success": False,
        "transactionHash": None,
        "gatewayReference": None,
        "amount": 0,
        "currency": "EUR",
    }
    assert (job["waitsFor"], job["nextRetryAt"]) == (None, None)


async def test_what_a_person_looks_at_says_so(service: Scheduler) -> None:
    _, order = await charged(service)

    await service.hear(progressed(order, "held", attempts_made=1))

    job = await job_of(service, order)
    assert (job["status"], job["waitsFor"]) == ("delayed", "review")
    assert job["failedReason"] == "held_for_review"


async def test_jobs_are_listed_by_page_by_status_and_by_subscription(service: Scheduler) -> None:
    plan = await service.plan()
    subscriptions = [await service.subscribe(plan) for _ in range(3)]
    orders = []
    for _ in subscriptions:
        service.clock.advance(1)
    assert await service.bill_due() == 3
    orders = sorted(await service.orders(), key=lambda order: order.payment_id)
    await service.hear(failed(orders[0]))
    await service.hear(succeeded(orders[2]))
    newest_first = [f"job_{order.payment_id[4:]}" for order in reversed(orders)]

    first = await read(service, "/api/jobs?limit=2")
    second = await read(service, f"/api/jobs?limit=2&cursor={first['nextCursor']}")
    waiting = await read(service, "/api/jobs?status=waiting")
    of_one = await read(service, f"/api/jobs/subscription/{orders[0].subscription_id}")

    assert [job["id"] for job in first["jobs"] + second["jobs"]] == newest_first
    assert second["nextCursor"] is None
    assert [job["id"] for job in waiting["jobs"]] == [newest_first[1]]
    assert [job["id"] for job in of_one["jobs"]] == [newest_first[2]]


async def test_the_jobs_of_a_subscription_are_listed_by_page(service: Scheduler) -> None:
    subscription, order = await charged(service)
    await service.hear(failed(order))
    service.clock.advance(DAY_SECONDS)
    assert await service.bill_due() == 1
    path = f"/api/jobs/subscription/{subscription['id']}"

    first = await read(service, f"{path}?limit=1")
    second = await read(service, f"{path}?limit=1&cursor={first['nextCursor']}")

    assert [job["data"]["occasion"] for job in first["jobs"] + second["jobs"]] == [
        "dunning",
        "period",
    ]
    assert [job["data"]["chargeNumber"] for job in first["jobs"] + second["jobs"]] == [2, 1]


async def test_jobs_are_counted_folded_or_not(service: Scheduler) -> None:
    plan = await service.plan()
    for _ in range(6):
        await service.subscribe(plan)
    assert await service.bill_due() == 6
    orders = await service.orders()
    for message in (
        progressed(orders[1]),
        failed(orders[2], retry_after_seconds=60.0),
        failed(orders[3]),
        failed(orders[4]),
        succeeded(orders[4]),
        succeeded(orders[5]),
    ):
        await service.hear(message)
    expected = {
        "waiting": 1,
        "active": 1,
        "delayed": 1,
        "completed": 2,
        "failed": 1,
        "unresolved": 0,
    }

    unfolded = await read(service, "/api/jobs/stats")
    folded = await jobs.fold_tally(service.runtime)
    rows = await service.sql("SELECT count(*) FROM job_tally")
    again = await jobs.fold_tally(service.runtime)

    assert unfolded == expected
    assert await read(service, "/api/jobs/stats") == expected
    assert (folded > 10, rows, again) == (True, 5, 0)
    by_hand = await service.rows("SELECT status, count(*) FROM job GROUP BY status")
    assert {row["status"]: row["count"] for row in by_hand} == {
        name: number for name, number in expected.items() if name != "unresolved"
    }


async def test_jobs_are_measured(service: Scheduler) -> None:
    _, order = await charged(service)
    await service.hear(progressed(order))

    await jobs.measure(service.runtime)

    text = (await service.api.call("GET", "/metrics")).raw.decode()
    assert 'scheduler_jobs{status="active"} 1.0' in text
    assert 'scheduler_jobs{status="waiting"} 0.0' in text
    assert "scheduler_charges_unresolved 0.0" in text


async def silent_for_days(service: Scheduler, days: int) -> None:
    """Let time pass in which payments says nothing, by both clocks."""
    service.clock.advance(days * DAY_SECONDS)
    statement = "UPDATE job SET updated_at = updated_at - make_interval(days => $1)"
    await service.sql(statement, days)


async def test_a_charge_of_which_nothing_is_heard_is_shown(service: Scheduler) -> None:
    _, order = await charged(service)
    await service.hear(progressed(order, "sent", attempts_made=1))
    await silent_for_days(service, 2)
    _, fresh = await charged(service)

    found = await read(service, "/api/jobs?unresolved=true")
    counts = await read(service, "/api/jobs/stats")
    await service.hear(succeeded(order))

    assert [job["data"]["paymentId"] for job in found["jobs"]] == [order.payment_id]
    assert found["jobs"][0]["isUnresolved"] is True
    assert (await job_of(service, fresh))["isUnresolved"] is False
    assert counts["unresolved"] == 1
    assert (await read(service, "/api/jobs?unresolved=true"))["jobs"] == []


async def test_a_retry_that_is_planned_is_not_unresolved_before_its_time(
    service: Scheduler,
) -> None:
    _, order = await charged(service)
    in_real_days = 3 * DAY_SECONDS
    await service.hear(failed(order, retry_after_seconds=in_real_days))
    await silent_for_days(service, 2)
    await service.sql("UPDATE job SET retry_at = clock_timestamp() + interval '1 day'")
    planned = await read(service, "/api/jobs?unresolved=true")

    await service.sql("UPDATE job SET retry_at = clock_timestamp() - interval '2 days'")

    assert planned["jobs"] == []
    assert len((await read(service, "/api/jobs?unresolved=true"))["jobs"]) == 1


@pytest.mark.parametrize(
    ("path", "status", "details"),
    [
        ("/api/jobs/job_" + 26 * "0", 404, {}),
        ("/api/jobs/%00", 404, {}),
        ("/api/jobs/subscription/sub_" + 26 * "0", 404, {}),
        ("/api/jobs/subscription/nobody", 404, {}),
        ("/api/jobs?status=lost", 400, {"status"}),
        ("/api/jobs?cursor=sub_" + 26 * "0", 400, {"cursor"}),
        ("/api/jobs?status=waiting&unresolved=true", 400, {"status"}),
        ("/api/jobs?limit=0", 400, {"limit"}),
        ("/api/jobs/subscription/sub_" + 26 * "0" + "?cursor=x", 400, {"cursor"}),
    ],
)
async def test_what_cannot_be_answered_is_refused(
    service: Scheduler, path: str, status: int, details: set[str]
) -> None:
    reply = await service.api.call("GET", path)

    assert reply.status == status
    assert set(reply.error["details"]) >= set(details)


async def test_a_subscription_without_jobs_has_an_empty_list(service: Scheduler) -> None:
    subscription = await service.subscribe(await service.plan())

    page = await read(service, f"/api/jobs/subscription/{subscription['id']}")

    assert page == {"jobs": [], "nextCursor": None}
