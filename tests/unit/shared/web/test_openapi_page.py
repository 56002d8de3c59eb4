"""The page shows what a document says, and nothing that it says becomes markup."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from typing import Annotated

from aiohttp import web
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from shared.web.bodies import Body, ShortText
from shared.web.openapi.document import document
from shared.web.openapi.page import page
from shared.web.pages import PageQuery
from shared.web.routes import PageOf, Route, Scope


class ThingBody(Body):
    """A body with `code` & <b>markup</b>."""

    name: ShortText
    count: Annotated[int, Field(gt=0, le=9, description="How <many>")]
    note: str | None = None


class ExampleBody(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "it's <one>"}]})

    name: ShortText


class ThingAnswer(TypedDict):
    """A thing."""

    parts: list[str]
    inner: dict[str, int]


async def create(_request: web.Request) -> web.StreamResponse:
    """Make a thing <i>now</i>.

    First `this`.

    Then that.
    """
    raise NotImplementedError


async def list_(_request: web.Request) -> web.StreamResponse:
    """List things."""
    raise NotImplementedError


def shown(*routes: Route) -> str:
    return page(document(routes, title="Things", version="7"))


def test_an_operation_shows_its_words_fields_and_answers() -> None:
    html = shown(
        Route("POST", "/api/things", create, Scope.WRITE, body=ThingBody, answer=ThingAnswer)
    )

    assert "Make a thing &lt;i&gt;now&lt;/i&gt;" in html
    assert "<p>First <code>this</code>.</p><p>Then that.</p>" in html
    assert "scope <code>write</code>" in html
    assert '<a href="#type-ThingBody">ThingBody</a>' in html
    assert "&gt; 0, ≤ 9" in html
    assert "How &lt;many&gt;" in html
    assert "<code>note</code>, optional" in html
    assert "list of string" in html
    assert "object, each value: integer" in html
    assert "<code>Idempotency-Key</code>" in html
    assert "<b>" not in html
    assert "<i>" not in html


def test_a_list_shows_its_query() -> None:
    html = shown(
        Route(
            "GET",
            "/api/things",
            list_,
            Scope.READ,
            query=PageQuery,
            answer=PageOf("things", ThingAnswer),
        )
    )

    assert "<code>cursor</code>" in html
    assert "query, optional" in html
    assert "default 50" in html
    assert "1 to 100 characters" in html
    assert "list of" in html


def command_in(html: str) -> str:
    found = re.search(r"<h4>Example</h4><pre>(.*?)</pre>", html, re.DOTALL)
    assert found is not None
    return unescape(found[1])


def test_the_example_of_a_call_is_a_body_that_would_be_taken() -> None:
    command = command_in(
        shown(Route("POST", "/api/things", create, Scope.WRITE, body=ThingBody, answer=ThingAnswer))
    )

    assert command.startswith("curl -s -X POST $URL/api/things")
    [*_, sent] = shlex.split(command)
    ThingBody.model_validate_json(sent)


def test_the_example_that_a_body_gives_is_shown_and_its_quotes_are_the_shell_s() -> None:
    command = command_in(
        shown(
            Route("POST", "/api/things", create, Scope.WRITE, body=ExampleBody, answer=ThingAnswer)
        )
    )

    [*_, sent] = shlex.split(command)
    assert json.loads(sent) == {"name": "it's <one>"}
