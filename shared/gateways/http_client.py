"""A lean HTTP/1.1 client for gateway calls, on httptools' parser.

Asking the gateway is the most frequent thing a worker does, and aiohttp's client took most of its
time (docs/decisions/0004-lean-gateway-client.md). Redirects are not followed, TLS is verified,
bodies are bounded, and no error names a path or a query: SSLCommerz puts its password there.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, urlsplit

import httptools

from shared.gateways.send_deadline import is_too_late

#: Longest answer that is read, head included; a validation has about 2 kB.
ANSWER_BYTES_MAX: Final = 1024 * 1024

#: An answer below it (1xx) announces another.
FIRST_FINAL_STATUS: Final = 200

#: How late a time-out may be noticed, at most.
WATCH_SECONDS: Final = 0.1

#: Connections to one gateway. More wait their turn inside their own time-out.
CONNECTIONS_MAX: Final = 512

#: A connection idle for longer is not used again: gateways close theirs after about a minute.
IDLE_SECONDS: Final = 30.0


_LENGTH_HEADERS: Final = frozenset({b"content-length", b"transfer-encoding"})

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class HttpCallError(Exception):
    """A call got no usable answer; `reason` is one of a few words, fit for a metric."""

    def __init__(self, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        #: What the answer asks us to wait, if it does so in seconds.
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A complete answer."""

    status: int
    body: bytes
    #: What `Retry-After` asks for, if it does so in seconds.
    retry_after_seconds: float | None = None


class HttpClient:
    """Calls one origin over kept connections. Lives on one event loop.

    Args:
        base_url: `https://host[:port]`; plain http is meant for the simulator.
        connect_timeout_seconds: Longest wait for a connection.
        total_timeout_seconds: Longest time from the call to the end of its answer.
        connections_max: Calls in flight at most.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_seconds: float = 5.0,
        total_timeout_seconds: float = 15.0,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        parts: SplitResult = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            raise ValueError("a gateway's base URL must be http(s)://host[:port]")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/")
        self._host_header = parts.netloc.rpartition("@")[2]
        self._connect_timeout_seconds = connect_timeout_seconds
        self._total_timeout_seconds = total_timeout_seconds
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._turns_free = connections_max
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._watch = _Watch(min(WATCH_SECONDS, total_timeout_seconds / 10))

    async def get(self, target: str, headers: Mapping[str, str] = _NO_HEADERS) -> HttpAnswer:
        """Send a GET for a path with its query.

        A kept connection may have been closed by the other side just now; then the call is made
        once more on a new one, which is safe because a GET changes nothing.

        Raises:
            HttpCallError: no complete answer in time.
        """
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = f"GET {self._prefix}{target} HTTP/1.1\r\nHost: {self._host_header}\r\n{lines}\r\n"
        return await self._call(head.encode("ascii"), may_reuse=True)

    async def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Send a POST, always on a new connection: whether a stale one took it can't be known.

        Raises:
            HttpCallError: no complete answer in time; the request may have been carried out.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = (
            f"POST {self._prefix}{target} HTTP/1.1\r\nHost: {self._host_header}\r\n{lines}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return await self._call(head.encode("ascii") + body, may_reuse=False)

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop()[1].abort()

    async def _call(self, request: bytes, *, may_reuse: bool) -> HttpAnswer:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._total_timeout_seconds
        if self._turns_free:
            self._turns_free -= 1
        else:
            await self._wait_for_turn(deadline)
        try:
            connection = self._take_idle(loop.time()) if may_reuse else None
            if connection is not None:
                try:
                    return await self._exchange(connection, request, deadline)
                except _StaleConnectionError:
                    pass  # Closed before a byte of the answer: the new one below asks again.
            connection = await self._connect(deadline)
            try:
                return await self._exchange(connection, request, deadline)
            except _StaleConnectionError:
                raise HttpCallError("connection_reset") from None
        finally:
            self._pass_turn_on()

    async def _wait_for_turn(self, deadline: float) -> None:
        """Wait in line. No timer: each call ahead ends by its own deadline, and so passes on."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_turn_on()
            raise
        if asyncio.get_running_loop().time() >= deadline:
            self._pass_turn_on()
            raise HttpCallError("no_free_connection")

    def _pass_turn_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._turns_free += 1

    def _take_idle(self, now: float) -> _Connection | None:
        while self._idle:
            since, connection = self._idle.pop()  # The latest used is the least likely stale.
            if connection.is_open and now - since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self, deadline: float) -> _Connection:
        loop = asyncio.get_running_loop()
        limit = min(deadline, loop.time() + self._connect_timeout_seconds)
        try:
            async with asyncio.timeout_at(limit):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise HttpCallError("connect_timeout") from None
        except ssl.SSLError:
            raise HttpCallError("tls_error") from None
        except OSError:
            raise HttpCallError("connect_failed") from None
        return connection

    async def _exchange(
        self, connection: _Connection, request: bytes, deadline: float
    ) -> HttpAnswer:
        if is_too_late():
            connection.abort()
            raise HttpCallError("not_sent_in_time")
        self._watch.add(connection, deadline)
        try:
            answer = await connection.send(request)
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            self._watch.discard(connection)
        if connection.is_reusable:
            self._idle.append((asyncio.get_running_loop().time(), connection))
        else:
            connection.abort()
        return answer


