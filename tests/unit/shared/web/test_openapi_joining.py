"""Documents of several services become one, and every reference in it still means the same."""

from __future__ import annotations

from aiohttp import web
from typing_extensions import TypedDict

from shared.web.openapi.document import document
from shared.web.openapi.joining import joined
from shared.web.openapi.references import Json, definition
from shared.web.routes import Bare, Route, Scope


class Here:
    class Part(TypedDict):
        size: int

    class Whole(TypedDict):
        parts: list[Here.Part]


class There:
    class Part(TypedDict):
        weight: str

    class Whole(TypedDict):
        parts: list[There.Part]


class Health(TypedDict):
    status: str


async def read(_request: web.Request) -> web.StreamResponse:
    """Read."""
    raise NotImplementedError


HEALTH = Route("GET", "/health", read, answer=Bare(Health))


def described(*routes: Route) -> Json:
    return document([*routes, HEALTH], title="Things", version="7")


def part_of(made: Json, path: str) -> Json:
    """Return the fields of a part, found by following the references from an answer."""
    response = made["paths"][path]["get"]["responses"]["200"]
    data = response["content"]["application/json"]["schema"]["properties"]["data"]
    whole = definition(made, data["$ref"])
    part = definition(made, whole["properties"]["parts"]["items"]["$ref"])
    fields: Json = part["properties"]
    return fields


def test_types_of_one_name_keep_their_meanings() -> None:
    here = described(Route("GET", "/here", read, Scope.READ, answer=Here.Whole))
    there = described(Route("GET", "/there", read, Scope.READ, answer=There.Whole))

    made = joined({"near": here, "far": there})

    assert set(part_of(made, "/here")) == {"size"}
    assert set(part_of(made, "/there")) == {"weight"}
    assert {"Part", "Whole", "far.Part", "far.Whole", "Error"} <= set(made["components"]["schemas"])


def test_what_all_have_is_there_once_and_refusals_lead_somewhere() -> None:
    here = described(Route("GET", "/here", read, Scope.READ, answer=Here.Whole))
    there = described(Route("DELETE", "/here", read, Scope.ADMIN, answer=Here.Whole))

    made = joined({"near": here, "far": there})

    assert sorted(made["paths"]) == ["/health", "/here"]
    assert sorted(made["paths"]["/here"]) == ["delete", "get"]
    assert set(made["components"]["schemas"]) == {"Part", "Whole", "Health", "Error"}
    for operation in made["paths"]["/here"].values():
        for response in operation["responses"].values():
            if "$ref" in response:
                definition(made, response["$ref"])


def test_one_document_stays_as_it_is() -> None:
    here = described(Route("GET", "/here", read, Scope.READ, answer=Here.Whole))

    assert joined({"near": here}) == here
