"""The lean client reads what HTTP allows, survives what it does not, and repeats only what it may.

No I/O beyond the loopback: the other side is a script of raw bytes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from shared.gateways.http_client import ANSWER_BYTES_MAX, HttpAnswer, HttpCallError, HttpClient
from tests.support.polling import eventually
from tests.support.scripted_server import (
    Exchange,
    ScriptedServer,
    answer,
    says_nothing,
    scripted_server,
    sends,
    sends_and_closes,
    sends_and_resets,
    sends_pieces,
)

#: Long beside a loopback exchange, short for a test that waits for it.
SHORT_SECONDS = 0.2


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[HttpClient]:
    client = HttpClient(server.url, total_timeout_seconds=5)
    yield client
    client.close()


async def refusal(client: HttpClient, target: str = "/?store_passwd=secret") -> str:
    """Return the reason for which a GET fails; it must not repeat the target."""
    with pytest.raises(HttpCallError) as caught:
        await client.get(target)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.reason


async def test_an_answer_is_read_with_its_status_and_body(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(answer(b"hello", status="404 Not Found"))

    assert await client.get("/path?a=1") == HttpAnswer(404, b"hello")
    assert server.requests == [
        f"GET /path?a=1 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    ]


async def test_a_base_path_goes_before_every_target(server: ScriptedServer) -> None:
    client = HttpClient(f"{server.url}/gateway/")
    server.then(answer(b""))

    await client.get("/path")
    client.close()

    assert server.requests[0].startswith(b"GET /gateway/path HTTP/1.1\r\n")


async def test_calls_one_after_the_other_share_a_connection(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(*[answer(str(n).encode()) for n in range(5)])

    bodies = [(await client.get("/")).body for _ in range(5)]

    assert bodies == [b"0", b"1", b"2", b"3", b"4"]
    assert server.connections == 1


async def test_calls_at_the_same_time_have_connections_of_their_own(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(*[answer(b"x")] * 6)

    await asyncio.gather(*(client.get("/") for _ in range(3)))
    await asyncio.gather(*(client.get("/") for _ in range(3)))

    assert server.connections == 3


@pytest.mark.parametrize("end", [sends_and_closes(b""), sends_and_resets(b"")])
async def test_a_get_on_a_kept_connection_that_ended_is_made_once_more(
    server: ScriptedServer, client: HttpClient, end: object
) -> None:
    server.then(answer(b"first"), end, answer(b"second"))  # type: ignore[arg-type]
    await client.get("/")

    assert (await client.get("/")).body == b"second"
    assert [len(server.requests), server.connections] == [3, 2]


async def test_a_get_is_not_made_a_third_time(server: ScriptedServer, client: HttpClient) -> None:
    server.then(answer(b"first"), sends_and_closes(b""), sends_and_closes(b""))
    await client.get("/")

    assert await refusal(client) == "connection_reset"
    assert len(server.requests) == 3


async def test_a_get_on_a_new_connection_that_ended_is_not_repeated(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(sends_and_closes(b""))

    assert await refusal(client) == "connection_reset"
    assert len(server.requests) == 1


async def test_a_get_whose_answer_has_begun_is_not_repeated(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(
        answer(b"first"), sends_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
    )
    await client.get("/")

    assert await refusal(client) == "answer_cut_short"
    assert len(server.requests) == 2


async def test_a_connection_that_the_other_side_has_closed_is_not_used_again(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(sends_and_closes(answer(b"first")), answer(b"second"))
    await client.get("/")

    async def is_closed() -> bool:
        return server.open_connections == 0

    await eventually(is_closed)

    assert (await client.get("/")).body == b"second"
    assert len(server.requests) == 2


async def test_a_post_always_has_a_new_connection_and_is_never_repeated(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(answer(b"kept"), sends_and_closes(b""))
    await client.get("/")

    with pytest.raises(HttpCallError, match="connection_reset"):
        await client.post("/pay", b"amount=1", {"Content-Type": "text/plain"})

    assert [len(server.requests), server.connections] == [2, 2]
    assert server.requests[1].startswith(b"POST /pay HTTP/1.1\r\n")
    assert b"\r\nContent-Type: text/plain\r\n" in server.requests[1]
    assert server.requests[1].endswith(b"Connection: close\r\n\r\namount=1")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HT", b"TP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhe", b"llo"],
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
            b"3;extension=1\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
        ],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
        [b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"],
    ],
    ids=["at once", "in pieces", "chunked", "announced by 100", "announced by 103"],
)
async def test_an_answer_is_read_however_it_comes_and_the_connection_is_kept(
    server: ScriptedServer, client: HttpClient, pieces: list[bytes]
) -> None:
    server.then(sends_pieces(*pieces), answer(b"next"))

    assert await client.get("/") == HttpAnswer(200, b"hello")
    assert (await client.get("/")).body == b"next"
    assert server.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(sends_and_closes(b"HTTP/1.1 200 OK\r\n\r\nhel" + b"lo"))

    assert await client.get("/") == HttpAnswer(200, b"hello")


async def test_an_answer_that_forbids_it_leaves_no_connection_to_reuse(
    server: ScriptedServer, client: HttpClient
) -> None:
    server.then(answer(b"x", headers="Connection: close\r\n"), answer(b"y"))

    assert (await client.get("/")).body == b"x"
    assert (await client.get("/")).body == b"y"
    assert server.connections == 2


@pytest.mark.parametrize(
    "unasked",
    [
        answer(b"unasked"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nuna",
        b"HTTP/1.1 200 OK\r\n",
        b"garbage",
    ],
    ids=["a whole answer", "half of one", "its first line", "garbage"],
)
async def test_what_comes_unasked_is_never_taken_for_the_next_answer(
    server: ScriptedServer, client: HttpClient, unasked: bytes
) -> None:
    server.then(sends(answer(b"first") + unasked), answer(b"second"))

    assert (await client.get("/")).body == b"first"
    assert (await client.get("/")).body == b"second"


@pytest.mark.parametrize(
    ("beginning", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "answer_cut_short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "answer_cut_short"),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", "answer_cut_short"),
        (b"HTTP/1.1 2", "answer_cut_short"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "answer_cut_short"),
        (b"", "connection_reset"),
    ],
    ids=["length", "chunked", "header", "first line", "only announced", "nothing"],
)
async def test_an_answer_that_is_cut_short_is_no_answer(
    server: ScriptedServer, client: HttpClient, beginning: bytes, reason: str
) -> None:
    server.then(sends_and_closes(beginning))

    assert await refusal(client) == reason


async def test_a_reset_in_the_middle_of_a_body_without_length_is_no_answer(
    server: ScriptedServer, client: HttpClient
) -> None:
    async def resets_later(exchange: Exchange) -> bool:
        exchange.writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await exchange.writer.drain()
        await asyncio.sleep(0.02)  # The client must have read the bytes before they are lost.
        return await sends_and_resets(b"")(exchange)

    server.then(resets_later)

    assert await refusal(client) == "answer_cut_short"


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x02", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n"],
    ids=["SSH", "TLS", "a length that is no number"],
)
async def test_what_is_not_http_is_no_answer(
    server: ScriptedServer, client: HttpClient, data: bytes
) -> None:
    server.then(data)

    assert await refusal(client) == "not_http"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Filler: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n",
    ],
    ids=["body", "header", "chunk"],
)
async def test_an_answer_without_end_is_given_up_at_a_limit(
    server: ScriptedServer, client: HttpClient, head: bytes
) -> None:
    server.then(sends_and_closes(head + b"x" * (ANSWER_BYTES_MAX + 1)))

    assert await refusal(client) == "answer_too_large"


async def test_silence_ends_with_the_time_out_and_the_connection_is_dropped(
    server: ScriptedServer,
) -> None:
    client = HttpClient(server.url, total_timeout_seconds=SHORT_SECONDS)
    server.then(says_nothing, answer(b"late"))

    assert await refusal(client) == "timeout"
    assert (await client.get("/")).body == b"late"
    client.close()

    assert server.connections == 2


async def test_an_answer_that_drips_ends_with_the_time_out_too(server: ScriptedServer) -> None:
    client = HttpClient(server.url, total_timeout_seconds=SHORT_SECONDS)

    async def drips(exchange: Exchange) -> bool:
        exchange.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            exchange.writer.write(b"x")
            await exchange.writer.drain()
            await asyncio.sleep(0.01)

    server.then(drips)

    assert await refusal(client) == "timeout"


async def test_a_port_on_which_nobody_listens_is_named_as_such() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = HttpClient(f"http://127.0.0.1:{unused.getsockname()[1]}")

        assert await refusal(client) == "connect_failed"


async def test_a_host_that_never_accepts_ends_with_the_connect_time_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:  # Nobody accepts, so the queue of the listener is full now.
            filler.settimeout(0)
            filler.connect_ex(address)
        client = HttpClient(f"http://127.0.0.1:{address[1]}", connect_timeout_seconds=SHORT_SECONDS)

        assert await refusal(client) == "connect_timeout"

        for filler in fillers:
            filler.close()


async def test_plain_http_behind_an_https_address_is_a_tls_error(server: ScriptedServer) -> None:
    client = HttpClient(f"https://127.0.0.1:{server.port}", connect_timeout_seconds=SHORT_SECONDS)

    assert await refusal(client) in {"tls_error", "connect_failed", "connect_timeout"}
    assert server.requests == []


async def test_calls_over_the_limit_wait_their_turn(server: ScriptedServer) -> None:
    client = HttpClient(server.url, connections_max=2)
    server.then(*[sends_pieces(answer(b"x"))] * 10)

    answers = await asyncio.gather(*(client.get("/") for _ in range(10)))
    client.close()

    assert [one.status for one in answers] == [200] * 10
    assert server.open_connections_max <= 2


async def test_calls_that_wait_behind_a_silent_one_are_given_up_with_it(
    server: ScriptedServer,
) -> None:
    client = HttpClient(server.url, connections_max=1, total_timeout_seconds=SHORT_SECONDS)
    server.then(*[says_nothing] * 3)
    started = asyncio.get_running_loop().time()

    reasons = await asyncio.gather(*(refusal(client) for _ in range(3)))

    assert reasons[0] == "timeout"
    assert set(reasons) <= {"timeout", "connect_timeout", "no_free_connection"}
    assert asyncio.get_running_loop().time() - started < 3 * SHORT_SECONDS


async def test_a_cancelled_call_that_waits_takes_nobody_s_turn(server: ScriptedServer) -> None:
    client = HttpClient(server.url, connections_max=1)
    server.then(says_nothing, answer(b"mine"))
    first = asyncio.create_task(client.get("/"))

    async def is_asked() -> bool:
        return len(server.requests) == 1

    await eventually(is_asked)
    second, third = asyncio.create_task(client.get("/")), asyncio.create_task(client.get("/"))
    await asyncio.sleep(0)  # Both stand in line now.
    first.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # The second was given the turn, and is cancelled before it runs.
    second.cancel()

    assert (await third).body == b"mine"
    client.close()


async def test_a_cancelled_call_gives_its_turn_back(server: ScriptedServer) -> None:
    client = HttpClient(server.url, connections_max=1)
    server.then(says_nothing, answer(b"mine"))
    cancelled = asyncio.create_task(client.get("/"))

    async def is_asked() -> bool:
        return len(server.requests) == 1

    await eventually(is_asked)
    waiting = asyncio.create_task(client.get("/"))
    cancelled.cancel()

    assert (await waiting).body == b"mine"
    client.close()


@pytest.mark.parametrize("url", ["ftp://gateway", "gateway:80", "http://", ""])
def test_an_address_that_is_not_http_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="must be http"):
        HttpClient(url)
