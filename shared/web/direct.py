"""A short way for notices: a request that arrives whole is answered without aiohttp.

aiohttp's objects for a request and its answer cost as much as verifying, storing and publishing a
notice (docs/decisions/0009-a-short-way-for-notices.md). A connection starts here. As long as each
of its requests is a plain POST to a direct route, complete in one read, it stays; with the first
that is anything else, it is handed over to aiohttp for good, so nothing of HTTP is done twice.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import httptools
from aiohttp import web
from multidict import CIMultiDict

from shared.web.application import DIRECT, answer_error, observe, request_id_of
from shared.web.routes import DirectRoute

#: Headers with which a request is not plain: aiohttp knows what they ask for.
_NOT_PLAIN: Final = frozenset({b"expect", b"transfer-encoding", b"content-encoding", b"upgrade"})

_CONNECTIONS_WAITING_MAX: Final = 1024


class Listener:
    """An application at an address: direct routes the short way, all others through aiohttp."""

    def __init__(self, runner: web.AppRunner) -> None:
        assert runner.server is not None, "the runner is set up"
        self._runner = runner
        self._fallback: Callable[[], asyncio.Protocol] = runner.server
        self._routes = runner.app[DIRECT]
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        #: Where it listens, once started.
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Accept connections.

        Raises:
            OSError: the address is taken or not ours.
        """
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, host, port, backlog=_CONNECTIONS_WAITING_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self, timeout_seconds: float) -> None:
        """Accept no more, let requests in hand finish for a while, close all connections."""
        if self._server is not None:
            self._server.close()
        tasks = [task for connection in self._connections if (task := connection.stop())]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
        for connection in list(self._connections):
            connection.abort()
        await self._runner.cleanup()

    def _accept(self) -> asyncio.Protocol:
        if not self._routes:
            return self._fallback()
        return _Connection(self._routes, self._fallback, self._connections)


class _Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(
        self,
        routes: Mapping[bytes, DirectRoute],
        fallback: Callable[[], asyncio.Protocol],
        connections: set[_Connection],
    ) -> None:
        self._routes = routes
        self._fallback = fallback
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        #: What came while a request was in hand.
        self._early = b""
        self._begun = 0
        self._is_plain = self._is_complete = False
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._body = b""

    def stop(self) -> asyncio.Task[None] | None:
        """Close once nothing is in hand, and return the task to wait for, if something is."""
        self._is_stopping = True
        if self._task is None:
            self.abort()
        return self._task

    def abort(self) -> None:
        """Close without waiting."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport, and let the system notice a peer that vanished."""
        self._transport = transport  # type: ignore[assignment]
        self._connections.add(self)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; what is in hand is finished all the same."""
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Take a whole plain request, or hand the connection over with all that came."""
        if self._task is not None:
            self._early += data
            assert self._transport is not None
            self._transport.pause_reading()
            return
        self._begun, self._is_plain, self._is_complete = 0, True, False
        self._headers, self._body = [], b""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._hand_over(data)
            return
        route = self._routes.get(self._target)
        if (
            route is None
            or not self._is_complete
            or not self._is_plain
            or self._begun > 1
            or len(self._body) > route.body_bytes_max
            or self._parser.get_method() != b"POST"
        ):
            self._hand_over(data)
            return
        self._task = asyncio.get_running_loop().create_task(
            self._answer(route, CIMultiDict(self._headers), self._body)
        )

    def _hand_over(self, data: bytes) -> None:
        """Let aiohttp read everything since the last answer, and all that follows."""
        assert self._transport is not None
        protocol = self._fallback()
        self._connections.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    async def _answer(self, route: DirectRoute, headers: CIMultiDict[str], body: bytes) -> None:
        started = time.perf_counter()
        request_id = request_id_of(headers.get("X-Request-Id"))
        try:
            answer = _success(await route.handler(headers, body), request_id)
            status = HTTPStatus.OK
        except Exception as error:  # noqa: BLE001 - every exception becomes the error envelope
            response = answer_error(error, path=route.path, request_id=request_id)
            answer, status = _failure(response, request_id), HTTPStatus(response.status)
        observe(route.path, "POST", status, started)
        self._task = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write(answer)
        if self._is_stopping:
            transport.close()
        elif self._early:
            early, self._early = self._early, b""
            transport.resume_reading()
            self.data_received(early)

    def on_message_begin(self) -> None:
        """Count requests: a second one in the same read is not plain (a hook of httptools)."""
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """Note the target (a hook of httptools)."""
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header (a hook of httptools)."""
        if name.lower() in _NOT_PLAIN:
            self._is_plain = False
        self._headers.append((name.decode("latin-1"), value.decode("utf-8", "surrogateescape")))

    def on_body(self, body: bytes) -> None:
        """Note the body (a hook of httptools)."""
        self._body += body

    def on_message_complete(self) -> None:
        """Note that nothing is missing, and whether more may come (a hook of httptools)."""
        self._is_complete = True
        if not self._parser.should_keep_alive():
            self._is_plain = False


def _success(text: bytes, request_id: str) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\nDate: {_date(int(time.time()))}\r\n"
        f"X-Request-Id: {request_id}\r\n\r\n"
    ).encode("ascii") + text


def _failure(response: web.Response, request_id: str) -> bytes:
    assert isinstance(response.body, bytes), "error bodies are small and whole"
    status = HTTPStatus(response.status)
    lines = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}"
        f"Content-Length: {len(response.body)}\r\nDate: {_date(int(time.time()))}\r\n"
        f"X-Request-Id: {request_id}\r\n\r\n"
    ).encode() + response.body


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
