"""The HTTP application: every route answers in the envelope, is measured and may need a key."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from aiohttp import hdrs, web

from shared import metrics
from shared.errors import SluiceError, TooManyRequestsError, TransientError
from shared.web.errors import envelope, error_body, status_of
from shared.web.idempotency import KeyInUseError
from shared.web.keys import Keyring
from shared.web.rate_limits import RateLimit
from shared.web.routes import BODY_BYTES_MAX, Route, Scope, json_response

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The name of the API key that made the request, for idempotency and records.
CALLER: Final = web.RequestKey("caller", str)

_FIXED: Final = web.AppKey("fixed", dict[tuple[str, str], Handler])

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def build_application(
    routes: Sequence[Route], *, keyring: Keyring, rate_limit: RateLimit
) -> web.Application:
    """Make the application of one process, which may serve several services' routes."""
    application = web.Application(middlewares=[_answer], client_max_size=BODY_BYTES_MAX * 4)
    for route in routes:
        handler = route.handler
        if route.scope is not None:
            handler = _with_key(handler, route.scope, keyring, rate_limit)
        application.router.add_route(route.method, route.path, handler)
    fixed: dict[tuple[str, str], Handler] = {
        (route.method, route.path): partial(_answer_at, route.path, handler=route.handler)
        for route in routes
        if route.scope is None and "{" not in route.path
    }
    application[_FIXED] = fixed
    return application


def skip_router(server: web.Server, application: web.Application) -> None:
    """Let keyless routes with a fixed path be found by one look-up, before aiohttp's router.

    Finding the resource and wrapping its handler takes a tenth of a webhook's time.
    """
    fixed, routed = application[_FIXED], server.request_handler

    def handle(request: Any) -> Awaitable[web.StreamResponse]:
        if hdrs.EXPECT in request.headers:
            return routed(request)  # aiohttp answers 100 there; PHP's curl waits for it.
        return fixed.get((request.method, request.path), routed)(request)

    server.request_handler = handle


def _with_key(handler: Handler, scope: Scope, keyring: Keyring, rate_limit: RateLimit) -> Handler:
    async def authorized(request: web.Request) -> web.StreamResponse:
        try:
            caller = keyring.authorize(request.headers.get("Authorization"), scope)
        except SluiceError:
            rate_limit.take(f"address {request.remote}")
            raise
        rate_limit.take(caller)
        request[CALLER] = caller
        return await handler(request)

    return authorized


@web.middleware
async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    resource = request.match_info.route.resource
    return await _answer_at(resource.canonical if resource is not None else None, request, handler)


async def _answer_at(
    route: str | None, request: web.Request, handler: Handler
) -> web.StreamResponse:
    """Give every request an id, turn every exception into the error envelope, measure."""
    started = time.perf_counter()
    given = request.headers.get("X-Request-Id")
    request_id = (
        given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
    )
    try:
        response = await handler(request)
    except SluiceError as error:
        response = _refuse(error)
    except web.HTTPException as error:
        response = _render(error)
    except Exception:
        log.exception("request_failed", path=request.path, request_id=request_id)
        body = envelope(
            "internal_error", "something went wrong; the request id finds it in the log"
        )
        response = json_response(body, status=500)
    response.headers["X-Request-Id"] = request_id
    # Of an unknown route the method may be anything, and would make labels without end.
    method = "none" if route is None else request.method
    duration = metrics.bound(
        metrics.HTTP_REQUEST_SECONDS, route or "none", method, str(response.status)
    )
    duration.observe(time.perf_counter() - started)
    return response


def _refuse(error: SluiceError) -> web.Response:
    response = json_response(error_body(error), status=status_of(error))
    if isinstance(error, (TransientError, TooManyRequestsError, KeyInUseError)):
        response.headers["Retry-After"] = str(error.retry_after_seconds)
    return response


def _render(error: web.HTTPException) -> web.Response:
    code = error.reason.lower().replace(" ", "_")
    response = json_response(envelope(code, error.reason), status=error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