class _Watch:
    """Fails exchanges past their deadline, with one timer for all that are in flight."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._deadlines: dict[_Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: _Connection, deadline: float) -> None:
        self._deadlines[connection] = deadline
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._interval_seconds, self._look)

    def discard(self, connection: _Connection) -> None:
        self._deadlines.pop(connection, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, deadline in list(self._deadlines.items()):
            if deadline <= now:
                connection.fail(HttpCallError("timeout"))
        # Ends with the last exchange, so that an idle process sleeps.
        self._timer = (
            loop.call_later(self._interval_seconds, self._look) if self._deadlines else None
        )


class _StaleConnectionError(Exception):
    """The connection ended before the first byte of an answer."""


class _Connection(asyncio.Protocol):
    """One connection; carries one exchange at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.is_reusable = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[HttpAnswer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0
        self._has_begun = False
        self._has_head = False
        self._has_length = False
        self._retry_after_seconds: float | None = None

    def send(self, request: bytes) -> asyncio.Future[HttpAnswer]:
        """Send a request; the future ends with its answer or what went wrong.

        Raises:
            _StaleConnectionError: the other side has closed the connection.
        """
        if not self.is_open or self._transport is None:
            raise _StaleConnectionError
        self._answer = asyncio.get_running_loop().create_future()
        self._has_begun = self._has_head = self._has_length = self.is_reusable = False
        self._retry_after_seconds = None
        self._body.clear()
        self._size = 0
        self._transport.write(request)
        return self._answer

    def fail(self, error: Exception) -> None:
        """End the exchange and the connection."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self.abort()

    def abort(self) -> None:
        """Drop the connection without waiting."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what it cannot parse ends the exchange."""
        if self._answer is None or self._answer.done():
            self.abort()  # Nobody asked: what comes unasked cannot be trusted as an answer.
            return
        self._has_begun = True
        self._size += len(data)
        if self._size > ANSWER_BYTES_MAX:
            self.fail(HttpCallError("answer_too_large"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(HttpCallError("not_http"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange in flight: unanswered, cut short, or complete by the end itself."""
        self.is_open = False
        if not self._has_begun:
            self.fail(_StaleConnectionError())
        elif exc is None and self._has_head and not self._has_length:
            self._succeed()
        else:
            self.fail(HttpCallError("answer_cut_short"))

    def on_message_begin(self) -> None:
        """Keep no connection on which a second answer begins (a hook of httptools)."""
        self.is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the answer says how long it is, and when to come back (a hook)."""
        lowered = name.lower()
        if lowered in _LENGTH_HEADERS:
            self._has_length = True
        elif lowered == b"retry-after" and value.isdigit():
            self._retry_after_seconds = float(value[:9])  # Its other form is a date.

    def on_headers_complete(self) -> None:
        """Note that an answer without a length may end with the connection from here on."""
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        """Collect the body (a hook of httptools)."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Deliver the answer (a hook of httptools)."""
        if self._parser.get_status_code() < FIRST_FINAL_STATUS:
            self._has_head = self._has_length = False
            return
        self.is_reusable = self.is_open and self._parser.should_keep_alive()
        self._succeed()

    def _succeed(self) -> None:
        if self._answer is not None and not self._answer.done():
            status = self._parser.get_status_code()
            self._answer.set_result(
                HttpAnswer(status, b"".join(self._body), self._retry_after_seconds)
            )
