"""A raw TCP server that sends exactly the bytes a test tells it to, well-formed or not."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)", re.IGNORECASE)


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """Return a complete answer with its length."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a crashed or overloaded host does."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


#: What to do with one request: write to the connection, close it, or nothing. Returning True keeps
#: the connection for the next request.
Script = Callable[["Exchange"], Awaitable[bool]]


@dataclass
class Exchange:
    """One request and the connection it came on."""

    request: bytes
    connection: int
    writer: asyncio.StreamWriter


@dataclass
class ScriptedServer:
    """What was asked of it, in order, and what it shall do next."""

    scripts: list[Script] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open_connections: int = 0
    open_connections_max: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def then(self, *scripts: Script | bytes) -> None:
        """Add what to do with the next requests; bytes are sent and the connection is kept."""
        self.scripts += [sends(s) if isinstance(s, bytes) else s for s in scripts]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.open_connections += 1
        self.open_connections_max = max(self.open_connections_max, self.open_connections)
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                script = self.scripts.pop(0) if self.scripts else _unexpected
                if not await script(Exchange(request, number, writer)):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # The client hung up, as some tests make it do.
        finally:
            self.open_connections -= 1
            writer.close()


def sends(data: bytes) -> Script:
    """Send bytes and keep the connection."""

    async def script(exchange: Exchange) -> bool:
        exchange.writer.write(data)
        await exchange.writer.drain()
        return True

    return script


def sends_and_closes(data: bytes) -> Script:
    """Send bytes and close the connection in good order."""

    async def script(exchange: Exchange) -> bool:
        exchange.writer.write(data)
        await exchange.writer.drain()
        return False

    return script


def sends_and_resets(data: bytes) -> Script:
    """Send bytes, let them arrive, and reset the connection."""

    async def script(exchange: Exchange) -> bool:
        exchange.writer.write(data)
        await exchange.writer.drain()
        reset(exchange.writer)
        return False

    return script


def sends_pieces(*pieces: bytes) -> Script:
    """Send bytes in pieces that arrive one by one, and keep the connection."""

    async def script(exchange: Exchange) -> bool:
        raw: socket.socket = exchange.writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            exchange.writer.write(piece)
            await exchange.writer.drain()
            await asyncio.sleep(0.001)  # Gives the client's loop a turn between two pieces.
        return True

    return script


async def says_nothing(_exchange: Exchange) -> bool:
    """Take the request and never answer."""
    await asyncio.get_running_loop().create_future()
    return False


async def _unexpected(exchange: Exchange) -> bool:
    exchange.writer.write(answer(b"this request was not expected", status="599 Unexpected"))
    return False


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length.group(1))) if length else b"")


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """Serve on a free port until the context ends; connections still open are dropped."""
    scripted = ScriptedServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await scripted.serve(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
