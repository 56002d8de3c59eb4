"""What every route has in common: envelope, errors, request ids, keys, rate limits."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiohttp import web

from shared import errors
from shared.errors import SluiceError, TooManyRequestsError
from shared.web.application import CALLER
from shared.web.errors import STATUSES
from shared.web.keys import Keyring, describe, parse_keys
from shared.web.routes import Answer, Route, Scope
from tests.support.http_api import KEYS, Api, serving


async def greet(request: web.Request) -> web.Response:
    return Answer({"caller": request.get(CALLER)}).response()


GREETING = Route("GET", "/api/greeting", greet, Scope.READ)
ORDER = Route("POST", "/api/greeting", greet, Scope.WRITE)


def failing(error: Exception) -> Route:
    async def fail(_request: web.Request) -> web.Response:
        raise error

    return Route("GET", "/api/failure", fail)


async def test_an_answer_comes_in_the_envelope() -> None:
    async with serving([GREETING]) as api:
        reply = await api.call("GET", "/api/greeting")

    assert (reply.status, reply.json) == (200, {"success": True, "data": {"caller": "admin"}})
    assert reply.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("kind", STATUSES, ids=lambda kind: kind.__name__)
async def test_each_of_our_errors_has_its_status_and_its_envelope(
    kind: type[SluiceError],
) -> None:
    error = (
        TooManyRequestsError("slowly", retry_after_seconds=7)
        if kind is TooManyRequestsError
        else kind("what happened", details={"field": "why"})
    )
    async with serving([failing(error)]) as api:
        reply = await api.call("GET", "/api/failure")

    assert reply.status == STATUSES[kind]
    assert reply.error == {"code": error.code, "message": error.message, "details": error.details}
    may_be_repeated = isinstance(error, (errors.TransientError, TooManyRequestsError))
    assert ("Retry-After" in reply.headers) == may_be_repeated


async def test_an_error_of_nobody_answers_500_and_tells_nothing_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving([failing(ZeroDivisionError("the secret is 42"))]) as api:
        reply = await api.call("GET", "/api/failure", headers={"X-Request-Id": "find-me"})

    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert b"42" not in reply.raw
    assert "find-me" in capsys.readouterr().out, "the log has the request id"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/api/greeting/", 404, "not_found"),
        ("GET", "/%ff/%00", 404, "not_found"),
        ("DELETE", "/api/greeting", 405, "method_not_allowed"),
        ("HEAD", "/api/greeting", 405, None),
        ("OPTIONS", "/api/greeting", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_answers_in_the_envelope(
    method: str, path: str, status: int, code: str | None
) -> None:
    async with serving([GREETING, ORDER]) as api:
        reply = await api.call(method, path)

    assert reply.status == status
    if code is not None:
        assert reply.error["code"] == code
    if status == 405:
        assert reply.headers["Allow"] == "GET,POST"


async def test_a_fixed_path_refuses_what_it_does_not_do_and_asks_no_path_with_a_parameter() -> None:
    async def read(request: web.Request) -> web.Response:
        return Answer({"id": request.match_info["thing_id"]}).response()

    things = [
        Route("GET", "/api/things/{thing_id}", read),
        Route("DELETE", "/api/things/{thing_id}", read),
        Route("POST", "/api/things/process", greet),
    ]
    async with serving(things) as api:
        other = await api.call("GET", "/api/things/7")
        fixed = await api.call("POST", "/api/things/process")
        refused = await api.call("GET", "/api/things/process")
        unheard_of = await api.call("PROPFIND", "/api/things/process")
        measured = await api.call("GET", "/metrics")

    assert (other.data, fixed.status) == ({"id": "7"}, 200)
    for reply in (refused, unheard_of):
        assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
        assert reply.headers["Allow"] == "POST"
    assert b"PROPFIND" not in measured.raw, "a caller must not make labels"


async def test_a_given_request_id_comes_back_and_a_malformed_one_is_replaced() -> None:
    async with serving([GREETING]) as api:
        for given in ("abc", "A-1_b.c", "x" * 64):
            reply = await api.call("GET", "/api/greeting", headers={"X-Request-Id": given})
            assert reply.headers["X-Request-Id"] == given
        made = set()
        for malformed in (None, "", "x" * 65, "a b", "<script>", "é"):
            headers = {} if malformed is None else {"X-Request-Id": malformed}
            reply = await api.call("GET", "/api/greeting", headers=headers)
            made.add(reply.headers["X-Request-Id"])
        refusal = await api.call("GET", "/api/nothing", headers={"X-Request-Id": "abc"})
        assert refusal.headers["X-Request-Id"] == "abc"

    assert len(made) == 6
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in made)


async def test_a_key_is_needed_and_must_have_the_scope() -> None:
    async with serving([GREETING, ORDER]) as api:
        missing = await api.call("GET", "/api/greeting", key=None)
        allowed = await api.call("POST", "/api/greeting", key="writer")
        lacking = await api.call("POST", "/api/greeting", key="reader")

    assert (missing.status, missing.error["code"]) == (401, "unauthorized")
    assert allowed.data == {"caller": "writer"}
    assert (lacking.status, lacking.error["code"]) == (403, "forbidden")
    assert "write" in lacking.error["message"]


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer unknown",
        "Basic " + KEYS["admin"],
        KEYS["admin"],
        f"Bearer {KEYS['admin']}x",
        f"Bearer {KEYS['admin'].upper()}",
    ],
)
async def test_an_authorization_that_is_none_of_ours_is_refused(header: str) -> None:
    async with serving([GREETING]) as api:
        reply = await api.call("GET", "/api/greeting", key=None, headers={"Authorization": header})

    assert (reply.status, reply.error["code"]) == (401, "unauthorized")
    assert KEYS["admin"].encode() not in reply.raw


async def send_raw(api: Api, head: bytes, body: bytes = b"") -> bytes:
    """Send bytes that no well-behaved client sends, and return the whole answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head + b"\r\nHost: x\r\nConnection: close\r\n\r\n" + body)
    await writer.drain()
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


