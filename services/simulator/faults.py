"""Answering a call with or without a fault: the wrong statuses, silence and broken bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import orjson
from aiohttp import web

from services.simulator.behaviours import Behaviour
from services.simulator.core import Treatment
from shared.web.routes import json_response

_HTML: Final = "<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"

#: What a 429 asks the merchant to wait.
RETRY_AFTER_SECONDS: Final = 1

#: The statuses of calls that are refused before any work is done.
REFUSALS: Final[Mapping[str, int]] = MappingProxyType(
    {Behaviour.ERROR: 500, Behaviour.TOO_MANY_REQUESTS: 429, Behaviour.IN_USE: 409}
)

_HANGING: Final = frozenset({Behaviour.SLOW, Behaviour.TIMEOUT})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the protocol: something JSON can carry."""

    data: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def refuse(status: int) -> web.Response:
    """Refuse as a web server in front of a gateway would."""
    if status == 429:  # noqa: PLR2004 - its meaning is the standard's
        return web.Response(
            status=status,
            text="Too Many Requests",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    if status == 409:  # noqa: PLR2004 - its meaning is the standard's
        return web.Response(status=status, text="Conflict")
    return web.Response(status=status, text=_HTML, content_type="text/html")


async def answer(
    request: web.Request,
    treatment: Treatment,
    work: Callable[[], Awaitable[Reply]],
    refuse: Callable[[int], web.Response] = refuse,
) -> web.StreamResponse:
    """Do the work and answer it, as badly as is in store for the call.

    Args:
        request: The call.
        treatment: What is in store. Its latency passes before the work.
        work: Is not done by `error`, `too_many_requests`, `in_use` and `timeout_before`.
        refuse: Makes the answer with a status 409, 429 or 500, in the gateway's own words.
    """
    fault = treatment.fault
    behaviour = "" if fault is None else fault.behaviour
    if treatment.plan is not None and treatment.plan.latency_seconds:
        await asyncio.sleep(treatment.plan.latency_seconds)
    if behaviour in REFUSALS:
        return refuse(REFUSALS[behaviour])
    if fault is not None and behaviour == Behaviour.TIMEOUT_BEFORE:
        await asyncio.sleep(fault.delay_seconds)
        return _drop(request)
    reply = await work()
    if fault is not None and behaviour in _HANGING:
        await asyncio.sleep(fault.delay_seconds)
    if behaviour == Behaviour.ERROR_AFTER:
        return refuse(500)
    return await _answer_work(request, reply, behaviour)


async def _answer_work(request: web.Request, reply: Reply, behaviour: str) -> web.StreamResponse:
    """Answer work that was done."""
    body = orjson.dumps(reply.data)
    match behaviour:
        case Behaviour.DROP | Behaviour.TIMEOUT:
            return _drop(request)
        case Behaviour.RESET:
            return await _break_off(request, reply.status, body)
        case Behaviour.HTML:
            return web.Response(text=_HTML, content_type="text/html")
        case Behaviour.MALFORMED:
            body = body[: len(body) // 2]
        case _:
            pass
    return json_response(body, status=reply.status, headers=reply.headers)


def _drop(request: web.Request) -> web.StreamResponse:
    """Close the connection; what is returned finds nobody to read it."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _break_off(request: web.Request, status: int, body: bytes) -> web.StreamResponse:
    """Announce the whole answer, send half of it, and close the connection."""
    response = web.StreamResponse(status=status)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()  # Unlike `abort`, lets what was written reach the merchant.
    return response
