"""Anybody with a key sees how gateways stand; operators open and close breakers by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from services.payments.handlers.flow_sync import FlowSync
from services.payments.routes.gateways import gateway_routes
from services.payments.runtime import Runtime
from services.payments.settings import GatewayLimitSettings
from shared.web.idempotency import IdempotencyKeys
from tests.integration.payments.world import running_runtime
from tests.support.clocks import ManualClock
from tests.support.fake_gateway import FakeGateway
from tests.support.http_api import Api, Reply, serving

PATH = "/api/gateways/sslcommerz"


@dataclass
class World:
    """The routes, and one worker beside them."""

    runtime: Runtime
    worker: FlowSync
    api: Api

    async def read(self) -> dict[str, Any]:
        data = (await self.api.call("GET", PATH)).data
        assert isinstance(data, dict)
        return data

    async def force(self, force: str, key: str | None = None, **body: Any) -> Reply:
        body = {"force": force, "reason": "they move their servers", **body}
        return await self.api.call("POST", f"{PATH}/breaker", body, idempotency_key=key)

    async def sql(self, statement: str) -> Any:
        async with self.runtime.core.database.connection() as connection:
            return await connection.fetchval(statement)


@pytest.fixture
async def world(new_database: str, redis_url: str) -> AsyncIterator[World]:
    clock = ManualClock()
    async with running_runtime(new_database, redis_url, FakeGateway(), clock) as opened:
        limits = {"sslcommerz": GatewayLimitSettings(concurrency=8, calls_per_second=2.5)}
        settings = opened.settings.model_copy(update={"gateway_limits": limits})
        runtime = replace(opened, settings=settings)
        keys = IdempotencyKeys(runtime.core.database, clock)
        async with serving(gateway_routes(runtime, keys)) as api:
            yield World(runtime, FlowSync(runtime, "worker"), api)


async def test_a_gateway_that_nobody_called_yet_is_closed_and_has_its_limits(world: World) -> None:
    reply = await world.api.call("GET", "/api/gateways", key="reader")

    assert reply.data == {
        "gateways": [
            {
                "name": "sslcommerz",
                "breaker": {
                    "state": "closed",
                    "force": "automatic",
                    "reason": None,
                    "since": None,
                    "until": None,
                    "heldUntil": None,
                    "window": {"calls": 0, "failures": 0},
                    "probes": {"calls": 0, "failures": 0},
                },
                "limits": {"concurrency": 8, "callsPerSecond": 2.5},
                "paused": None,
            }
        ]
    }


async def test_one_gateway_is_shown_with_who_calls_it(world: World) -> None:
    await world.worker.synchronize()

    assert (await world.read())["shares"] == [
        {
            "process": world.worker.process,
            "kind": "worker",
            "concurrency": 8,
            "callsPerSecond": 2.5,
            "inFlight": 0,
            "waiting": 0,
        }
    ]


async def test_a_breaker_that_is_forced_open_says_who_and_why(world: World) -> None:
    reply = await world.force("open")

    assert reply.status == 200
    await world.worker.synchronize()
    assert world.runtime.flow.controls.breakers["sslcommerz"].state == "open"
    shown = await world.read()
    assert (shown["breaker"]["state"], shown["breaker"]["force"]) == ("open", "open")
    assert [
        (each["state"], each["force"], each["reason"], each["by"]) for each in shown["history"]
    ] == [("open", "open", "they move their servers", "admin")]


async def test_what_was_forced_is_undone(world: World) -> None:
    await world.force("open")
    shown = (await world.force("automatic")).data

    assert isinstance(shown, dict)
    assert (shown["breaker"]["state"], shown["breaker"]["force"]) == ("half_open", "automatic")
    assert len(shown["history"]) == 2


async def test_a_repeated_request_is_carried_out_and_recorded_once(world: World) -> None:
    first = await world.force("closed", key="k1")
    second = await world.force("closed", key="k1")

    assert first.json == second.json
    assert await world.sql("SELECT count(*) FROM operator_action") == 1
    assert await world.sql("SELECT count(*) FROM gateway_breaker_history") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"force": "half_open"}, "force"),
        ({"force": None}, "force"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_bad_input_names_its_field_and_changes_nothing(
    world: World, body: dict[str, Any], field: str
) -> None:
    reply = await world.force(**{"force": "open", **body})

    assert reply.status == 400
    assert field in reply.error["details"]
    assert await world.sql("SELECT count(*) FROM operator_action") == 0


@pytest.mark.parametrize("name", ["paypal", "%00", "%ff", "x" * 5_000], ids=lambda n: n[:6])
async def test_a_gateway_that_there_is_not_is_not_found(world: World, name: str) -> None:
    path = f"/api/gateways/{name}"
    assert (await world.api.call("GET", path)).status == 404
    body = {"force": "open", "reason": "none"}
    assert (await world.api.call("POST", f"{path}/breaker", body)).status == 404


@pytest.mark.parametrize("key", ["reader", "writer"])
async def test_only_operators_force_breakers(world: World, key: str) -> None:
    body = {"force": "open", "reason": "none"}

    assert (await world.api.call("POST", f"{PATH}/breaker", body, key=key)).status == 403
