"""Carries the calls of Stripe's library over aiohttp, within our limits.

The library's own aiohttp client follows redirects, reads answers of any size, lets some network
errors through unwrapped, and adds headers that describe this machine; none of it may happen here.
It also falls over JSON of an unexpected shape (`AttributeError`), so that is refused before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import orjson
import stripe

from shared.gateways.stripe.errors import StripeCallError

#: Longest answer that is read; an intent has about 3 kB, a page of a hundred about 300.
ANSWER_BYTES_MAX: Final = 2 * 1024 * 1024

CONNECT_TIMEOUT_SECONDS: Final = 5.0

#: A connection idle for longer is not used again: a POST on one that Stripe has just closed would
#: have an unknown outcome.
IDLE_SECONDS: Final = 15.0

#: What of the library's headers is sent. The rest is telemetry: host, platform, an installation id.
_SENT_HEADERS: Final = frozenset(
    {"authorization", "content-type", "idempotency-key", "stripe-version"}
)

_USER_AGENT: Final = f"Sluice Stripe/v1 PythonBindings/{stripe.VERSION}"

_FIRST_REDIRECT_STATUS: Final = 300
_FIRST_SERVER_ERROR_STATUS: Final = 500

#: From the special to the general; a metric's label and an outcome's reason.
_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ConnectionTimeoutError, "connect_timeout"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientSSLError, "tls_error"),
    (aiohttp.ClientConnectorError, "connect_failed"),
    (aiohttp.ServerDisconnectedError, "connection_reset"),
    (aiohttp.ClientPayloadError, "answer_cut_short"),
    (aiohttp.ClientResponseError, "not_http"),
    (OSError, "connection_reset"),
)


class StripeTransport(stripe.HTTPClient):
    """Keeps connections to one origin. Lives on one event loop; opens its session at first use.

    Args:
        timeout_seconds: Longest time from a call to the end of its answer.
        connections_max: Calls in flight at most; more wait inside their own time-out.
    """

    name = "aiohttp"

    def __init__(self, *, timeout_seconds: float, connections_max: int) -> None:
        super().__init__()
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds,
            sock_connect=min(CONNECT_TIMEOUT_SECONDS, timeout_seconds),
            sock_read=timeout_seconds,
        )
        self._connections_max = connections_max
        self._opened: aiohttp.ClientSession | None = None

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request and read its whole answer.

        A GET whose connection ends without a byte is sent once more by aiohttp: it changes nothing.

        Raises:
            StripeCallError: no readable answer.
        """
        sent = {name: value for name, value in headers.items() if name.lower() in _SENT_HEADERS}
        try:
            async with self._session().request(
                method.upper(),
                url,
                headers=sent,
                data=post_data,
                allow_redirects=False,
            ) as answer:
                body = await _read(answer)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # `from None`: the cause names the address, and may quote what was sent.
            raise StripeCallError(_reason(error)) from None
        _check(answer.status, body)
        # Of the headers the library would act on some: show notices, record times for telemetry.
        kept = {name: value for name in ("Retry-After",) if (value := answer.headers.get(name))}
        return body, answer.status, kept

    async def close_async(self) -> None:
        """Close the kept connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=True,  # Verified against the system's authorities.
                    limit=self._connections_max,
                    keepalive_timeout=IDLE_SECONDS,
                ),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": _USER_AGENT},
                trust_env=False,
            )
        return self._opened


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > ANSWER_BYTES_MAX:
            raise StripeCallError("answer_too_large")
        pieces.append(piece)
    return b"".join(pieces)


def _check(status: int, body: bytes) -> None:
    """Let through only what the library can read: an object, and with an error's status one error.

    `error` as a text would be taken for an OAuth error, as a list or null it would raise
    `AttributeError`; a body that is no UTF-8 would raise `UnicodeDecodeError` from its logging.
    """
    problem = _problem(body, is_error=status >= _FIRST_REDIRECT_STATUS)
    if problem is not None:
        reason = problem if status < _FIRST_REDIRECT_STATUS else f"http_{status}"
        raise StripeCallError(reason, is_lasting=status >= _FIRST_SERVER_ERROR_STATUS)


def _problem(body: bytes, *, is_error: bool) -> str | None:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "not_json"
    if b"\\u0000" in body:
        return "not_text"  # PostgreSQL stores no NUL, and no answer needs one.
    if not isinstance(fields, dict):
        return "not_an_object"
    if is_error and not isinstance(fields.get("error"), dict):
        return "not_an_error"
    return None


def _reason(error: Exception) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "connection_failed"
