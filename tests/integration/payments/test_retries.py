"""Retries by hand and by API: asked for, read, moved, parked, counted; and what goes alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.breaker import BreakerState
from services.payments.domain.settlement import HELD_BY_OPERATOR
from services.payments.flow.controls import BreakerView
from services.payments.handlers import retry_worker
from services.payments.runtime import Runtime
from shared.gateways.interface import (
    Capabilities,
    Declined,
    FailureKind,
    Limits,
)
from tests.integration.payments.retrying import (
    CARD,
    PROMPTED,
    call,
    declined,
    facts,
    paid,
    processed,
    retry_of,
    wait_until,
)
from tests.integration.payments.world import Payments, running_payments
from tests.support.fake_gateway import FakeGateway

K = FailureKind
BROKEN = declined(K.PROCESSING_ERROR)


async def failed(payments: Payments, outcome: Declined = BROKEN, **changes: Any) -> dict[str, Any]:
    """Create a payment without automatic retries, and let it fail."""
    payments.gateway.next_starts.append(outcome)
    data = (await payments.post(**{"method": CARD, **changes})).data
    assert isinstance(data, dict)
    return data


async def test_a_payment_that_failed_is_tried_once_more_when_somebody_asks(
    payments: Payments,
) -> None:
    payment = await failed(payments)
    body = {"metadata": {"asked_by": "support"}}
    reply = await call(payments, "POST", payment["id"], body=body)

    assert (reply.status, reply.data["state"]) == (202, "scheduled")
    assert reply.data["metadata"] == {"asked_by": "support"}
    assert (reply.data["kind"], reply.data["code"]) == (
        "processing_error",
        "code_of_processing_error",
    )
    assert (await payments.read(payment["id"]))["state"] == "retry_scheduled"
    payments.gateway.next_starts.append(paid())
    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert await facts(payments) == ["retry_requested", "retry_begun"]


async def test_one_without_an_error_is_one_try_and_one_with_an_error_follows_the_table(
    payments: Payments,
) -> None:
    once, often = await failed(payments), await failed(payments, product={"id": "course_2"})
    await call(payments, "POST", once["id"])
    by_table = await call(payments, "POST", often["id"], body={"error": "insufficient_funds"})
    payments.gateway.next_starts += [BROKEN, BROKEN]
    assert await payments.retry() == 1
    assert (await retry_of(payments, once))["state"] == "exhausted"
    assert (await payments.read(once["id"]))["state"] == "failed"

    assert wait_until(payments, by_table.data) == timedelta(hours=24)
    assert await payments.retry() == 1
    assert wait_until(payments, await retry_of(payments, often)) == timedelta(minutes=1)


async def test_a_try_is_named_by_its_reference_as_well(payments: Payments) -> None:
    payment = await failed(payments)
    asked = await call(payments, "POST", payment["gatewayReference"])

    assert asked.data["paymentId"] == payment["id"]
    for name in ("pay_00000000000000000000000000", payment["id"][:-1], "a%00b", "stats2"):
        reply = await call(payments, "GET", name)
        assert (reply.status, reply.error["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("outcome", "body", "detail"),
    [
        (declined(K.CARD_DECLINED), None, {"error": "card_declined"}),
        (BROKEN, {"error": "card_declined"}, {"error": "card_declined"}),
        (BROKEN, {"error": "expired"}, {"error": "expired"}),
        (declined(K.CANCELLED), None, {"state": "cancelled"}),
        (paid(), None, {"state": "succeeded"}),
        (PROMPTED, None, {"state": "pending"}),
    ],
    ids=str,
)
async def test_what_cannot_or_must_not_be_tried_again_is_refused(
    payments: Payments, outcome: Any, body: Any, detail: dict[str, str]
) -> None:
    payment = await failed(payments, outcome)
    reply = await call(payments, "POST", payment["id"], body=body)

    assert (reply.status, reply.error["code"]) == (409, "retry_conflict")
    assert detail.items() <= reply.error["details"].items()
    assert await payments.sql("SELECT count(*) FROM retry") == 0


async def test_asking_gets_round_no_limit(payments: Payments) -> None:
    payment = await failed(payments)
    for _ in range(7):
        payments.gateway.next_starts.append(BROKEN)
        assert (await call(payments, "POST", payment["id"])).status == 202
        await payments.retry()
    reply = await call(payments, "POST", payment["id"])

    assert reply.status == 409
    assert reply.error["details"] == {"limit": "card_network_limit"}
    assert len(payments.gateway.orders) == 8


WRONG: list[tuple[str, str, Any, str]] = [
    ("POST", "", {"error": 5}, "error"),
    ("POST", "", {"metadata": {"a": 1}}, "metadata.a"),
    ("POST", "", {"dueAt": "tomorrow"}, "dueAt"),
    ("POST", "", {"dueAt": "2026-01-05T12:00:00"}, "dueAt"),
    ("POST", "", {"dueAt": "2026-03-05T12:00:00Z"}, "dueAt"),
    ("POST", "", {"surplus": 1}, "surplus"),
    ("PATCH", "", {}, "dueAt"),
    ("PATCH", "", {"dueAt": "2030-01-05T12:00:00Z"}, "dueAt"),
]


@pytest.mark.parametrize(("method", "path", "body", "field"), WRONG, ids=str)
async def test_a_wrong_body_is_refused_with_the_name_of_its_field(
    payments: Payments, method: str, path: str, body: Any, field: str
) -> None:
    payment = await failed(payments)
    reply = await call(payments, method, payment["id"], path, body)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert list(reply.error["details"]) == [field]
    assert await payments.sql("SELECT count(*) FROM retry") == 0


async def test_a_retry_is_tried_now_and_moved(payments: Payments) -> None:
    payments.gateway.next_starts += [declined(K.INSUFFICIENT_FUNDS), BROKEN, paid()]
    payment = await processed(payments)
    later = payments.clock() + timedelta(days=3)
    moved = await call(payments, "PATCH", payment["id"], body={"dueAt": later.isoformat()})
    assert moved.data["nextAttemptAt"] == later.isoformat().replace("+00:00", "Z")
    payments.clock.advance(86_400)
    assert await payments.retry() == 0

    assert (await call(payments, "POST", payment["id"], "/now")).status == 200
    assert await payments.retry() == 1
    assert (await call(payments, "POST", payment["id"], "/now")).status == 200
    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    for path in ("/now", "/resume"):
        assert (await call(payments, "POST", payment["id"], path)).status == 409
    assert (await call(payments, "DELETE", payment["id"])).status == 409


async def test_a_cancelled_retry_stays_so_and_can_be_asked_for_anew(payments: Payments) -> None:
    payments.gateway.next_starts += [BROKEN, paid()]
    payment = await processed(payments)
    replies = [await call(payments, "DELETE", payment["id"]) for _ in range(2)]

    assert [(reply.status, reply.data["state"]) for reply in replies] == [(200, "cancelled")] * 2
    assert (await payments.read(payment["id"]))["state"] == "failed"
    payments.clock.advance(86_400)
    assert await payments.retry() == 0
    assert (await call(payments, "POST", payment["id"])).status == 202
    assert await payments.retry() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


async def test_the_database_itself_runs_nothing_that_was_cancelled(payments: Payments) -> None:
    payments.gateway.next_starts.append(BROKEN)
    payment = await processed(payments)
    await call(payments, "DELETE", payment["id"])

    with pytest.raises(Exception, match="must not go from cancelled to running"):
        await payments.sql(
            "UPDATE retry SET state = 'running', finished_at = NULL WHERE payment_id = $1",
            payment["id"],
        )


async def parked(payments: Payments) -> list[str]:
    rows = await payments.rows("SELECT payment_id FROM retry WHERE state = 'parked' ORDER BY 1")
    return [row["payment_id"] for row in rows]


async def test_of_too_many_the_least_urgent_and_oldest_are_parked_and_can_be_resumed(
    payments: Payments,
) -> None:
    ids: dict[str, list[str]] = {"high": [], "medium": [], "normal": []}
    for level, amount in (("normal", 1_000), ("medium", 150_000), ("high", 300_000)) * 2:
        payments.gateway.next_starts.append(BROKEN)
        payment = await processed(payments, amount=amount, product={"id": f"c_{len(ids[level])}"})
        ids[level].append(payment["id"])
        payments.clock.advance(1)
    runtime = replace(
        payments.runtime,
        settings=payments.runtime.settings.model_copy(update={"retry_waiting_max": 3}),
    )

    assert await retry_worker.park_surplus(runtime) == 3
    assert await parked(payments) == sorted([*ids["normal"], ids["medium"][0]])
    payments.clock.advance(3_600)
    payments.gateway.next_starts += [BROKEN] * 3
    assert await payments.retry() == 3

    one = {"id": ids["normal"][0]}
    retry = await retry_of(payments, one)
    assert (retry["state"], (await payments.read(one["id"]))["state"]) == (
        "parked",
        "retry_scheduled",
    )
    assert (await call(payments, "POST", one["id"], "/resume")).data["state"] == "scheduled"
    payments.gateway.next_starts.append(paid(amount=1_000))
    assert await payments.retry() == 1
    assert (await payments.read(one["id"]))["state"] == "succeeded"


async def test_urgent_retries_go_first(payments: Payments) -> None:
    for amount in (1_000, 150_000, 300_000):
        payments.gateway.next_starts.append(BROKEN)
        await processed(payments, amount=amount, product={"id": f"course_{amount}"})
    payments.clock.advance(3_600)
    payments.gateway.next_starts += [BROKEN] * 3
    for _ in range(3):
        for made in await retry_worker.take_up_due(payments.runtime, 1):
            await made

    tried = [order.amount.minor_units for order in payments.gateway.orders[3:]]
    assert tried == [300_000, 150_000, 1_000]


async def test_the_retries_of_a_customer_are_listed_in_pages(payments: Payments) -> None:
    ids = []
    for number in range(3):
        payments.gateway.next_starts.append(BROKEN)
        payment = await processed(payments, product={"id": f"course_{number}"})
        ids.append(payment["id"])
        payments.clock.advance(1)
    payments.gateway.next_starts.append(BROKEN)
    await processed(payments, customer={"id": "cus_2"})
    await call(payments, "DELETE", ids[0])
    path = "/api/payments/retry/user/cus_1"
    first = (await payments.api.call("GET", f"{path}?limit=2")).data
    second = (await payments.api.call("GET", f"{path}?limit=2&cursor={first['nextCursor']}")).data
    cancelled = (await payments.api.call("GET", f"{path}?state=cancelled")).data

    found = [retry["paymentId"] for retry in first["retries"] + second["retries"]]
    assert found == ids[::-1]
    assert second["nextCursor"] is None
    assert [retry["paymentId"] for retry in cancelled["retries"]] == ids[:1]
    for wrong in ("?state=odd", "?cursor=x", "?limit=0"):
        assert (await payments.api.call("GET", path + wrong)).status == 400
    assert (await payments.api.call("GET", "/api/payments/retry/user/a%00b")).status == 400


async def test_statistics_say_what_retries_bring(payments: Payments) -> None:
    payments.gateway.next_starts += [BROKEN, declined(K.CARD_DECLINED), BROKEN]
    paid_later = await processed(payments, amount=1_000)
    await processed(payments, amount=2_000, product={"id": "course_2"})
    await processed(payments, amount=4_000, product={"id": "course_3"})
    await call(payments, "POST", paid_later["id"], "/now")
    payments.clock.advance(30)
    payments.gateway.next_starts.append(paid(amount=1_000))
    await payments.retry()
    found = (await payments.api.call("GET", "/api/payments/retry/stats")).data

    assert (found["total"], found["pending"], found["attempts"]) == (3, 1, 1)
    assert found["byState"] == {
        "scheduled": 1,
        "running": 0,
        "parked": 0,
        "waiting": 0,
        "succeeded": 1,
        "exhausted": 1,
        "cancelled": 0,
    }
    assert found["amounts"] == [
        {
            "currency": "BDT",
            "retries": 3,
            "amount": 7_000,
            "pendingAmount": 4_000,
            "recoveredAmount": 1_000,
        }
    ]
    assert found["errors"] == [
        {"kind": "card_declined", "retries": 1, "succeeded": 0},
        {"kind": "processing_error", "retries": 2, "succeeded": 1},
    ]
    assert (found["successRate"], found["averageSeconds"]) == (0.5, 30.0)
    payments.clock.advance(86_400 * 40)
    later = (await payments.api.call("GET", "/api/payments/retry/stats")).data
    assert (later["total"], later["successRate"], later["averageSeconds"]) == (0, None, None)
    assert (await payments.api.call("GET", "/api/payments/retry/stats?days=0")).status == 400


def restrict(runtime: Runtime, **changes: Any) -> None:
    runtime.flow.controls = replace(runtime.flow.controls, **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"paused": {"all": "incident"}}, "paused:all"),
        ({"paused": {"gateway:sslcommerz": "incident"}}, "paused:gateway:sslcommerz"),
        ({"breakers": {"sslcommerz": BreakerView(BreakerState.OPEN)}}, "breaker_open"),
    ],
    ids=["all paused", "its gateway paused", "breaker open"],
)
async def test_what_a_pause_or_a_breaker_keeps_waits_with_a_reason_and_loses_no_attempt(
    payments: Payments, changes: dict[str, Any], reason: str
) -> None:
    payments.gateway.next_starts += [BROKEN, paid()]
    payment = await processed(payments)
    payments.clock.advance(60)
    restrict(payments.runtime, **changes)
    assert await payments.retry() == 0
    waiting = await retry_of(payments, payment)
    assert (waiting["state"], waiting["waitsFor"], waiting["attemptsMade"]) == (
        "scheduled",
        reason,
        0,
    )

    restrict(payments.runtime, paused={}, breakers={})
    assert await payments.retry() == 1
    assert (await retry_of(payments, payment))["state"] == "succeeded"


async def test_a_retry_that_is_put_off_after_its_claim_was_no_attempt(payments: Payments) -> None:
    payments.gateway.next_starts += [BROKEN, paid()]
    payment = await processed(payments)
    payments.clock.advance(60)
    (made,) = await retry_worker.take_up_due(payments.runtime, 5)
    restrict(payments.runtime, paused={"all": "incident"})
    await made

    waiting = await retry_of(payments, payment)
    assert (waiting["state"], waiting["attemptsMade"], waiting["attempts"]) == ("scheduled", 0, [])
    assert len(payments.gateway.orders) == 1
    restrict(payments.runtime, paused={})
    payments.clock.advance(1)
    assert await payments.retry() == 1
    assert (await retry_of(payments, payment))["state"] == "succeeded"


async def test_a_payment_on_hold_is_not_tried_until_it_is_released(payments: Payments) -> None:
    payments.gateway.next_starts += [BROKEN, paid()]
    payment = await processed(payments)
    await payments.sql(
        "UPDATE payment SET state = 'on_hold', reason = $1, next_check_at = NULL", HELD_BY_OPERATOR
    )
    payments.clock.advance(60)
    assert await payments.retry() == 1
    assert (await retry_of(payments, payment))["waitsFor"] == "payment_is_on_hold"
    await payments.sql("UPDATE payment SET state = 'retry_scheduled'")
    payments.clock.advance(30)
    assert await payments.retry() == 1

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 2


@pytest.fixture
async def page(new_database: str, redis_url: str) -> AsyncIterator[tuple[Payments, dict[str, Any]]]:
    """Run the service with a failed payment whose page may still be open."""
    gateway = FakeGateway(
        capabilities=Capabilities(methods=("checkout",), limits={"BDT": Limits(1, 10**9)})
    )
    async with running_payments(new_database, redis_url, gateway=gateway) as payments:
        payment = await payments.create()
        payments.gateway.decline(payment["gatewayReference"])
        await payments.notify_of(payment, claim="failed")
        yield payments, payment


async def test_no_page_is_opened_beside_one_that_may_still_be_paid(
    page: tuple[Payments, dict[str, Any]],
) -> None:
    payments, payment = page
    assert (await call(payments, "POST", payment["id"])).status == 202
    await payments.retry()

    assert len(payments.gateway.orders) == 1
    retry = await retry_of(payments, payment)
    assert (retry["state"], retry["code"]) == ("exhausted", "earlier_try_is_still_open")
    assert (await payments.read(payment["id"]))["state"] == "failed"


async def test_a_new_page_is_opened_when_the_gateway_says_that_the_old_one_is_over(
    page: tuple[Payments, dict[str, Any]],
) -> None:
    payments, payment = page
    payments.gateway.decline(payment["gatewayReference"], is_final=True)
    await call(payments, "POST", payment["id"])
    await payments.retry()

    now = await payments.read(payment["id"])
    assert (now["state"], len(payments.gateway.orders)) == ("pending", 2)
    assert now["checkoutUrl"].endswith(now["gatewayReference"])
    assert (await retry_of(payments, payment))["state"] == "running"


async def test_money_that_came_on_an_old_page_is_found_instead_of_opening_another(
    page: tuple[Payments, dict[str, Any]],
) -> None:
    payments, payment = page
    payments.gateway.charge(payment["gatewayReference"])
    await call(payments, "POST", payment["id"])
    await payments.retry()

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert len(payments.gateway.orders) == 1


async def test_a_retry_of_a_gateway_that_was_switched_off_waits_visibly(
    payments: Payments, new_database: str, redis_url: str
) -> None:
    payments.gateway.next_starts.append(BROKEN)
    payment = await processed(payments)
    payments.clock.advance(60)
    other = FakeGateway(name="fapshi")
    async with running_payments(
        new_database, redis_url, gateway=other, clock=payments.clock
    ) as without:
        assert await without.retry() == 0
        assert (await retry_of(without, payment))["waitsFor"] == "gateway_is_off"
