"""A test that speaks HTTP fails when an answer is not what the description says of it."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from typing_extensions import TypedDict

from shared.errors import ConflictError, SluiceError
from shared.web.routes import Answer, Route, Text
from tests.support.http_api import serving


class Inner(TypedDict):
    size: int


class Thing(TypedDict):
    id: str
    inner: Inner | None


def answering(data: Any, **changes: Any) -> Route:
    async def read(_request: web.Request) -> web.StreamResponse:
        """Read."""
        if isinstance(data, SluiceError):
            raise data
        return Answer(data, **changes).response()

    return Route("GET", "/api/things/{thing_id}", read, answer=Thing)


@pytest.mark.parametrize(
    "data", [{"id": "1", "inner": {"size": 1}}, {"id": "1", "inner": None}], ids=str
)
async def test_an_answer_as_described_passes(data: Any) -> None:
    async with serving([answering(data)]) as api:
        assert (await api.call("GET", "/api/things/1?x=1")).data == data


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (answering({"id": 1, "inner": None}), "data.id: 1 is not of type 'string'"),
        (answering({"id": "1"}), "'inner' is a required property"),
        (answering({"id": "1", "inner": None, "more": 1}), "'more' was unexpected"),
        (answering({"id": "1", "inner": {"size": 1, "b": 2}}), "not as documented"),
        (answering({"id": "1", "inner": None}, status=201), "201 is not documented"),
        (answering(ConflictError("no")), "409 is not documented"),
        (answering(ZeroDivisionError()), "500 is not documented"),
    ],
    ids=["another type", "a missing field", "one too many", "inside", "status", "refusal", "bug"],
)
async def test_an_answer_that_is_described_otherwise_fails(route: Route, problem: str) -> None:
    async with serving([route]) as api:
        with pytest.raises(AssertionError, match=problem):
            await api.call("GET", "/api/things/1")


async def test_text_that_is_described_as_json_fails() -> None:
    async def read(_request: web.Request) -> web.StreamResponse:
        """Read."""
        return web.Response(text="hello")

    async with serving([Route("GET", "/api/things", read, answer=Thing)]) as api:
        with pytest.raises(AssertionError, match="undocumented type text/plain"):
            await api.call("GET", "/api/things")


async def test_a_body_where_none_is_described_fails() -> None:
    async def read(_request: web.Request) -> web.StreamResponse:
        """Read."""
        return web.Response(text="hello")

    async with serving([Route("GET", "/api/things", read, answer=Text(None))]) as api:
        with pytest.raises(AssertionError, match="has a body"):
            await api.call("GET", "/api/things")
