"""Payments as jobs: counted, listed and read as users of queue systems expect."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.jobs import JobState
from shared.gateways.interface import Declined, FailureKind
from shared.money import Money
from tests.integration.payments.world import Payments

JOBS = "/api/payments/jobs"


async def jobs(payments: Payments, query: str) -> dict[str, Any]:
    data: dict[str, Any] = (await payments.api.call("GET", f"{JOBS}?{query}")).data
    return data


async def ids(payments: Payments, state: str) -> list[str]:
    return [job["id"] for job in (await jobs(payments, f"state={state}"))["jobs"]]


async def decline_next(payments: Payments) -> None:
    payments.gateway.next_starts.append(
        Declined("do_not_honor", FailureKind.CARD_DECLINED, is_final=True)
    )


async def test_each_payment_is_listed_under_its_state_and_no_other(payments: Payments) -> None:
    waiting = await payments.create()
    leased = await payments.create()
    payments.clock.advance(60)
    await payments.sql(
        "UPDATE payment SET check_leased_until = clock_timestamp() + interval '1 minute'"
        " WHERE id = $1",
        leased["id"],
    )
    delayed = await payments.create()
    completed = await payments.create()
    await payments.paid(completed)
    held = await payments.create()
    await payments.paid(held, amount=Money(1, "BDT"))
    await decline_next(payments)
    failed = await payments.create()

    expected = {
        "waiting": [waiting],
        "active": [leased],
        "delayed": [delayed],
        "completed": [completed],
        "held": [held],
        "failed": [failed],
    }
    assert {state: await ids(payments, state) for state in JobState} == {
        state: [payment["id"] for payment in found] for state, found in expected.items()
    }
    counts = (await jobs(payments, "state=waiting"))["counts"]
    assert counts == dict.fromkeys(JobState, 1)


async def test_a_listed_job_says_how_it_stands(payments: Payments) -> None:
    await decline_next(payments)
    payment = await payments.create()

    (job,) = (await jobs(payments, "state=failed"))["jobs"]

    assert (job["state"], job["paymentState"]) == ("failed", "failed")
    assert (job["amount"], job["currency"], job["gateway"]) == (115_000, "BDT", "sslcommerz")
    assert job["reason"] == "card_declined:do_not_honor"
    assert job["createdAt"] == payment["createdAt"]


async def test_jobs_are_listed_page_by_page_newest_first(payments: Payments) -> None:
    made = [(await payments.create())["id"] for _ in range(5)]

    first = await jobs(payments, "state=delayed&limit=2")
    second = await jobs(payments, f"state=delayed&limit=2&cursor={first['nextCursor']}")
    third = await jobs(payments, f"state=delayed&limit=2&cursor={second['nextCursor']}")

    listed = [job["id"] for page in (first, second, third) for job in page["jobs"]]
    assert listed == sorted(made, reverse=True)
    assert third["nextCursor"] is None


@pytest.mark.parametrize("state", JobState)
async def test_every_list_is_paged(payments: Payments, state: JobState) -> None:
    page = await jobs(payments, f"state={state}&limit=1&cursor=pay_01KE70EHG0JY1QREBD77BRA2Z7")

    assert (page["jobs"], page["nextCursor"]) == ([], None)


async def test_a_job_is_read_with_its_data_attempts_and_end(payments: Payments) -> None:
    payment = await payments.create()
    payments.clock.advance(7)
    await payments.paid(payment)

    reply = await payments.api.call("GET", f"/api/payments/{payment['id']}/job", key="reader")

    job = reply.data
    assert job["data"] == {
        "gateway": "sslcommerz",
        "method": "checkout",
        "amount": 115_000,
        "currency": "BDT",
        "customerId": "cus_1",
        "productId": "course_1",
        "metadata": {"order": "7"},
    }
    assert (job["attemptsMade"], job["attempts"][0]["reference"]) == (
        1,
        payment["gatewayReference"],
    )
    assert job["attempts"][0]["state"] == "open"
    assert (job["state"], job["failedReason"]) == ("completed", None)
    assert job["finishedAt"] == "2026-01-05T12:00:07Z"
    assert "Ada" not in reply.raw.decode()


async def test_a_failed_job_says_why(payments: Payments) -> None:
    await decline_next(payments)
    payment = await payments.create()

    job = (await payments.api.call("GET", f"/api/payments/{payment['id']}/job")).data

    assert (job["state"], job["failedReason"]) == ("failed", "card_declined:do_not_honor")
    assert job["finishedAt"] is not None
    assert job["attempts"][0]["state"] == "refused"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{JOBS}?state=lost", 400),
        (f"{JOBS}?cursor=17", 400),
        (f"{JOBS}?limit=0", 400),
        ("/api/payments/pay_01KE70EHG0JY1QREBD77BRA2Z7/job", 404),
        ("/api/payments/%00/job", 404),
    ],
)
async def test_what_is_wrong_is_refused(payments: Payments, path: str, status: int) -> None:
    assert (await payments.api.call("GET", path)).status == status


async def schedule(payments: Payments, payment: dict[str, Any], **values: Any) -> None:
    """Give a payment a retry."""
    await payments.sql(
        "UPDATE payment SET state = 'retry_scheduled', next_check_at = NULL WHERE id = $1",
        payment["id"],
    )
    await payments.sql(
        "INSERT INTO retry (payment_id, state, gateway, priority, customer_id, product_id, amount,"
        " currency, kind, code, continues, next_attempt_at, leased_until, waits_for, created_at,"
        " updated_at)"
        " SELECT id, $2, gateway, priority, customer_id, product_id, amount, currency,"
        " 'network_error', 'x', true, $3, CASE WHEN $2 = 'running'"
        " THEN clock_timestamp() + interval '1 minute' END, $4, created_at, created_at"
        " FROM payment WHERE id = $1",
        payment["id"],
        values.get("state", "scheduled"),
        payments.clock.now + timedelta(seconds=values.get("seconds", 0)),
        values.get("waits_for"),
    )


async def test_a_retry_makes_its_payment_wait_run_or_stay_for_its_time(payments: Payments) -> None:
    due, later = await payments.create(), await payments.create()
    running, parked = await payments.create(), await payments.create()
    await schedule(payments, due, seconds=-1, waits_for="breaker_open")
    await schedule(payments, later, seconds=60)
    await schedule(payments, running, seconds=-1, state="running")
    await schedule(payments, parked, seconds=-1, state="parked")

    listed = {state: await ids(payments, state) for state in JobState}

    assert listed[JobState.WAITING] == [due["id"]]
    assert listed[JobState.ACTIVE] == [running["id"]]
    assert set(listed[JobState.DELAYED]) == {later["id"], parked["id"]}
    page = await jobs(payments, "state=waiting")
    assert page["jobs"][0]["waitsFor"] == "breaker_open"
    assert page["jobs"][0]["nextStepAt"] == "2026-01-05T11:59:59Z"
    counts = page["counts"]
    assert (counts["waiting"], counts["active"], counts["delayed"]) == (1, 1, 2)
    backlog = (await payments.api.call("GET", "/api/payments/stats")).data["queue"]
    assert backlog["dueRetries"] == {"high": 0, "medium": 1, "normal": 0}
