"""The short way for notices answers whole plain requests and hands everything else to aiohttp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from shared.errors import DatabaseUnavailableError, UnauthorizedError
from shared.web.application import build_application
from shared.web.direct import Listener
from shared.web.rate_limits import RateLimit
from shared.web.routes import DirectRoute, Route
from tests.support.http_api import keyring_of_tests

BODY_BYTES_MAX = 1_000


@dataclass
class World:
    """A listener with one direct route, and what reached its handler."""

    listener: Listener
    bodies: list[bytes] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    wires: list[Wire] = field(default_factory=list)

    async def receive(self, headers: Mapping[str, str], body: bytes) -> bytes:
        self.bodies.append(body)
        await self.go_on.wait()
        if body == b"forged":
            raise UnauthorizedError("not authentic")
        if body == b"away":
            raise DatabaseUnavailableError("PostgreSQL did not answer")
        if body == b"bug":
            raise ZeroDivisionError
        return b"got " + headers.get("X-Word", "").encode()

    async def connect(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.listener.port))
        self.wires.append(wire)
        return wire


@dataclass
class Wire:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0.01)  # So that each piece is a read of its own.

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().strip().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split(" ")[1]), headers, body

    async def is_closed(self) -> bool:
        return await self.reader.read() == b""


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    routes: list[Route | DirectRoute] = [Route("GET", "/hello", hello)]
    application_world: list[World] = []

    async def receive(headers: Mapping[str, str], body: bytes) -> bytes:
        return await application_world[0].receive(headers, body)

    routes.append(DirectRoute("/notices", receive, BODY_BYTES_MAX))
    application = build_application(
        routes, keyring=keyring_of_tests(), rate_limit=RateLimit(100_000)
    )
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    world = World(Listener(runner))
    world.go_on.set()
    application_world.append(world)
    await world.listener.start("127.0.0.1", 0)
    try:
        yield world
    finally:
        for wire in world.wires:
            wire.writer.close()
        await world.listener.close(1.0)


def post(body: bytes, *headers: str, path: str = "/notices", version: str = "1.1") -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def is_from_aiohttp(headers: Mapping[str, str]) -> bool:
    return "server" in headers


async def test_a_whole_request_is_answered_and_the_connection_kept() -> None:
    async with running() as world:
        wire = await world.connect()
        for word in ("one", "two"):
            await wire.send(post(b"a=1", f"X-Word: {word}", f"X-Request-Id: id-{word}"))
            status, headers, body = await wire.answer()

            assert (status, body) == (200, f"got {word}".encode())
            assert headers["x-request-id"] == f"id-{word}"
            assert headers["date"].endswith(" GMT")
            assert not is_from_aiohttp(headers)

    assert world.bodies == [b"a=1", b"a=1"]


async def test_a_request_id_that_is_not_fit_for_logs_is_replaced() -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(b"a=1", "X-Request-Id: a b\tc"))

        assert len((await wire.answer())[1]["x-request-id"]) == 16


@pytest.mark.parametrize(
    ("body", "expected"), [(b"forged", 401), (b"away", 503), (b"bug", 500)], ids=str
)
async def test_an_exception_is_the_error_envelope_and_the_connection_lives(
    body: bytes, expected: int
) -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(body))
        status, headers, text = await wire.answer()

        assert status == expected
        assert json.loads(text)["success"] is False
        assert ("retry-after" in headers) == (expected == 503)
        await wire.send(post(b"a=1"))
        assert (await wire.answer())[0] == 200


WHOLE = post(b"a=1&b=2")
CHUNKED_HEAD = b"POST /notices HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

#: Requests that are anything but whole and plain, in the pieces in which they arrive.
OTHERS = {
    "head in two pieces": (WHOLE[:20], WHOLE[20:]),
    "body in two pieces": (WHOLE[:-3], WHOLE[-3:]),
    "byte by byte at the end": (WHOLE[:-2], WHOLE[-2:-1], WHOLE[-1:]),
    "chunked": (CHUNKED_HEAD + b"7\r\na=1&b=2\r\n0\r\n\r\n",),
    "with a query": (post(b"a=1&b=2", path="/notices?x=1"),),
    "the last on its connection": (post(b"a=1&b=2", "Connection: close"),),
    "HTTP/1.0": (post(b"a=1&b=2", version="1.0"),),
}


@pytest.mark.parametrize("pieces", OTHERS.values(), ids=OTHERS.keys())
async def test_what_is_not_whole_and_plain_is_answered_by_aiohttp(pieces: tuple[bytes]) -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(*pieces)
        status, headers, _ = await wire.answer()

        assert status == 200
        assert is_from_aiohttp(headers)

    assert world.bodies == [b"a=1&b=2"]


async def test_a_compressed_body_is_read_by_aiohttp() -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(b"not deflated", "Content-Encoding: deflate"))

        assert (await wire.answer())[0] == 400

    assert world.bodies == []


async def test_who_waits_for_a_100_gets_it() -> None:
    async with running() as world:
        wire = await world.connect()
        request = post(b"a=1", "Expect: 100-continue")
        await wire.send(request[:-3])
        assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(request[-3:])

        assert (await wire.answer())[0] == 200


async def test_other_paths_and_methods_are_aiohttps_and_so_is_the_connection_from_then_on() -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(b"a=1"))
        assert not is_from_aiohttp((await wire.answer())[1])
        for request, expected in (
            (b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            (b"GET /notices HTTP/1.1\r\nHost: x\r\n\r\n", 405),
            (post(b"a=1", path="/nowhere"), 404),
            (post(b"a=1"), 200),
        ):
            await wire.send(request)
            status, headers, _ = await wire.answer()
            assert (status, is_from_aiohttp(headers)) == (expected, True)


async def test_too_large_a_body_is_refused_unread() -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(b"x" * (BODY_BYTES_MAX + 1)))

        assert (await wire.answer())[0] == 413

    assert world.bodies == []


async def test_garbage_is_a_400() -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(b"\x16\x03\x01 hello?\r\n\r\n")

        assert (await wire.answer())[0] == 400
        assert await wire.is_closed()


@pytest.mark.parametrize(
    "headers",
    [("Content-Length: 5",), ("Transfer-Encoding: chunked",), ("Content-Length : 7",)],
    ids=str,
)
async def test_two_readings_of_a_length_are_never_taken(headers: tuple[str]) -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(b"a=1&b=2", *headers))

        assert (await wire.answer())[0] == 400

    assert world.bodies == []


async def test_requests_sent_together_are_answered_in_order() -> None:
    async with running() as world:
        wire = await world.connect()
        await wire.send(post(b"1", "X-Word: one") + post(b"2", "X-Word: two"))

        assert [(await wire.answer())[2] for _ in range(2)] == [b"got one", b"got two"]


async def test_a_request_that_comes_early_waits_for_the_one_in_hand() -> None:
    async with running() as world:
        world.go_on.clear()
        wire = await world.connect()
        await wire.send(post(b"1", "X-Word: one"), post(b"2", "X-Word: two"), post(b"3"))
        assert world.bodies == [b"1"]
        world.go_on.set()

        assert [(await wire.answer())[2] for _ in range(3)] == [b"got one", b"got two", b"got "]


async def test_who_hangs_up_early_has_still_handed_over_the_notice() -> None:
    async with running() as world:
        world.go_on.clear()
        wire = await world.connect()
        await wire.send(post(b"1"))
        wire.writer.transport.abort()
        world.go_on.set()

        other = await world.connect()
        await other.send(post(b"2"))
        assert (await other.answer())[0] == 200

    assert world.bodies == [b"1", b"2"]


async def test_a_stop_finishes_what_is_in_hand_and_closes_what_is_idle() -> None:
    async with running() as world:
        world.go_on.clear()
        busy, idle = await world.connect(), await world.connect()
        await idle.send(b"")
        await busy.send(post(b"1", "X-Word: one"))
        stopping = asyncio.create_task(world.listener.close(5.0))
        assert await idle.is_closed()
        world.go_on.set()

        assert (await busy.answer())[2] == b"got one"
        assert await busy.is_closed()
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await world.connect()


async def test_a_stop_does_not_wait_for_ever() -> None:
    async with running() as world:
        world.go_on.clear()
        wire = await world.connect()
        await wire.send(post(b"1"))
        await world.listener.close(0.05)

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await wire.answer()
        world.go_on.set()
