"""Bodies and queries that are too large, malformed or hostile: 4xx with the field's name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from shared.errors import InvalidInputError
from shared.web.bodies import Body, LongText, ShortText, WebAddress
from shared.web.routes import BODY_BYTES_MAX, Answer, Route, parse, parse_query, read_body
from tests.support.http_api import Api, Reply, serving


class Inner(Body):
    name: ShortText


class Order(Body):
    amount: Annotated[int, Field(gt=0, le=10**15)]
    inner: Inner
    is_gift: bool = False
    note: LongText = ""
    return_url: WebAddress | None = None
    metadata: Annotated[dict[ShortText, LongText], Field(max_length=3, default_factory=dict)]


class Query(BaseModel):
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    name: ShortText | None = None

    model_config = {"extra": "forbid"}


async def order(request: web.Request) -> web.Response:
    body = parse(Order, await read_body(request))
    return Answer(body.model_dump(mode="json", by_alias=True)).response()


async def measure(request: web.Request) -> web.Response:
    return Answer(len(await read_body(request))).response()


async def search(request: web.Request) -> web.Response:
    return Answer(parse_query(Query, request).model_dump()).response()


ROUTES = [
    Route("POST", "/order", order),
    Route("POST", "/size", measure),
    Route("GET", "/search", search),
]

GOOD = {"amount": 5, "inner": {"name": "x"}}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with serving(ROUTES) as api:
        yield api


async def chunks(size: int, piece: int = 8_192) -> AsyncIterator[bytes]:
    while size > 0:
        yield b"x" * min(size, piece)
        size -= piece


async def test_a_body_of_exactly_the_limit_is_read(api: Api) -> None:
    assert (await api.call("POST", "/size", b"x" * BODY_BYTES_MAX)).data == BODY_BYTES_MAX
    assert (await api.call("POST", "/size", chunks(BODY_BYTES_MAX))).data == BODY_BYTES_MAX


async def test_a_body_over_the_limit_is_refused_by_its_announced_length(api: Api) -> None:
    reply = await api.call("POST", "/size", b"x" * (BODY_BYTES_MAX + 1))

    assert (reply.status, reply.error["code"]) == (413, "too_large")


async def test_a_body_over_the_limit_is_refused_without_an_announced_length_too(api: Api) -> None:
    reply = await api.call("POST", "/size", chunks(BODY_BYTES_MAX + 1))

    assert (reply.status, reply.error["code"]) == (413, "too_large")


async def test_the_next_request_after_a_refused_body_is_answered(api: Api) -> None:
    for _ in range(3):
        assert (await api.call("POST", "/size", b"x" * (BODY_BYTES_MAX + 1))).status == 413
        assert (await api.call("POST", "/size", b"x")).data == 1


def refused(reply: Reply, field: str) -> None:
    assert (reply.status, reply.error["code"]) == (400, "invalid_input"), reply.raw[:300]
    assert field in reply.error["details"], reply.error


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"not json",
        b"\xff\xfe",
        b'{"amount": 1,}',
        b"{'amount': 1}",
        b'{"note": "\\ud800"}',
        b'{"note": "\xed\xa0\x80"}',
        b'{"amount": NaN}',
        b"[" * 5_000 + b"]" * 5_000,
        b'{"inner":' * 5_000 + b"1" + b"}" * 5_000,
        b"[]",
        b"null",
        b"7",
        b'"text"',
    ],
)
async def test_what_is_no_json_object_is_refused(api: Api, raw: bytes) -> None:
    reply = await api.call("POST", "/order", raw)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert reply.error["details"], "it says where"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": "5"}, "amount"),
        ({"amount": 5.0}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": 0}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 10**15 + 1}, "amount"),
        ({"isGift": 1}, "isGift"),
        ({"isGift": "yes"}, "isGift"),
        ({"note": 7}, "note"),
        ({"note": "a\x00b"}, "note"),
        ({"note": "a\nb"}, "note"),
        ({"note": "x" * 501}, "note"),
        ({"inner": []}, "inner"),
        ({"inner": {}}, "inner.name"),
        ({"inner": {"name": ""}}, "inner.name"),
        ({"inner": {"name": "x", "more": 1}}, "inner.more"),
        ({"more": 1}, "more"),
        ({"is_gift": True}, "is_gift"),
        ({"returnUrl": "javascript:alert(1)"}, "returnUrl"),
        ({"returnUrl": "https://user:pass@shop.example/"}, "returnUrl"),
        ({"returnUrl": "https://shop.example/a b"}, "returnUrl"),
        ({"returnUrl": "https:///path"}, "returnUrl"),
        ({"returnUrl": "https://[::1"}, "returnUrl"),
        ({"returnUrl": "https://shop.example:99999/"}, "returnUrl"),
        ({"returnUrl": "https://shop.example:abc/"}, "returnUrl"),
        ({"returnUrl": "//shop.example/"}, "returnUrl"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"": "x"}}, "metadata.body"),
        ({"metadata": {str(n): "x" for n in range(4)}}, "metadata"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, change: dict[str, Any], field: str) -> None:
    reply = await api.call("POST", "/order", GOOD | change)

    if field == "metadata.body":
        assert reply.status == 400
    else:
        refused(reply, field)


@pytest.mark.parametrize(
    ("digits", "field"), [(20, "amount"), (400, "amount"), (5_000, "body"), (40_000, "body")]
)
async def test_an_integer_of_any_length_is_refused(api: Api, digits: int, field: str) -> None:
    """Past 4,300 digits the parser gives up, and names the position instead."""
    raw = b'{"amount": ' + b"9" * digits + b', "inner": {"name": "x"}}'

    refused(await api.call("POST", "/order", raw), field)


async def test_a_value_that_is_refused_is_not_repeated(api: Api) -> None:
    reply = await api.call("POST", "/order", GOOD | {"amount": "4111111111111111"})

    assert b"4111" not in reply.raw


async def test_a_refusal_of_very_many_fields_is_no_larger_than_a_page(api: Api) -> None:
    for body in ({f"f{number}": 0 for number in range(5_000)}, {"f" * 60_000: 0}):
        reply = await api.call("POST", "/order", GOOD | body)
        assert reply.status == 400
        assert len(reply.raw) < 20_000


async def test_a_good_body_in_any_script_is_taken_as_it_is(api: Api) -> None:
    text = "দাম ১০০ ৳ · 漢字 · 🎓"
    reply = await api.call("POST", "/order", GOOD | {"note": text})

    assert reply.data["note"] == text


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=abc", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("limit=" + "9" * 5_000, "limit"),
        ("limit=1&limit=2", "limit"),
        ("name=", "name"),
        ("name=a%00b", "name"),
        ("name=" + "x" * 101, "name"),
        ("more=1", "more"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, field: str) -> None:
    refused(await api.call("GET", f"/search?{query}"), field)


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abé\x00", max_size=3), inner)
    ),
    max_leaves=8,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "amount": ANY_JSON,
            "inner": ANY_JSON,
            "isGift": ANY_JSON,
            "note": ANY_JSON,
            "returnUrl": ANY_JSON | st.text("abc:/@[]%.?# 09", max_size=30).map("http://".__add__),
            "metadata": ANY_JSON,
        },
    )
)
def test_no_body_at_all_makes_a_parser_fail(body: dict[str, Any]) -> None:
    """What `parse` lets through can be written as JSON again."""
    try:
        parsed = parse(Order, orjson.dumps(GOOD | body))
    except InvalidInputError:
        return
    orjson.dumps(parsed.model_dump(by_alias=True))
