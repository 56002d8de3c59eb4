"""Idempotency keys: one effect and one answer per key, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from shared.clock import system_clock
from shared.errors import ConflictError, GatewayUnavailableError
from shared.process import Core, open_core
from shared.web.application import CALLER
from shared.web.idempotency import KEEP_DAYS, LEASE_SECONDS, IdempotencyKeys
from shared.web.routes import Answer, Route, Scope, read_body
from tests.support.http_api import Api, Reply, serving
from tests.support.polling import eventually
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied

PATH = "/api/things"


@dataclass
class Making:
    """Makes things, and does what the test says."""

    core: Core
    made: list[str] = field(default_factory=list)
    act: Callable[[], Awaitable[None]] | None = None
    api: Api = field(init=False)

    async def work(self, thing_id: str) -> Answer:
        self.made.append(thing_id)
        if self.act is not None:
            await self.act()
        return Answer({"id": thing_id, "number": len(self.made)}, status=201)

    async def post(self, key: str | None, body: object = None, **options: str) -> Reply:
        body = {"amount": 1} if body is None else body
        return await self.api.call(
            options.get("method", "POST"),
            options.get("path", PATH),
            body,
            idempotency_key=key,
            key=options.get("caller", "writer"),
        )

    async def sql(self, statement: str, *values: object) -> object:
        async with self.core.database.connection() as connection:
            return await connection.fetchval(statement, *values)

    async def until_started(self, count: int) -> None:
        async def started() -> bool:
            return len(self.made) >= count

        await eventually(started)


def routes(making: Making) -> list[Route]:
    idempotency = IdempotencyKeys(making.core.database, system_clock)

    async def make(request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        return await idempotency.run(
            request, body, caller=request[CALLER], prefix="thg", work=making.work
        )

    return [
        Route("POST", PATH, make, Scope.WRITE),
        Route("PUT", PATH, make, Scope.WRITE),
        Route("POST", PATH + "/{id}", make, Scope.WRITE),
    ]


@pytest.fixture
async def making(payments_core: Core) -> AsyncIterator[Making]:
    making = Making(payments_core)
    async with serving(routes(making)) as making.api:
        yield making


async def test_the_same_key_and_body_give_the_first_answer_again_and_say_so(
    making: Making,
) -> None:
    first = await making.post("key")
    second = await making.post("key")

    assert (first.status, first.data["number"]) == (201, 1)
    assert (second.status, second.raw) == (first.status, first.raw)
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(making.made) == 1


async def test_without_a_key_every_request_counts(making: Making) -> None:
    ids = {(await making.post(None)).data["id"] for _ in range(3)}

    assert len(ids) == 3
    assert await making.sql("SELECT count(*) FROM idempotency_key") == 0


async def test_the_same_key_with_another_request_is_a_conflict(making: Making) -> None:
    await making.post("key")

    for reply in (
        await making.post("key", {"amount": 2}),
        await making.post("key", b'{"amount":  1}'),
        await making.post("key", path=PATH + "/1"),
        await making.post("key", method="PUT"),
    ):
        assert (reply.status, reply.error["code"]) == (409, "idempotency_key_reused")
    assert len(making.made) == 1


async def test_each_caller_has_keys_of_its_own(making: Making) -> None:
    first = await making.post("key", caller="writer")
    second = await making.post("key", caller="admin")

    assert first.data["id"] != second.data["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"])
async def test_a_key_that_cannot_be_kept_is_refused(making: Making, key: str) -> None:
    reply = await making.post(key)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert "Idempotency-Key" in reply.error["details"]
    assert making.made == []


async def test_of_concurrent_requests_with_a_key_one_wins_and_the_others_are_told(
    making: Making,
) -> None:
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    making.act = wait
    tasks = [asyncio.create_task(making.post("key")) for _ in range(5)]

    async def four_are_refused() -> bool:
        return sum(task.done() for task in tasks) == 4

    await eventually(four_are_refused)
    go_on.set()
    replies = await asyncio.gather(*tasks)

    assert sorted(reply.status for reply in replies) == [201, 409, 409, 409, 409]
    codes = {reply.error["code"] for reply in replies if reply.status == 409}
    assert codes == {"idempotency_key_in_use"}
    assert len(making.made) == 1
    assert (await making.post("key")).status == 201


async def test_a_refusal_for_good_is_kept(making: Making) -> None:
    async def refuse() -> None:
        raise ConflictError("the customer is enrolled")

    making.act = refuse
    first = await making.post("key")
    making.act = None
    second = await making.post("key")

    assert first.status == second.status == 409
    assert first.raw == second.raw
    assert len(making.made) == 1


async def test_an_outage_is_not_kept_and_the_repeated_request_carries_on_with_the_same_id(
    making: Making,
) -> None:
    async def outage() -> None:
        raise GatewayUnavailableError("no answer")

    making.act = outage
    first = await making.post("key")
    making.act = None
    second = await making.post("key")

    assert (first.status, second.status) == (502, 201)
    assert making.made == [second.data["id"]] * 2


async def test_a_bug_is_not_kept_either_but_holds_its_lease(making: Making) -> None:
    async def break_() -> None:
        raise ZeroDivisionError

    making.act = break_
    assert (await making.post("key")).status == 500
    making.act = None
    in_use = await making.post("key")
    assert (in_use.status, in_use.error["code"]) == (409, "idempotency_key_in_use")

    await making.sql("UPDATE idempotency_key SET leased_until = clock_timestamp()")
    again = await making.post("key")
    assert again.status == 201
    assert making.made == [again.data["id"]] * 2


async def test_a_request_that_died_half_way_is_carried_on_with_its_id_once_its_lease_is_over(
    making: Making,
) -> None:
    """A process that is killed leaves exactly this: a claimed key, its resource, no answer."""

    async def hang() -> None:
        await asyncio.Event().wait()

    making.act = hang
    dying = asyncio.create_task(making.post("key"))
    await making.until_started(1)
    making.act = None
    assert (await making.post("key")).status == 409
    seconds = await making.sql("""
        SELECT extract(epoch FROM leased_until - clock_timestamp())::float FROM idempotency_key""")
    assert seconds == pytest.approx(LEASE_SECONDS, abs=5)

    await making.sql("UPDATE idempotency_key SET leased_until = clock_timestamp()")
    assert (await making.post("key", {"amount": 2})).status == 409, "still bound to its body"
    again = await making.post("key")
    assert again.status == 201
    assert making.made == [again.data["id"]] * 2
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)


async def test_a_key_is_forgotten_after_a_week(making: Making) -> None:
    await making.post("old")
    await making.post("young")
    await making.sql(
        "UPDATE idempotency_key SET created_at = created_at - make_interval(days => $1, secs => 60)"
        " WHERE key = 'old'",
        KEEP_DAYS,
    )
    idempotency = IdempotencyKeys(making.core.database, system_clock)
    forgetting = asyncio.create_task(idempotency.forget_old_for_ever())

    async def forgotten() -> bool:
        return await making.sql("SELECT array_agg(key) FROM idempotency_key") == ["young"]

    await eventually(forgotten)
    forgetting.cancel()
    await asyncio.gather(forgetting, return_exceptions=True)


async def test_when_postgresql_goes_away_before_the_answer_is_kept_the_caller_is_told_to_repeat(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(new_database) as (proxy, url),
        open_core(service_settings(redis_url), "payments", url) as core,
    ):
        making = Making(core)
        making.act = proxy.cut
        async with serving(routes(making)) as making.api:
            reply = await making.post("key")
            assert reply.status == 503
            assert "Retry-After" in reply.headers
            await proxy.mend()
            making.act = None

            async def is_free() -> bool:
                return (await making.post("key")).status == 201

            await eventually(is_free)  # Long before the lease would have run out.
            again = await making.post("key")
            assert again.headers["Idempotent-Replayed"] == "true"
            assert making.made == [again.data["id"]] * 2


async def test_a_lease_that_ran_out_is_not_released_in_another_s_name(making: Making) -> None:
    lease = "UPDATE idempotency_key SET leased_until = clock_timestamp()"

    async def fail_late() -> None:
        await making.sql(lease + " + interval '1 minute'")  # Another request holds it by now.
        raise GatewayUnavailableError("the gateway does not say")

    making.act = fail_late
    assert (await making.post("key")).status == 502
    making.act = None

    assert (await making.post("key")).json["error"]["code"] == "idempotency_key_in_use"
    await making.sql(lease)
    assert (await making.post("key")).status == 201
