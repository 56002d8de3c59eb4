"""The routes at which a process describes itself: `/openapi.json` and `/docs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import orjson
from aiohttp import web

from shared.web.openapi.document import document
from shared.web.openapi.page import CONTENT_SECURITY_POLICY, page
from shared.web.openapi.references import Json
from shared.web.routes import Route, json_response

TITLE: Final = "Sluice"


def described(routes: Iterable[Any]) -> Json:
    """Return the document of a process's routes."""
    return document(routes, title=TITLE, version=version("sluice"))


def documentation_routes(routes: Iterable[Any]) -> list[Route]:
    """Return the two routes; neither needs a key. The document is made when first asked for."""
    all_routes = tuple(routes)

    @cache
    def made() -> Json:
        return described(all_routes)

    async def read_made() -> Json:
        return made()

    return document_routes(read_made)


def document_routes(read_document: Callable[[], Awaitable[Json]]) -> list[Route]:
    """Return the two routes for a document that `read_document` returns."""

    async def openapi(_request: web.Request) -> web.Response:
        return json_response(orjson.dumps(await read_document()))

    async def docs(_request: web.Request) -> web.Response:
        return web.Response(
            text=page(await read_document()),
            content_type="text/html",
            headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY},
        )

    return [Route("GET", "/openapi.json", openapi), Route("GET", "/docs", docs)]