async def test_bytes_that_are_no_text_in_a_key_are_refused_like_any_unknown_key() -> None:
    async with serving([GREETING]) as api:
        answer = await send_raw(
            api, b"GET /api/greeting HTTP/1.1\r\nAuthorization: Bearer \xff\xfe"
        )

    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", [b"/api/\xff", b"/api/%ff", b"/api/%ed%a0%80", b"/api/a%00b"])
async def test_bytes_that_are_no_text_in_a_path_are_no_failure_of_ours(path: bytes) -> None:
    async with serving([Route("GET", "/api/{id}", greet, Scope.READ)]) as api:
        key = KEYS["reader"].encode()
        answer = await send_raw(api, b"GET " + path + b" HTTP/1.1\r\nAuthorization: Bearer " + key)

    assert answer.split()[1] in {b"200", b"400", b"404"}


async def test_two_keys_of_a_name_are_valid_at_once_during_a_rotation() -> None:
    entries = [describe("shop", [Scope.READ], key) for key in ("old-key", "new-key")]
    keyring = Keyring(parse_keys(",".join(entries)))
    async with serving([GREETING], keyring=keyring) as api:
        for key in ("old-key", "new-key"):
            headers = {"Authorization": f"Bearer {key}"}
            reply = await api.call("GET", "/api/greeting", key=None, headers=headers)
            assert reply.data == {"caller": "shop"}


async def test_a_caller_over_its_rate_is_told_when_to_come_back_and_others_are_not_held_up() -> (
    None
):
    async with serving([GREETING, ORDER], rate=1) as api:
        replies = [await api.call("GET", "/api/greeting", key="reader") for _ in range(4)]
        other = await api.call("GET", "/api/greeting", key="writer")

    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    assert replies[-1].error["code"] == "rate_limited"
    assert replies[-1].headers["Retry-After"] == "1"
    assert other.status == 200


async def test_guessing_keys_is_slowed_down_too() -> None:
    async with serving([GREETING], rate=1) as api:
        headers = {"Authorization": "Bearer guess"}
        replies = [
            await api.call("GET", "/api/greeting", key=None, headers=headers) for _ in range(4)
        ]
        known = await api.call("GET", "/api/greeting", key="reader")

    assert [reply.status for reply in replies] == [401, 401, 429, 429]
    assert known.status == 200, "who has a key is not held up by it"
