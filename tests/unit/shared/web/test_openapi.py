"""The description of the API is drawn from the routes, is valid OpenAPI 3.1, and says it all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from types import NoneType
from typing import Annotated, Any, Literal

import pytest
from aiohttp import web
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import Field
from typing_extensions import TypedDict

from shared.errors import GatewayUnavailableError
from shared.web.bodies import Body, ShortText, TimeText
from shared.web.openapi.document import document, tag_of
from shared.web.openapi.references import Json, definition
from shared.web.pages import PageQuery
from shared.web.routes import Bare, DirectRoute, PageOf, Route, Scope, Text


class Colour(StrEnum):
    RED = "red"


class ThingBody(Body):
    """What a thing is made of."""

    colour: Colour
    display_name: Annotated[ShortText, Field(description="Shown to people")]


class ThingsQuery(PageQuery):
    colour: Colour | None = None


class ThingAnswer(TypedDict):
    """A thing."""

    id: str
    createdAt: TimeText | None


class OneModule:
    class Twin(TypedDict):
        kind: int


class OtherModule:
    class Twin(TypedDict):
        kind: str


async def create(request: web.Request) -> web.StreamResponse:
    """Make a thing.

    It is `red`, mostly.
    """
    raise NotImplementedError


async def list_(_request: web.Request) -> web.StreamResponse:
    """List things."""
    raise NotImplementedError


async def read(_name: str, _request: web.Request) -> web.StreamResponse:
    """Read a thing."""
    raise NotImplementedError


async def receive(_headers: Any, _body: bytes) -> bytes:
    raise NotImplementedError


CREATE = Route(
    "POST",
    "/api/things",
    create,
    Scope.WRITE,
    body=ThingBody,
    answer=ThingAnswer,
    status=201,
    errors=(GatewayUnavailableError,),
)
LIST = Route(
    "GET",
    "/api/things",
    list_,
    Scope.READ,
    query=ThingsQuery,
    answer=PageOf("things", ThingAnswer),
)
READ = Route(
    "GET",
    "/api/things/{colour}/{thing_id}",
    partial(read, "x"),
    Scope.READ,
    answer=ThingAnswer,
    parameters={"colour": Colour},
)
DELETE = Route("DELETE", "/api/things/{thing_id}", create, Scope.ADMIN, answer=NoneType)


def described(*routes: Any) -> Json:
    return document(routes, title="Things", version="7")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    made = described(CREATE, LIST, READ)

    assert made["openapi"] == "3.1.0"
    assert made["info"] | {"description": ""} == {
        "title": "Things",
        "version": "7",
        "description": "",
    }
    for reference in references(made):
        definition(made, reference)
    for schema in made["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_an_operation_is_named_by_its_module_and_function_and_told_by_its_docstring() -> None:
    operation = described(CREATE)["paths"]["/api/things"]["post"]

    assert operation["operationId"].endswith("openapi.create")
    assert operation["summary"] == "Make a thing"
    assert operation["description"] == "It is `red`, mostly."


def test_operations_that_one_function_answers_are_named_by_their_paths() -> None:
    made = described(LIST, Route("GET", "/api/things/{thing_id}", list_, answer=str))

    names = [each["operationId"] for methods in made["paths"].values() for each in methods.values()]
    assert names == ["get_api_things", "get_api_things_thingId"]


@pytest.mark.parametrize(
    ("module", "subject"),
    [
        ("services.payments.routes.settlement_checks", "settlement checks"),
        ("services.enrollment.routes", "enrollment"),
        ("services.simulator.stripe.routes", "simulator"),
        ("shared.web.dead_letter_routes", "dead letter"),
    ],
)
def test_a_route_belongs_to_its_module_or_to_its_whole_service(
    module: str, subject: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(list_, "__module__", module)

    assert tag_of(LIST) == subject


def test_a_write_takes_an_idempotency_key_and_names_its_scope() -> None:
    made = described(CREATE, LIST, DELETE)
    write, list_of = made["paths"]["/api/things"]["post"], made["paths"]["/api/things"]["get"]
    delete = made["paths"]["/api/things/{thingId}"]["delete"]

    key = {"$ref": "#/components/parameters/IdempotencyKey"}
    assert write["parameters"] == [key]
    assert key in delete["parameters"]
    assert key not in list_of["parameters"]
    assert write["security"] == [{"apiKey": ["write"]}]
    assert made["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"


def test_a_body_is_in_camel_case_and_closed() -> None:
    made = described(CREATE)
    content = made["paths"]["/api/things"]["post"]["requestBody"]["content"]
    schema = definition(made, content["application/json"]["schema"]["$ref"])

    assert set(schema["properties"]) == {"colour", "displayName"}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["displayName"]["description"] == "Shown to people"


def test_what_may_be_left_out_of_a_query_is_not_null() -> None:
    parameters = described(LIST)["paths"]["/api/things"]["get"]["parameters"]
    found = {each["name"]: each for each in parameters}

    assert set(found) == {"cursor", "limit", "colour"}
    assert found["colour"]["schema"] == {"$ref": "#/components/schemas/Colour"}
    assert found["limit"]["schema"]["maximum"] == 200
    assert not any(each["required"] for each in parameters)
    assert "null" not in str(parameters)


def test_a_parameter_of_the_path_is_text_unless_the_route_says_more() -> None:
    operation = described(READ)["paths"]["/api/things/{colour}/{thingId}"]["get"]
    found = {each["name"]: each["schema"] for each in operation["parameters"]}

    assert found == {
        "colour": {"$ref": "#/components/schemas/Colour"},
        "thingId": {"type": "string", "minLength": 1},
    }


def test_the_answer_stands_in_its_envelope() -> None:
    made = described(CREATE, LIST, DELETE)

    def data(path: str, method: str, status: str) -> Any:
        answer = made["paths"][path][method]["responses"][status]
        return answer["content"]["application/json"]["schema"]["properties"]["data"]

    assert data("/api/things", "post", "201") == {"$ref": "#/components/schemas/ThingAnswer"}
    page = data("/api/things", "get", "200")
    assert page["required"] == ["things", "nextCursor"]
    assert page["properties"]["things"]["items"] == {"$ref": "#/components/schemas/ThingAnswer"}
    assert data("/api/things/{thingId}", "delete", "200") == {"type": "null"}


@pytest.mark.parametrize(
    ("route", "statuses"),
    [
        (CREATE, "201 400 401 403 409 413 429 502 503"),
        (LIST, "200 400 401 403 429 503"),
        (READ, "200 401 403 404 429 503"),
        (DELETE, "200 400 401 403 404 409 429 503"),
        (
            Route("GET", "/livez", list_, answer=Bare(Colour), other_answers={503: Text()}),
            "200 503",
        ),
    ],
    ids=["a write with a body", "a list", "a read", "a deletion", "a route without a key"],
)
def test_refusals_follow_from_the_shape_of_a_route(route: Route, statuses: str) -> None:
    [methods] = described(route)["paths"].values()
    [operation] = methods.values()

    assert sorted(operation["responses"]) == statuses.split()


def test_a_refusal_says_its_codes_and_when_to_come_back() -> None:
    made = described(CREATE)
    responses = made["paths"]["/api/things"]["post"]["responses"]
    conflict, away = (definition(made, responses[status]["$ref"]) for status in ("409", "502"))

    for code in ("conflict", "idempotency_key_reused", "idempotency_key_in_use"):
        assert f"`{code}`:" in conflict["description"]
    assert "Retry-After" in away["headers"]
    assert "`gateway_unavailable`: A payment gateway did not answer" in away["description"]


def test_types_of_one_name_and_different_shape_are_told_apart() -> None:
    first = Route("GET", "/one", list_, answer=OneModule.Twin)
    second = Route("GET", "/two", list_, answer=OtherModule.Twin)

    made = described(first, second)

    kinds = [
        schema["properties"]["kind"]["type"]
        for name, schema in made["components"]["schemas"].items()
        if "Twin" in name
    ]
    assert sorted(kinds) == ["integer", "string"]


def test_types_of_one_name_are_named_after_their_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, service in ((OneModule.Twin, "one"), (OtherModule.Twin, "other")):
        monkeypatch.setattr(kind, "__module__", f"services.{service}.routes")
    first = Route("GET", "/one", list_, answer=OneModule.Twin)
    second = Route("GET", "/two", list_, answer=PageOf("twins", OtherModule.Twin))

    made = described(first, second)

    assert set(made["components"]["schemas"]) == {"one.Twin", "other.Twin"}
    for reference in references(made):
        definition(made, reference)


def test_only_types_that_something_refers_to_are_there() -> None:
    schemas = described(LIST)["components"]["schemas"]

    assert set(schemas) == {"Colour", "ThingAnswer", "Error"}, "the query stands in its parameters"


def test_what_says_no_answer_is_left_out() -> None:
    made = described(Route("GET", "/page", list_), DirectRoute("/notices", receive, 1_000))

    assert made["paths"] == {}


def test_an_operation_that_is_described_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="GET /api/things is described twice"):
        described(LIST, LIST)


def test_a_parameter_with_two_names_is_a_mistake() -> None:
    one = Route("GET", "/api/things/{thing_id}", list_, answer=str)
    other = Route("PUT", "/api/things/{other_id}", list_, answer=str)

    with pytest.raises(ValueError, match="another name for a parameter"):
        described(one, other)


def test_names_are_fit_for_references() -> None:
    made = described(CREATE, LIST, READ, Route("GET", "/a", list_, answer=Literal["a"]))

    for kind in ("schemas", "responses", "parameters", "headers"):
        for name in made["components"][kind]:
            assert re.fullmatch(r"[A-Za-z0-9._-]+", name), name
