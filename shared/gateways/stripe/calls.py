"""Makes the calls to Stripe through its library, and says in one vocabulary how each one failed.

The library's exceptions never leave this module: they carry bodies, with client secrets and the
customer's card in them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import stripe

from shared import metrics
from shared.gateways.stripe.declines import word
from shared.gateways.stripe.errors import (
    AccessRefusedError,
    CardDeclinedError,
    KeyReusedError,
    RateLimitedError,
    RequestRefusedError,
    StripeCallError,
)
from shared.gateways.stripe.transport import StripeTransport

if TYPE_CHECKING:
    from stripe.params import (
        PaymentIntentCreateParams,
        PaymentIntentListParams,
        RefundCreateParams,
    )

GATEWAY: Final = "stripe"

OPERATIONS: Final = (
    "charge",
    "retrieve",
    "list",
    "search",
    "cancel",
    "refund",
    "refund_status",
    "dispute_status",
)

_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND})
#: The second was Stripe's status of old.
_RATE_LIMITS: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_REQUEST})
_NO_ACCESS: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_BUSY: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})

#: What the library raises when an object has members of other types than its own tables say.
_UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Answered(Protocol):
    @property
    def last_response(self) -> stripe.StripeResponse | None: ...


class StripeCalls:
    """The calls of one account that we use. Every one raises nothing but `StripeCallError`.

    Answers are the JSON as it came: the library's objects would hide what is missing.
    """

    def __init__(self, transport: StripeTransport, *, base_url: str, secret_key: str) -> None:
        _quieten_library()
        self._transport = transport
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base_url},
            http_client=transport,
            # Each try must be on record before it is made, so the library makes one.
            max_network_retries=0,
        )
        observe = metrics.GATEWAY_REQUEST_SECONDS
        self._observe = {
            (operation, outcome): observe.labels(GATEWAY, operation, outcome).observe
            for operation in OPERATIONS
            for outcome in ("answered", "failed")
        }

    async def charge(self, params: PaymentIntentCreateParams, key: str) -> Mapping[str, Any]:
        """Create and confirm an intent; the same key and parameters are the same intent."""
        intents = self._client.v1.payment_intents
        return await self._call("charge", intents.create_async(params, {"idempotency_key": key}))

    async def retrieve(self, intent_id: str) -> Mapping[str, Any]:
        """Return an intent as it is now."""
        return await self._call(
            "retrieve", self._client.v1.payment_intents.retrieve_async(intent_id)
        )

    async def list_intents(self, params: PaymentIntentListParams) -> Mapping[str, Any]:
        """Return a page of intents, the newest first; consistent at once."""
        return await self._call("list", self._client.v1.payment_intents.list_async(params))

    async def search_intents(self, query: str, limit: int) -> Mapping[str, Any]:
        """Return intents that match a query; up to a minute late, an hour during outages."""
        intents = self._client.v1.payment_intents
        return await self._call("search", intents.search_async({"query": query, "limit": limit}))

    async def cancel(self, intent_id: str) -> Mapping[str, Any]:
        """Cancel an intent.

        It moves no money and cannot be done twice, so its idempotency key may be the library's
        random one; a derived one would repeat a first refusal for a day.
        """
        return await self._call("cancel", self._client.v1.payment_intents.cancel_async(intent_id))

    async def refund(self, params: RefundCreateParams, key: str) -> Mapping[str, Any]:
        """Create a refund; the same key and parameters are the same refund."""
        refunds = self._client.v1.refunds
        return await self._call("refund", refunds.create_async(params, {"idempotency_key": key}))

    async def retrieve_refund(self, refund_id: str) -> Mapping[str, Any]:
        """Return a refund as it is now."""
        return await self._call("refund_status", self._client.v1.refunds.retrieve_async(refund_id))

    async def list_refunds(self, intent_id: str, limit: int) -> Mapping[str, Any]:
        """Return the refunds of an intent, the newest first; consistent at once."""
        refunds = self._client.v1.refunds
        return await self._call(
            "refund_status", refunds.list_async({"payment_intent": intent_id, "limit": limit})
        )

    async def retrieve_dispute(self, dispute_id: str) -> Mapping[str, Any]:
        """Return a dispute as it is now, with its whole intent: that names our payment."""
        disputes = self._client.v1.disputes
        return await self._call(
            "dispute_status",
            disputes.retrieve_async(dispute_id, {"expand": ["payment_intent"]}),
        )

    async def close(self) -> None:
        """Close kept connections."""
        await self._transport.close_async()

    async def _call(self, operation: str, call: Awaitable[_Answered]) -> Mapping[str, Any]:
        started = time.perf_counter()
        outcome = "failed"
        try:
            answer = await call
            outcome = "answered"
        except stripe.StripeError as error:
            outcome = "answered"
            raise _failure(error) from None
        except _UNREADABLE:
            raise StripeCallError("unreadable_answer") from None
        finally:
            self._observe[operation, outcome](time.perf_counter() - started)
        if answer.last_response is None or not isinstance(answer.last_response.data, dict):
            raise StripeCallError("unreadable_answer")
        return answer.last_response.data


def _failure(error: stripe.StripeError) -> StripeCallError:
    """Classify by status and `type`: exception classes and `e.code` tell less, and 409 has none."""
    status = error.http_status or 0
    body: Any = error.json_body
    fields = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(fields, Mapping):
        return StripeCallError("unreadable_answer")
    kind, code = word(fields.get("type")), word(fields.get("code"))
    if status == HTTPStatus.PAYMENT_REQUIRED and kind == "card_error":
        return CardDeclinedError(fields)
    if code == "rate_limit" and status in _RATE_LIMITS:
        return RateLimitedError(_retry_after(error))
    if status == HTTPStatus.BAD_REQUEST and kind == "idempotency_error":
        return KeyReusedError()
    if status in _REFUSALS and kind == "invalid_request_error":
        return RequestRefusedError(code or f"refused_{word(fields.get('param'))}".rstrip("_"))
    return _no_result(status, code)


def _no_result(status: int, code: str) -> StripeCallError:
    if status in _NO_ACCESS:
        return AccessRefusedError(f"http_{status}")
    if status in _BUSY and code:
        # Contention for an object (`lock_timeout`) may be with an earlier request of ours, and a
        # request that waited for it had begun; a key in use is one whose first request still runs.
        return StripeCallError(code)
    is_lasting = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return StripeCallError(f"http_{status}", is_lasting=is_lasting)


def _retry_after(error: stripe.StripeError) -> float | None:
    """Read `Retry-After`, which Stripe does not promise, if it is in seconds."""
    text = (error.headers or {}).get("Retry-After", "")
    return float(text[:9]) if text.isascii() and text.isdigit() else None


def _quieten_library() -> None:
    """Stop the library from reporting on this machine and from logging what it sends.

    Its telemetry also writes an installation id below the home directory.
    """
    stripe.enable_telemetry = False
    logging.getLogger("stripe").setLevel(logging.WARNING)
