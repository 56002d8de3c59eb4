"""The HTTP application: every route answers in the envelope, is measured and may need a key."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog
from aiohttp import hdrs, web

from shared import metrics
from shared.errors import SluiceError, TooManyRequestsError, TransientError
from shared.web.errors import envelope, error_body, status_of
from shared.web.idempotency import KeyInUseError
from shared.web.keys import Keyring
from shared.web.rate_limits import RateLimit
from shared.web.routes import BODY_BYTES_MAX, DirectRoute, Route, Scope, json_response

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The name of the API key that made the request, for idempotency and records.
CALLER: Final = web.RequestKey("caller", str)

#: The direct routes of an application, by path.
DIRECT: Final = web.AppKey("direct", dict[bytes, DirectRoute])

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def build_application(
    routes: Sequence[Route | DirectRoute], *, keyring: Keyring, rate_limit: RateLimit
) -> web.Application:
    """Make the application of one process, which may serve several services' routes."""
    application = web.Application(middlewares=[_answer], client_max_size=BODY_BYTES_MAX * 4)
    direct: dict[bytes, DirectRoute] = {}
    for route in routes:
        if isinstance(route, DirectRoute):
            direct[route.path.encode()] = route
            application.router.add_post(route.path, route.handle)
            continue
        handler = route.handler
        if route.scope is not None:
            handler = _with_key(handler, route.scope, keyring, rate_limit)
        application.router.add_route(route.method, route.path, handler)
    for path, methods in _methods_of_fixed_paths(routes).items():
        application.router.add_route(hdrs.METH_ANY, path, partial(_refuse_method, methods))
    application[DIRECT] = direct
    return application


def _methods_of_fixed_paths(routes: Sequence[Route | DirectRoute]) -> dict[str, list[str]]:
    """Return what may be done at paths without parameters, unless it is anything."""
    methods: dict[str, list[str]] = {}
    for route in routes:
        if "{" not in route.path:
            method = "POST" if isinstance(route, DirectRoute) else route.method
            methods.setdefault(route.path, []).append(method)
    return {path: each for path, each in methods.items() if hdrs.METH_ANY not in each}


async def _refuse_method(methods: Sequence[str], request: web.Request) -> web.StreamResponse:
    """Refuse what a fixed path does not do.

    Else a path with a parameter would be asked instead: `GET /api/payments/process` would look for
    a payment with the id `process`.
    """
    raise web.HTTPMethodNotAllowed(request.method, sorted(methods))


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
    """Give every request an id, turn every exception into the error envelope, measure."""
    started = time.perf_counter()
    request_id = request_id_of(request.headers.get("X-Request-Id"))
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Exception as error:  # noqa: BLE001 - every exception becomes the error envelope
        response = answer_error(error, path=request.path, request_id=request_id)
    response.headers["X-Request-Id"] = request_id
    resource = request.match_info.route.resource
    route, method = "none", "none"
    # Of an unknown route the method may be anything, and would make labels without end.
    if resource is not None and response.status != web.HTTPMethodNotAllowed.status_code:
        route, method = resource.canonical, request.method
    observe(route, method, response.status, started)
    return response


def request_id_of(given: str | None) -> str:
    """Return the request id that the caller gave, if it is fit for logs, or a new one."""
    if given and _REQUEST_ID.fullmatch(given):
        return given
    return f"{random.getrandbits(64):016x}"


def answer_error(error: Exception, *, path: str, request_id: str) -> web.Response:
    """Return the error envelope for whatever a handler raised, and log what none should raise."""
    if isinstance(error, SluiceError):
        return _refuse(error)
    if isinstance(error, web.HTTPException):
        return _render(error)
    log.error("request_failed", path=path, request_id=request_id, exc_info=error)
    body = envelope("internal_error", "something went wrong; the request id finds it in the log")
    return json_response(body, status=500)


def observe(route: str, method: str, status: int, started: float) -> None:
    """Measure a request that began at `started`, by `time.perf_counter()`."""
    duration = metrics.bound(metrics.HTTP_REQUEST_SECONDS, route, method, str(int(status)))
    duration.observe(time.perf_counter() - started)


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
