"""The HTTP side of the webhook service."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import parse_qsl

from aiohttp import web

from services.webhook import handlers
from services.webhook.runtime import Runtime
from shared.errors import InvalidInputError, NotFoundError, UnauthorizedError
from shared.web.routes import DirectRoute, Route, read_body

#: Largest notice: genuine ones have 2 kB. Checked before the body is read.
NOTICE_BYTES_MAX: Final = 256 * 1024

_RESULTS: Final[dict[str, Literal["success", "fail", "cancel"]]] = {
    "success": "success",
    "fail": "fail",
    "cancel": "cancel",
}

#: Shown when a customer is back before we know the merchant's address, or it is not ours to know.
_BACK_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Payment</title>
<body style="font-family:sans-serif;max-width:30em;margin:15vh auto;text-align:center">
<h1>Thank you</h1><p>Your payment is being confirmed. You can close this page and go back to the
shop.</p></body></html>"""


def webhook_routes(runtime: Runtime) -> list[Route | DirectRoute]:
    """Return the routes gateways and customers' browsers call; none needs a key."""

    async def receive(gateway: str, headers: Mapping[str, str], body: bytes) -> bytes:
        await handlers.receive_notice(runtime, gateway, headers, body)
        return b"OK"

    async def receive_from_anyone(request: web.Request) -> web.Response:
        body = await read_body(request, NOTICE_BYTES_MAX)
        text = await receive(request.match_info["gateway"], request.headers, body)
        return web.Response(body=text, content_type="text/plain")

    async def come_back(request: web.Request) -> web.Response:
        """Take the customer's browser on; what it carries is a hint like any notice."""
        result = _RESULTS.get(request.match_info["result"])
        if result is None:
            raise NotFoundError("the result is success, fail or cancel")
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
        address = await handlers.return_address(runtime, reference, result)
        if address is None:
            return web.Response(text=_BACK_PAGE, content_type="text/html")
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": address})

    return [
        *(
            DirectRoute(f"/webhooks/{gateway}", partial(receive, gateway), NOTICE_BYTES_MAX)
            for gateway in runtime.readers
        ),
        Route("POST", "/webhooks/{gateway}", receive_from_anyone),
        Route("POST", "/return/sslcommerz/{result}", come_back),
        Route("GET", "/return/sslcommerz/{result}", come_back),
    ]
