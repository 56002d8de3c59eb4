"""The HTTP side of the webhook service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import parse_qsl

from aiohttp import web

from services.webhook import handlers
from services.webhook.runtime import Runtime
from shared.errors import (
    InvalidInputError,
    NotFoundError,
    TooLargeError,
    TransientError,
    UnauthorizedError,
)
from shared.gateways.registry import REGISTRY
from shared.web.routes import DirectRoute, Route, Text, read_body

#: Largest notice: genuine ones have 2 kB. Checked before the body is read.
NOTICE_BYTES_MAX: Final = 256 * 1024

#: How a customer says to come back. `back` is said by gateways that have one address for all.
Result: TypeAlias = Literal["success", "fail", "cancel", "back"]
RESULTS: Final = frozenset(get_args(Result))

#: What a notice, or a customer who comes back with one, may be refused with.
_REFUSALS: Final = (InvalidInputError, UnauthorizedError, TooLargeError, TransientError)

#: Shown when a customer is back before we know the merchant's address, or it is not ours to know.
_BACK_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Payment</title>
<body style="font-family:sans-serif;max-width:30em;margin:15vh auto;text-align:center">
<h1>Thank you</h1><p>Your payment is being confirmed. You can close this page and go back to the
shop.</p></body></html>"""


def webhook_routes(runtime: Runtime) -> list[Route | DirectRoute]:
    """Return the routes gateways and customers' browsers call; none needs a key."""
    return [*_notice_routes(runtime), *_return_routes(runtime)]


def _notice_routes(runtime: Runtime) -> list[Route | DirectRoute]:
    async def receive(gateway: str, headers: Mapping[str, str], body: bytes) -> bytes:
        await handlers.receive_notice(runtime, gateway, headers, body)
        return b"OK"

    async def receive_from_anyone(request: web.Request) -> web.Response:
        """Take a gateway's notice: 200 means that it is stored and will have its effect.

        The body is the gateway's own, and so is the proof in it or beside it. Answered 503, it is
        to be sent again.
        """
        body = await read_body(request, NOTICE_BYTES_MAX)
        text = await receive(request.match_info["gateway"], request.headers, body)
        return web.Response(body=text, content_type="text/plain")

    async def receive_query(gateway: str, request: web.Request) -> web.Response:
        """Take a notice whose fields, and so its proof, are in the query string, as it was sent."""
        query = request.raw_path.partition("?")[2].encode("utf-8", "surrogateescape")
        await handlers.receive_notice(runtime, gateway, request.headers, query)
        return web.Response(body=b"OK", content_type="text/plain")

    return [
        *(
            DirectRoute(f"/webhooks/{gateway}", partial(receive, gateway), NOTICE_BYTES_MAX)
            for gateway in runtime.readers
        ),
        Route("POST", "/webhooks/{gateway}", receive_from_anyone, answer=Text(), errors=_REFUSALS),
        *(
            Route(
                "GET",
                f"/webhooks/{gateway}",
                partial(receive_query, gateway),
                answer=Text(),
                errors=_REFUSALS,
            )
            for gateway in runtime.readers
            if REGISTRY[gateway].notices_by_get
        ),
    ]


def _return_routes(runtime: Runtime) -> list[Route]:
    async def come_back(request: web.Request) -> web.Response:
        """Take the customer's browser on from the page of any gateway, by our own reference.

        What the gateway adds to the address, or posts, is not read: notices and look-ups tell.
        """
        result = _result_of(request)
        return await send_on(request.match_info["reference"], result)

    async def come_back_signed(request: web.Request) -> web.Response:
        """Take the customer's browser on; what it carries is a hint like any notice."""
        result = _result_of(request)
        body = await read_body(request, NOTICE_BYTES_MAX)
        reference = request.query.get("tran_id", "")
        if body:
            try:
                notice = await handlers.receive_notice(
                    runtime, "sslcommerz", request.headers, body, source="return"
                )
                reference = notice.reference
            except (InvalidInputError, UnauthorizedError):
                # Without a valid proof nothing is recorded, but the customer is sent on.
                fields = dict(parse_qsl(body.decode("utf-8", "replace")))
                reference = fields.get("tran_id") or reference
        return await send_on(reference, result)

    async def send_on(reference: str, result: str) -> web.Response:
        address = await handlers.return_address(runtime, reference, result)
        if address is None:
            return web.Response(text=_BACK_PAGE, content_type="text/html")
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": address})

    return [
        *_both_ways("/return/sslcommerz/{result}", come_back_signed),
        *_both_ways("/return/{gateway}/{reference}/{result}", come_back),
    ]


def _both_ways(path: str, handler: Callable[[web.Request], Awaitable[web.Response]]) -> list[Route]:
    """Return the routes of one place where browsers come back: by a link or with a form."""
    return [
        Route(
            method,
            path,
            handler,
            answer=Text("text/html"),
            other_answers={HTTPStatus.SEE_OTHER: Text(None)},
            parameters={"result": Result},
            errors=(*_REFUSALS, NotFoundError),
        )
        for method in ("POST", "GET")
    ]


def _result_of(request: web.Request) -> str:
    result = request.match_info["result"]
    if result not in RESULTS:
        raise NotFoundError(f"the result is one of {', '.join(sorted(RESULTS))}")
    return result
