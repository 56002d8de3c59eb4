"""Answering a call with or without a fault: the wrong statuses, silence and broken bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from aiohttp import web

from services.simulator.answers import Json
from services.simulator.domain import Behaviour, Fault
from shared.web.routes import json_response

_HTML: Final = "<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"


async def answer(
    request: web.Request, fault: Fault | None, work: Callable[[], Awaitable[Json]]
) -> web.StreamResponse:
    """Do the work and answer it, as badly as the fault says."""
    behaviour = None if fault is None else fault.behaviour
    if behaviour is Behaviour.ERROR:
        return web.Response(status=500, text=_HTML, content_type="text/html")
    if behaviour is Behaviour.TOO_MANY_REQUESTS:
        return web.Response(status=429, text="Too Many Requests")
    body = orjson.dumps(await work())
    if fault is not None and behaviour in (Behaviour.SLOW, Behaviour.TIMEOUT):
        await asyncio.sleep(fault.delay_seconds)
    if behaviour in (Behaviour.DROP, Behaviour.TIMEOUT):
        return _drop(request)
    if behaviour is Behaviour.ERROR_AFTER:
        return web.Response(status=500, text=_HTML, content_type="text/html")
    if behaviour is Behaviour.HTML:
        return web.Response(text=_HTML, content_type="text/html")
    if behaviour is Behaviour.MALFORMED:
        body = body[: len(body) // 2]
    return json_response(body)


def _drop(request: web.Request) -> web.StreamResponse:
    """Close the connection; what is returned finds nobody to read it."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
