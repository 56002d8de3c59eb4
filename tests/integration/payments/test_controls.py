"""An operator's hand on the wheel: pauses, the drain, limits, purge, and the record of all that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from services.payments.handlers.flow_sync import FlowSync, in_step
from services.payments.runtime import Runtime
from shared.contracts.priorities import Priority
from shared.contracts.subscriptions import SUBSCRIPTIONS, queues_of
from tests.integration.payments.world import (
    Payments,
    look_at_due,
    order,
    running_payments,
    running_runtime,
)
from tests.support.clocks import ManualClock
from tests.support.fake_gateway import FakeGateway
from tests.support.http_api import Reply
from tests.support.polling import eventually
from tests.support.queues import key_of

OPERATIONS = "/api/operations"

#: Every write of this subject: method, path, and a body without its reason (None: in the query).
WRITES: list[tuple[str, str, dict[str, Any] | None]] = [
    ("POST", "pause", {"target": "all"}),
    ("POST", "resume", {"target": "all"}),
    ("POST", "drain", {}),
    ("PUT", "limits", {"batchSize": 7}),
    ("DELETE", "limits", None),
    ("POST", "purge", {}),
]


async def operate(
    payments: Payments, what: str, *, method: str = "POST", key: str | None = None, **body: Any
) -> Reply:
    body = {"reason": "because", **body}
    reply = await payments.api.call(method, f"{OPERATIONS}/{what}", body, idempotency_key=key)
    payments.clock.advance(0.001)  # Actions are listed in the order of their milliseconds.
    return reply


async def held(payments: Payments) -> Any:
    return (await payments.api.call("GET", f"{OPERATIONS}/controls")).data


async def actions(payments: Payments, query: str = "") -> list[dict[str, Any]]:
    """Return the recorded actions, the first one first."""
    data = (await payments.api.call("GET", f"{OPERATIONS}/actions{query}")).data
    found: list[dict[str, Any]] = data["actions"]
    return found[::-1]


async def heard(payments: Payments) -> None:
    """Let the process hear at once what the operators decided."""
    await FlowSync(payments.runtime, "http").synchronize()


async def test_a_paused_payment_is_not_looked_at_until_it_is_resumed(payments: Payments) -> None:
    payment = await payments.create()
    payments.gateway.charge(payment["gatewayReference"])
    reply = await operate(payments, "pause", target="gateway:sslcommerz", reason="bank is down")
    await heard(payments)
    payments.clock.advance(60)

    assert await payments.look() == 0

    assert reply.data["paused"] == [
        {
            "target": "gateway:sslcommerz",
            "reason": "bank is down",
            "by": "admin",
            "at": "2026-01-05T12:00:00Z",
        }
    ]
    assert payments.gateway.questions == []
    waiting = await payments.read(payment["id"])
    assert (waiting["state"], waiting["nextCheckAt"]) == ("pending", "2026-01-05T12:00:30Z")

    assert (await operate(payments, "resume", target="gateway:sslcommerz")).data["paused"] == []
    await heard(payments)
    assert await payments.look() == 1
    assert (await payments.read(payment["id"]))["state"] == "succeeded"


@pytest.mark.parametrize(
    ("target", "is_kept_back"),
    [
        pytest.param("all", True, id="all"),
        pytest.param("gateway:sslcommerz", True, id="its gateway"),
        pytest.param("priority:medium", True, id="its priority"),
        pytest.param("priority:high", False, id="another priority"),
    ],
)
async def test_a_pause_keeps_back_what_it_names(
    payments: Payments, *, target: str, is_kept_back: bool
) -> None:
    await operate(payments, "pause", target=target)
    await heard(payments)

    reply = await payments.post(amount=150_000)

    assert reply.status == (502 if is_kept_back else 201)
    assert len(payments.gateway.orders) == (0 if is_kept_back else 1)


async def test_a_payment_that_comes_during_a_pause_is_kept_and_begun_when_it_is_repeated(
    payments: Payments,
) -> None:
    await operate(payments, "pause", target="all", reason="bank is down")
    await heard(payments)
    refused = await payments.post("key-1")
    assert refused.error["code"] == "gateway_unavailable"
    assert refused.error["details"]["reason"] == "paused:all"

    await operate(payments, "resume", target="all")
    await heard(payments)
    again = await payments.post("key-1")

    assert again.status == 201
    assert again.data["id"] == refused.error["details"]["paymentId"]
    assert len(payments.gateway.orders) == 1


@asynccontextmanager
async def fleet(
    database_url: str, redis_url: str, gateway: FakeGateway, clock: ManualClock, count: int
) -> AsyncIterator[list[Runtime]]:
    """Run workers, each with a connection pool of its own, that keep in step with the fleet."""
    async with AsyncExitStack() as stack:
        runtimes, loops = [], []
        for _ in range(count):
            runtime = await stack.enter_async_context(
                running_runtime(database_url, redis_url, gateway, clock)
            )
            keep_in_step = await stack.enter_async_context(in_step(runtime, "worker"))
            loops.append(asyncio.create_task(keep_in_step()))
            runtimes.append(runtime)
        yield runtimes
        for loop in loops:
            loop.cancel()


async def test_a_pause_takes_effect_on_every_worker_within_two_seconds_and_loses_nothing(
    new_database: str, redis_url: str
) -> None:
    gateway, clock = FakeGateway(), ManualClock()
    async with (
        running_payments(new_database, redis_url, gateway=gateway, clock=clock) as payments,
        fleet(new_database, redis_url, gateway, clock, 3) as workers,
    ):
        created = [await payments.create() for _ in range(30)]
        for payment in created:
            gateway.charge(payment["gatewayReference"])
        clock.advance(60)

        async def all_defer() -> bool:
            return all(each.flow.deferral("sslcommerz", Priority.NORMAL) for each in workers)

        async def none_defers() -> bool:
            return not any(each.flow.deferral("sslcommerz", Priority.NORMAL) for each in workers)

        began = time.monotonic()
        await operate(payments, "pause", target="all")
        await eventually(all_defer)
        took = time.monotonic() - began
        assert took < 2
        assert [await look_at_due(each) for each in workers] == [0, 0, 0]
        assert gateway.questions == []

        await operate(payments, "resume", target="all")
        await eventually(none_defers)
        looked = await asyncio.gather(*(look_at_due(each) for each in workers))

        assert sum(looked) == 30
        states = {(await payments.read(payment["id"]))["state"] for payment in created}
        assert states == {"succeeded"}
        assert len(await payments.announcements()) == 30


async def test_a_drain_refuses_what_is_new_and_finishes_what_is_in_hand(
    payments: Payments,
) -> None:
    payment = await payments.create()
    drained = (await operate(payments, "drain", reason="new database")).data
    assert drained["drain"]["reason"] == "new database"
    assert drained["inHand"] == {"isEmpty": False, "payments": {"pending": 1}, "messages": 1}
    await heard(payments)

    refused = await payments.post()

    assert (refused.status, refused.headers["Retry-After"]) == (503, "15")
    assert refused.error["code"] == "not_accepting"
    assert refused.error["message"] == "no new payments are accepted: new database"
    assert await payments.sql("SELECT count(*) FROM payment") == 1

    await payments.paid(payment)
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert (await held(payments))["inHand"] == {"isEmpty": False, "payments": {}, "messages": 2}
    await payments.rows("DELETE FROM outbox WHERE id > 0")
    assert (await held(payments))["inHand"]["isEmpty"] is True

    assert (await operate(payments, "resume", target="new")).data["drain"] is None
    await heard(payments)
    assert (await payments.post()).status == 201


async def test_a_request_that_was_begun_before_a_drain_is_carried_on(payments: Payments) -> None:
    payments.gateway.is_silent = True
    await operate(payments, "pause", target="all")
    await heard(payments)
    begun = await payments.post("key-1")
    assert begun.status == 502
    payments.gateway.is_silent = False

    await operate(payments, "drain")
    await operate(payments, "resume", target="all")
    await heard(payments)

    assert (await payments.post("key-1")).status == 201
    assert (await payments.post("key-2")).status == 503


async def test_limits_by_hand_go_before_the_settings_and_are_dropped_again(
    payments: Payments,
) -> None:
    before = (await held(payments))["limits"]
    assert before == {
        "inForce": {"maxConcurrentPayments": 10, "batchSize": 50},
        "settings": {"maxConcurrentPayments": 10, "batchSize": 50},
        "profile": {},
        "operator": None,
    }

    limits: dict[str, Any] = {
        "maxConcurrentPayments": 3,
        "gateways": {"sslcommerz": {"concurrency": 4, "callsPerSecond": 2.5}},
    }
    after = (await operate(payments, "limits", method="PUT", **limits)).data["limits"]
    assert after["inForce"] == limits | {"batchSize": 50}
    assert after["operator"]["limits"] == limits
    await heard(payments)
    controls = payments.runtime.flow.controls
    assert (controls.charges, controls.batch_size) == (3, 50)
    assert "sslcommerz" in controls.gateway_calls

    reply = await payments.api.call("DELETE", f"{OPERATIONS}/limits?reason=done")
    assert reply.data["limits"] == before
    await heard(payments)
    controls = payments.runtime.flow.controls
    assert (controls.charges, controls.gateway_calls) == (10, {})


async def test_the_later_of_two_decisions_holds_whole(payments: Payments) -> None:
    await operate(payments, "limits", method="PUT", maxConcurrentPayments=3)
    await operate(payments, "limits", method="PUT", batchSize=9)

    limits = (await held(payments))["limits"]

    assert limits["operator"]["limits"] == {"batchSize": 9}
    assert limits["inForce"] == {"maxConcurrentPayments": 10, "batchSize": 9}


async def test_a_purge_tells_what_it_cleared(payments: Payments) -> None:
    key = key_of("payments.high")
    await payments.core.redis.zadd(f"{key}.XQ", {"a": 1, "b": 2})
    for dead in ("a", "b"):
        await payments.core.redis.hset(f"{key}.XQ.msgs", dead, b"{}")
    await payments.core.redis.hset(f"{key_of('enrollment.grants')}.msgs", "orphan", b"{}")

    purged = (await operate(payments, "purge")).data

    assert (purged["deadLetters"], purged["orphanedBodies"]) == (2, 1)
    services = {each.service for all_ in SUBSCRIPTIONS.values() for each in all_}
    assert purged["queues"].keys() == {queue for name in services for queue in queues_of(name)}
    (recorded,) = await actions(payments)
    assert (recorded["action"], recorded["after"]) == (
        "purge",
        {
            "enrollment.grants": {"deadLetters": 0, "orphanedBodies": 1},
            "payments.high": {"deadLetters": 2, "orphanedBodies": 0},
        },
    )


async def test_each_action_is_recorded_with_who_when_why_and_what_it_changed(
    payments: Payments,
) -> None:
    await operate(payments, "pause", target="all", reason="bank is down")
    payments.clock.advance(90)
    await operate(payments, "pause", target="all", reason="still down")
    await operate(payments, "resume", target="all", reason="bank is up")
    await operate(payments, "resume", target="all", reason="to be sure")

    first, second, third, fourth = await actions(payments)

    assert {key: first[key] for key in ("at", "actor", "action", "target", "reason")} == {
        "at": "2026-01-05T12:00:00Z",
        "actor": "admin",
        "action": "pause",
        "target": "all",
        "reason": "bank is down",
    }
    assert (first["before"], first["after"]) == (None, {"reason": "bank is down", "by": "admin"})
    assert second["before"] == first["after"]
    assert (third["action"], third["after"]) == ("resume", None)
    assert third["before"] == {"reason": "still down", "by": "admin"}
    assert (fourth["before"], fourth["after"]) == (None, None)


async def test_actions_are_paged_and_filtered(payments: Payments) -> None:
    for target in ("all", "priority:high", "priority:normal"):
        await operate(payments, "pause", target=target)
        payments.clock.advance(1)

    page = (await payments.api.call("GET", f"{OPERATIONS}/actions?limit=2")).data
    rest = await actions(payments, f"?cursor={page['nextCursor']}")

    assert [each["target"] for each in page["actions"]] == ["priority:normal", "priority:high"]
    assert [each["target"] for each in rest] == ["all"]
    assert len(await actions(payments, "?target=priority:high")) == 1
    assert await actions(payments, "?action=resume") == []
    assert len(await actions(payments, "?actor=admin")) == 3


async def test_a_repeated_request_decides_and_records_once(payments: Payments) -> None:
    first = await operate(payments, "pause", target="all", key="k")
    await operate(payments, "resume", target="all")
    again = await operate(payments, "pause", target="all", key="k")

    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.data == first.data
    assert (await held(payments))["paused"] == []
    assert [each["action"] for each in await actions(payments)] == ["pause", "resume"]


async def test_a_request_that_was_cut_off_after_its_commit_decides_no_second_time(
    payments: Payments,
) -> None:
    await operate(payments, "pause", target="all", key="k")
    await operate(payments, "resume", target="all")
    await payments.rows(
        "UPDATE idempotency_key SET status = NULL, body = NULL,"
        " leased_until = clock_timestamp() WHERE key = 'k'"
    )

    assert (await operate(payments, "pause", target="all", key="k")).data["paused"] == []

    assert [each["action"] for each in await actions(payments)] == ["pause", "resume"]


async def test_of_operators_at_once_each_is_told_what_the_one_before_it_decided(
    payments: Payments,
) -> None:
    await asyncio.gather(
        *(operate(payments, "limits", method="PUT", batchSize=size) for size in range(1, 21))
    )

    found = await actions(payments)
    chain = {each["after"]["batchSize"]: each["before"] for each in found}
    last = (await held(payments))["limits"]["operator"]["limits"]["batchSize"]
    told = []
    while last is not None:
        told.append(last)
        before = chain[last]
        last = None if before is None else before["batchSize"]

    assert sorted(told) == list(range(1, 21))


@pytest.mark.parametrize(("method", "what", "body"), WRITES)
async def test_every_action_needs_a_reason_and_the_scope_admin(
    payments: Payments, method: str, what: str, body: dict[str, Any] | None
) -> None:
    path = f"{OPERATIONS}/{what}"
    for reason in (None, "", "   ", "a\x00b", "x" * 501):
        given = {} if reason is None else {"reason": reason}
        if body is None:
            query = "" if reason is None else "?reason=" + reason.replace("\x00", "%00")
            reply = await payments.api.call(method, path + query)
        else:
            reply = await payments.api.call(method, path, body | given)
        assert reply.status == 400, reason
        assert "reason" in reply.error["details"]
    writer = await payments.api.call(
        method, f"{path}?reason=r", None if body is None else body | {"reason": "r"}, key="writer"
    )
    assert writer.status == 403
    assert await actions(payments) == []
    assert await payments.sql("SELECT count(*) FROM control") == 0


@pytest.mark.parametrize(
    ("method", "what", "body", "field"),
    [
        ("POST", "pause", {"target": "everything"}, "target"),
        ("POST", "pause", {"target": "new"}, "target"),
        ("POST", "pause", {"target": "gateway:paypal"}, "target"),
        ("POST", "pause", {"target": "priority:urgent"}, "target"),
        ("POST", "pause", {}, "target"),
        ("POST", "resume", {"target": 7}, "target"),
        ("POST", "drain", {"target": "all"}, "target"),
        ("PUT", "limits", {"maxConcurrentPayments": 0}, "maxConcurrentPayments"),
        ("PUT", "limits", {"batchSize": 1_001}, "batchSize"),
        ("PUT", "limits", {"batchSize": "50"}, "batchSize"),
        (
            "PUT",
            "limits",
            {"gateways": {"sslcommerz": {"callsPerSecond": 0}}},
            "gateways.sslcommerz.callsPerSecond",
        ),
        ("PUT", "limits", {"gateways": {"paypal": {"concurrency": 1}}}, "gateways.paypal"),
        ("PUT", "limits", {"gateways": {"A B": {"concurrency": 1}}}, "gateways.A B.[key]"),
        ("PUT", "limits", {"gateways": {"sslcommerz": {"rate": 1}}}, "gateways.sslcommerz.rate"),
    ],
)
async def test_a_wrong_value_is_named_and_changes_nothing(
    payments: Payments, method: str, what: str, body: dict[str, Any], field: str
) -> None:
    reply = await operate(payments, what, method=method, **body)

    assert reply.status == 400
    assert field in reply.error["details"]
    assert await actions(payments) == []
    assert await payments.sql("SELECT count(*) FROM control") == 0


async def test_a_body_of_another_shape_is_refused(payments: Payments) -> None:
    for body in (b"", b"[]", b"{", b"null", b'{"reason": "\xff"}', b'{"reason": "\\ud800"}'):
        reply = await payments.api.call("POST", f"{OPERATIONS}/drain", body)
        assert reply.status == 400, body


async def test_what_holds_outlives_a_process(new_database: str, redis_url: str) -> None:
    async with running_payments(new_database, redis_url) as payments:
        await operate(payments, "pause", target="all")
        await operate(payments, "drain")

    async with running_payments(new_database, redis_url) as payments:
        await heard(payments)
        assert payments.runtime.flow.deferral("sslcommerz", Priority.HIGH) is not None
        assert (await payments.api.call("POST", "/api/payments", order())).status == 503
