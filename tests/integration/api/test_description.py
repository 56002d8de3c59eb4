"""What is described is what is served: every route, behind one address, on a page of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from deploy.local.front_door import front_door_part, make_application
from deploy.local.services import PATH_PREFIXES, SERVICE_NAMES
from shared.process import Part
from shared.web.openapi.document import tag_of
from shared.web.openapi.examples import example_of
from shared.web.openapi.references import Json, definition
from shared.web.routes import Route
from tests.integration.api.world import SERVICES, opened_parts
from tests.support.http_api import Api, serving, serving_application


@pytest.fixture
async def parts(new_database: str, redis_url: str) -> AsyncIterator[list[Part]]:
    async with opened_parts(SERVICE_NAMES, new_database, redis_url) as parts:
        yield parts


@pytest.fixture
async def whole(parts: list[Part]) -> AsyncIterator[Api]:
    """Serve everything in one process."""
    async with serving(parts=parts) as api:
        yield api


async def document_of(api: Api) -> Json:
    reply = await api.call("GET", "/openapi.json", key=None)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/json")
    found: Json = orjson.loads(reply.raw)
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_every_route_says_what_it_answers(parts: list[Part]) -> None:
    """But for those of the simulator, which speak the gateways' protocols, not ours."""
    silent = [
        f"{part.name}: {route.method} {route.path}"
        for part in parts
        for route in part.routes
        if part.name != "simulator" and isinstance(route, Route) and route.answer is None
    ]

    assert silent == []


async def test_every_operation_has_a_name_a_summary_and_described_fields(whole: Api) -> None:
    made = await document_of(whole)
    operations = [each for methods in made["paths"].values() for each in methods.values()]

    names = [operation["operationId"] for operation in operations]
    assert len(operations) > 15
    assert len(set(names)) == len(names)
    assert [each["operationId"] for each in operations if not each["summary"]] == []
    for reference in references(made):
        definition(made, reference)
    for schema in made["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_the_example_of_every_call_has_a_body_that_is_valid(whole: Api) -> None:
    made = await document_of(whole)
    wrong = {}
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            if "requestBody" not in operation:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            validator = Draft202012Validator({**schema, "components": made["components"]})
            example = example_of(made, schema)
            problems = [error.message for error in validator.iter_errors(example)]
            if problems:
                wrong[f"{method} {path}"] = problems

    assert wrong == {}


async def test_every_path_is_behind_the_front_door(parts: list[Part]) -> None:
    prefixes = dict(
        zip((f"{name}-http" for name in PATH_PREFIXES), PATH_PREFIXES.values(), strict=True)
    )
    prefixes["simulator"] = prefixes.pop("simulator-http")

    assert not [
        route.path
        for part in parts
        for route in part.routes
        if not any(
            route.path == each or route.path.startswith(f"{each.rstrip('/')}/")
            for each in prefixes[part.name]
        )
    ]


async def test_the_front_door_describes_what_one_process_with_everything_does(
    parts: list[Part], whole: Api
) -> None:
    async with AsyncExitStack() as stack:
        processes = {}
        for part in parts:
            api = await stack.enter_async_context(serving(parts=[part]))
            processes[f"{part.name.removesuffix('-http')}-http"] = api.url
        upstreams = {
            prefix: processes[f"{name}-http"]
            for name, prefixes in PATH_PREFIXES.items()
            for prefix in prefixes
        }
        part = await stack.enter_async_context(front_door_part(upstreams, processes))
        door = await stack.enter_async_context(serving_application(make_application([part])))
        made, page = await document_of(door), await door.call("GET", "/docs", key=None)

    unified = await document_of(whole)
    assert made["paths"].keys() == unified["paths"].keys()
    assert {path: set(each) for path, each in made["paths"].items()} == {
        path: set(each) for path, each in unified["paths"].items()
    }
    assert made["tags"] == unified["tags"]
    for reference in references(made):
        definition(made, reference)
    assert page.status == 200


async def test_a_service_that_is_away_is_no_half_description() -> None:
    upstreams = {"/api/payments": "http://127.0.0.1:9"}
    async with (
        front_door_part(upstreams, {"payments-http": "http://127.0.0.1:9"}) as part,
        serving_application(make_application([part])) as door,
    ):
        reply = await door.call("GET", "/openapi.json", key=None)

    assert (reply.status, reply.error["code"]) == (503, "temporarily_unavailable")


async def test_the_page_shows_every_operation_and_loads_nothing(whole: Api) -> None:
    made = await document_of(whole)
    reply = await whole.call("GET", "/docs", key=None)
    page = reply.raw.decode()

    assert reply.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    for path, methods in made["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page
    for name in made["components"]["schemas"]:
        assert f'id="type-{name}"' in page
    assert set(re.findall(r'href="(?!#)([^"]*)"', page)) == {"openapi.json"}
    assert not re.search(r"<(script|img|link|iframe)|@import|url\(", page)
    anchors = set(re.findall(r'id="([^"]+)"', page))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', page)} <= anchors


async def test_each_service_describes_its_own(new_database: str, redis_url: str) -> None:
    for name in SERVICES:
        async with (
            opened_parts([name], new_database, redis_url) as parts,
            serving(parts=parts) as api,
        ):
            made = await document_of(api)

        own = {tag_of(route) for route in parts[0].routes if isinstance(route, Route)}
        assert {tag["name"] for tag in made["tags"]} == own | {"health"}
