"""What a gateway that speaks JSON may answer, and every way in which it may say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from hypothesis import strategies as st

from shared.gateways.http_client import ANSWER_BYTES_MAX, HttpAnswer, HttpClient
from tests.support.scripted_server import (
    Script,
    answer,
    says_nothing,
    sends,
    sends_and_closes,
    sends_and_resets,
)


def reply(content: object, *, status: str = "200 OK") -> bytes:
    """Return a complete answer with a JSON body."""
    return answer(orjson.dumps(content), status=status)


#: How a call can fail without saying anything about the payment, and how that is told.
SILENCES: dict[str, tuple[Script, str]] = {
    "closed without an answer": (sends_and_closes(b""), "connection_reset"),
    "reset in mid-body": (
        sends_and_resets(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status":"SUCC'),
        "answer_cut_short|connection_reset",  # A reset may overtake what was sent before it.
    ),
    "never answered": (says_nothing, "timeout"),
    "500": (sends(answer(b"", status="500 Internal Server Error")), "http_500"),
    "500 with JSON": (
        sends(reply({"message": "Something broke"}, status="500 Internal Server Error")),
        "http_500",
    ),
    "502 with HTML": (
        sends(answer(b"<html><h1>Bad Gateway</h1></html>", status="502 Bad Gateway")),
        "http_502",
    ),
    "503": (sends(answer(b"", status="503 Service Unavailable")), "http_503"),
    "200 with HTML": (sends(answer(b"<html>maintenance</html>")), "not_json"),
    "429": (
        sends(
            answer(
                b'{"message":"Too many requests"}',
                status="429 Too Many Requests",
                headers="Retry-After: 7\r\n",
            )
        ),
        "http_429",
    ),
    "400 with HTML": (
        sends(answer(b"<html>Request blocked</html>", status="400 Bad Request")),
        "http_400",
    ),
    "403 with HTML": (
        sends(answer(b"<html>Attention required</html>", status="403 Forbidden")),
        "http_403",
    ),
    "409": (sends(reply({"message": "Conflict"}, status="409 Conflict")), "http_409"),
    "empty": (sends(answer(b"")), "not_json"),
    "truncated JSON": (sends(answer(b'{"status":"SUCCESSFUL","amount":')), "not_json"),
    "bytes that are no UTF-8": (sends(answer(b'{"status":"\xff"}')), "not_json"),
    "a lone surrogate": (sends(answer(b'{"status":"\\ud800"}')), "not_json"),
    "a NUL": (sends(answer(b'{"status":"SUCCESSFUL","a":"\\u0000"}')), "not_text"),
    "a number beyond all bounds": (sends(answer(b'{"amount":1e999}')), "not_json"),
    "very deep JSON": (sends(answer(b"[" * 100_000)), "not_json"),
    "a redirect": (
        sends(answer(b"", status="302 Found", headers="Location: /elsewhere\r\n")),
        "http_302",
    ),
    "a huge body": (sends_and_closes(answer(b" " * (ANSWER_BYTES_MAX + 1))), "answer_too_large"),
    "not HTTP": (sends_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n"), "not_http"),
}

#: JSON of a shape that no answer has.
WRONG_SHAPES: dict[str, object] = {
    "null": None,
    "a text": "SUCCESSFUL",
    "a number": 5_000,
    "true": True,
    "an empty object": {},
    "an empty list": [],
    "a list of texts": ["SUCCESSFUL"],
    "a list of lists": [[]],
    "several objects": [{}, {}],
}

#: Any JSON at all, short.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class CannedClient(HttpClient):
    """Gives one answer to every call, without a network."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        super().__init__("http://127.0.0.1:1")
        self._canned = HttpAnswer(status, body)

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """Return the answer."""
        return self._canned

    async def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """Return the answer."""
        return self._canned


def split(request: bytes) -> tuple[str, str, dict[str, str], Any]:
    """Take a request apart: method, target, headers by lower-case name, JSON body or None."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs)
    return method, target, headers, orjson.loads(body) if body else None
