"""The front door passes everything on as it came, and says so when nobody is behind it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from deploy.local.front_door import front_door_part, make_application
from deploy.local.ports import free_port
from deploy.local.services import PATH_PREFIXES
from services.simulator.app import http_part
from services.simulator.settings import SimulatorSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def front_door(**handlers: Handler) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a front door before stand-ins: webhook at /webhooks/, payments at /api/payments."""
    prefixes = {"webhook": "/webhooks/", "payments": "/api/payments"}
    async with AsyncExitStack() as stack:
        processes = {}
        for name, handler in handlers.items():
            application = web.Application(client_max_size=1 << 30)
            application.router.add_route("*", "/{path:.*}", handler)
            server = await stack.enter_async_context(TestServer(application))
            processes[name] = f"http://127.0.0.1:{server.port}"
        for name in prefixes:
            processes.setdefault(name, f"http://127.0.0.1:{free_port()}")
        upstreams = {prefix: processes[name] for name, prefix in prefixes.items()}
        part = await stack.enter_async_context(front_door_part(upstreams, processes))
        door = await stack.enter_async_context(TestServer(make_application([part])))
        yield await stack.enter_async_context(
            aiohttp.ClientSession(f"http://127.0.0.1:{door.port}", auto_decompress=False)
        )


def says(text: str) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=f"{text} {request.method} {request.raw_path}")

    return handler


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/webhooks/sslcommerz", "webhook POST /webhooks/sslcommerz"),
        (
            "GET",
            "/webhooks/a%2Fb/%C3%A9?q=%20x&q=+",
            "webhook GET /webhooks/a%2Fb/%C3%A9?q=%20x&q=+",
        ),
        ("GET", "/webhooks/../x", "webhook GET /webhooks/../x"),
        ("PUT", "/api/payments", "payments PUT /api/payments"),
        ("GET", "/api/payments?limit=5", "payments GET /api/payments?limit=5"),
        ("DELETE", "/api/payments/pay_1/x", "payments DELETE /api/payments/pay_1/x"),
    ],
)
async def test_the_path_chooses_the_service(method: str, path: str, expected: str) -> None:
    async with front_door(webhook=says("webhook"), payments=says("payments")) as client:
        url = URL(f"{client._base_url_origin}{path}", encoded=True)
        async with client.request(method, url) as response:
            assert await response.text() == expected


@pytest.mark.parametrize("path", ["/", "/webhooks", "/api/paymentsx", "/api", "/elsewhere"])
async def test_a_path_of_nobody_is_not_found(path: str) -> None:
    async with (
        front_door(webhook=says("webhook"), payments=says("payments")) as client,
        client.get(path) as response,
    ):
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "not_found"


async def test_a_service_that_is_away_is_a_bad_gateway() -> None:
    async with front_door() as client, client.post("/webhooks/x", data=b"y") as response:
        body = await response.json()

    assert (response.status, body["success"], body["error"]["code"]) == (502, False, "bad_gateway")
    assert response.headers["Retry-After"] == "1"


async def test_one_service_that_is_away_leaves_the_others() -> None:
    async with (
        front_door(payments=says("payments")) as client,
        client.get("/api/payments") as response,
    ):
        assert response.status == 200


