"""What operators and probes read, also while PostgreSQL or Redis is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.parser import text_string_to_metric_families

from shared.process import Core, Part, open_core
from tests.support.http_api import Api, serving
from tests.support.polling import eventually
from tests.support.settings import service_settings
from tests.support.tcp_proxy import TcpProxy, proxied


@dataclass
class World:
    api: Api
    core: Core
    postgres: TcpProxy
    redis: TcpProxy
    problems: list[str]

    async def statuses(self) -> tuple[int, ...]:
        paths = ("/health", "/livez", "/readyz", "/metrics")
        return tuple([(await self.api.call("GET", path, key=None)).status for path in paths])


@asynccontextmanager
async def running(database_url: str, redis_url: str, *, needs_redis: bool) -> AsyncIterator[World]:
    async with (
        proxied(database_url) as (postgres, through_postgres),
        proxied(redis_url) as (redis, through_redis),
        open_core(service_settings(through_redis), "payments", through_postgres) as core,
    ):
        problems: list[str] = []
        part = Part(
            name="payments-test",
            needs_redis=needs_redis,
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            problems=lambda: list(problems),
            measure=core.measure,
        )
        async with serving(parts=[part]) as api:
            yield World(api, core, postgres, redis, problems)


async def test_all_is_well(new_database: str, redis_url: str) -> None:
    async with running(new_database, redis_url, needs_redis=True) as world:
        assert await world.statuses() == (200, 200, 200, 200)
        health = (await world.api.call("GET", "/health", key=None)).json

    assert datetime.fromisoformat(health.pop("timestamp")).tzinfo is not None
    assert health == {
        "status": "healthy",
        "database": "connected",
        "redis": "connected",
        "problems": [],
    }


async def test_without_postgresql_no_process_is_ready_but_all_live(
    new_database: str, redis_url: str
) -> None:
    async with running(new_database, redis_url, needs_redis=False) as world:
        await world.postgres.cut()
        assert await world.statuses() == (503, 200, 503, 200)
        health = (await world.api.call("GET", "/health", key=None)).json
        assert (health["status"], health["database"]) == ("unhealthy", "disconnected")
        ready = (await world.api.call("GET", "/readyz", key=None)).json
        assert ready["problems"] == ["PostgreSQL does not answer"]

        await world.postgres.mend()

        async def is_well_again() -> bool:
            return await world.statuses() == (200, 200, 200, 200)

        await eventually(is_well_again)


async def test_without_redis_an_http_process_is_ready_and_a_worker_is_not(
    new_database: str, redis_url: str
) -> None:
    for needs_redis, readiness in ((False, 200), (True, 503)):
        async with running(new_database, redis_url, needs_redis=needs_redis) as world:
            await world.redis.cut()
            assert await world.statuses() == (503, 200, readiness, 200)
            await world.redis.mend()

            async def is_well_again(world: World = world) -> bool:
                return await world.statuses() == (200, 200, 200, 200)

            await eventually(is_well_again)


async def test_a_dead_thread_fails_liveness_with_its_name(
    new_database: str, redis_url: str
) -> None:
    async with running(new_database, redis_url, needs_redis=True) as world:
        world.problems.append("consumer of payments.high is dead")
        assert await world.statuses() == (503, 503, 503, 200)
        live = (await world.api.call("GET", "/livez", key=None)).json
        assert live == {"status": "failing", "problems": ["consumer of payments.high is dead"]}


async def test_metrics_are_prometheus_text_with_routes_not_paths(
    new_database: str, redis_url: str
) -> None:
    async with running(new_database, redis_url, needs_redis=True) as world:
        await world.api.call("GET", "/wp-login.php?id=4711", key=None)
        reply = await world.api.call("GET", "/metrics", key=None)

    assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(reply.raw.decode()))
    names = {family.name for family in families}
    assert {"outbox_messages", "queue_messages", "dead_letters"} <= names
    (http,) = (family for family in families if family.name == "http_request_duration_seconds")
    routes = {sample.labels["route"] for sample in http.samples}
    assert "none" in routes
    assert not any("wp-login" in route for route in routes)