async def test_headers_and_body_arrive_as_they_were_sent() -> None:
    seen: list[tuple[web.Request, bytes]] = []

    async def echo(request: web.Request) -> web.Response:
        seen.append((request, await request.read()))
        return web.Response(
            status=418,
            reason="Short And Stout",
            body=b"\x1f\x8bnot really gzip",
            headers=[
                ("Set-Cookie", "a=1"),
                ("Set-Cookie", "b=2"),
                ("Content-Encoding", "gzip"),
                ("Keep-Alive", "timeout=5"),
            ],
        )

    async with (
        front_door(webhook=echo) as client,
        client.post(
            "/webhooks/x",
            data=b"a=%20&b=\x00",
            skip_auto_headers=["User-Agent"],
            headers={
                "Host": "pay.example.com",
                "Content-Type": "application/x-www-form-urlencoded",
                "X-Forwarded-For": "203.0.113.9",
                "X-Private": "for this hop only",
                "Connection": "keep-alive, X-Private",
            },
        ) as response,
    ):
        body = await response.read()

    ((request, received),) = seen
    assert received == b"a=%20&b=\x00"
    assert request.content_length == len(received)
    assert request.host == request.headers["X-Forwarded-Host"] == "pay.example.com"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["X-Forwarded-For"] == "203.0.113.9, 127.0.0.1"
    assert request.headers["X-Forwarded-Proto"] == "http"
    assert not {"X-Private", "User-Agent"} & set(request.headers)
    assert (response.status, response.reason) == (418, "Short And Stout")
    assert body == b"\x1f\x8bnot really gzip"
    assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert "Keep-Alive" not in response.headers


async def test_redirects_are_the_clients_business() -> None:
    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPSeeOther("https://shop.example.com/paid")

    async with (
        front_door(webhook=redirect) as client,
        client.get("/webhooks/x", allow_redirects=False) as response,
    ):
        assert response.status == 303
        assert response.headers["Location"] == "https://shop.example.com/paid"


async def test_answers_and_requests_are_streamed() -> None:
    async def double(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk * 2)
        return response

    questions: asyncio.Queue[bytes] = asyncio.Queue()

    async def ask() -> AsyncIterator[bytes]:
        while question := await questions.get():
            yield question

    async with front_door(webhook=double) as client, asyncio.timeout(10):
        questions.put_nowait(b"a")
        async with client.post("/webhooks/x", data=ask()) as response:
            # Each answer comes before the next part of the request is sent.
            assert await response.content.readexactly(2) == b"aa"
            questions.put_nowait(b"b")
            assert await response.content.readexactly(2) == b"bb"
            questions.put_nowait(b"")
            assert await response.content.read() == b""


async def test_a_large_body_passes_both_ways() -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    body = bytes(range(256)) * 40_000
    async with (
        front_door(webhook=echo) as client,
        client.post("/webhooks/x", data=io.BytesIO(body)) as response,
    ):
        assert await response.read() == body


async def test_half_an_answer_is_not_taken_for_a_whole_one() -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with front_door(webhook=break_off) as client:
        with pytest.raises(aiohttp.ClientError):
            async with client.get("/webhooks/x") as response:
                await response.read()


def healthy(**changes: object) -> Handler:
    async def handler(_request: web.Request) -> web.Response:
        report = {
            "status": "healthy",
            "database": "connected",
            "redis": "connected",
            "problems": [],
        } | changes
        return web.json_response(report, status=200 if report["status"] == "healthy" else 503)

    return handler


async def test_health_is_that_of_all_processes() -> None:
    async with (
        front_door(webhook=healthy(), payments=healthy()) as client,
        client.get("/health") as response,
    ):
        body = await response.json()

    assert response.status == 200
    assert body.pop("timestamp").endswith("Z")
    assert body == {
        "status": "healthy",
        "database": "connected",
        "redis": "connected",
        "problems": [],
    }


async def test_health_names_who_is_not_well() -> None:
    ill = healthy(status="unhealthy", redis="disconnected", problems=["a thread is dead"])
    async with (
        front_door(webhook=ill, worker=healthy()) as client,
        client.get("/health") as response,
    ):
        body = await response.json()

    assert response.status == 503
    assert (body["status"], body["database"], body["redis"]) == (
        "unhealthy",
        "connected",
        "disconnected",
    )
    assert body["problems"] == ["webhook: a thread is dead", "payments: does not answer"]


async def test_every_path_of_the_simulator_is_behind_the_front_door(new_database: str) -> None:
    async with http_part(SimulatorSettings(database_url=new_database)) as part:
        paths = [route.path for route in part.routes]

    prefixes = PATH_PREFIXES["simulator"]
    assert paths
    assert not [
        path
        for path in paths
        if not any(path.startswith(each) or f"{path}/" == each for each in prefixes)
    ]
