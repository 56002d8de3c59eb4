"""Gives money back through SSLCommerz, and asks what became of it.

Both are GETs with the store's password in the query, like every call but the session: no address
of one may be shown. Whatever is not the documented JSON says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from shared import metrics
from shared.gateways.http_client import HttpAnswer, HttpCallError, HttpClient
from shared.gateways.interface import (
    Refunded,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    RefundPending,
    Unknown,
)

#: In which currency `refund_amount` is read for a payment that was converted is not documented.
CURRENCY: Final = "BDT"

#: Longest `refund_remarks` (developer.sslcommerz.com, v4).
REMARKS_LENGTH_MAX: Final = 255

_TARGET: Final = "/validator/api/merchantTransIDvalidationAPI.php"
_HTTP_OK: Final = 200


class SslcommerzRefunds:
    """Refunds of one store.

    Args:
        client: Of the gateway; closed by whoever made it.
        credentials_query: `store_id=…&store_passwd=…`, already quoted.
    """

    def __init__(self, client: HttpClient, credentials_query: str) -> None:
        self._client = client
        self._credentials = credentials_query
        observe = metrics.GATEWAY_REQUEST_SECONDS
        self._observe = {
            (operation, outcome): observe.labels("sslcommerz", operation, outcome).observe
            for operation in ("refund", "refund_query")
            for outcome in ("answered", "failed")
        }

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Ask for a refund; a repetition is known by its `refund_trans_id`, our reference."""
        if order.amount.currency != CURRENCY:
            return RefundFailed("only_payments_in_bdt_are_refunded")
        fields = await self._ask("refund", self._refund_query(order))
        if isinstance(fields, Unknown):
            return fields
        return _started(fields, order)

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Ask by the gateway's handle; without one, make the same call again.

        There is no documented way to ask by our own reference.
        """
        if order.handle:
            query = {"refund_ref_id": order.handle}
            fields = await self._ask("refund_query", urlencode(query, quote_via=quote))
            return fields if isinstance(fields, Unknown) else _progress(fields, order.handle)
        outcome = await self.refund(order)
        if isinstance(outcome, RefundFailed) and order.amount.currency == CURRENCY:
            # Whether the repetition of a refund that was accepted can be refused, for example
            # because nothing is left to refund, is not documented: money may have been given back.
            return Unknown(f"refused_when_repeated: {outcome.reason}"[:200])
        return outcome

    def _refund_query(self, order: RefundOrder) -> str:
        fields = {
            "bank_tran_id": order.gateway_payment_id,
            "refund_trans_id": order.reference,
            "refund_amount": order.amount.decimal_text(),
            "refund_remarks": order.reason[:REMARKS_LENGTH_MAX] or "-",
        }
        return urlencode(fields, quote_via=quote)

    async def _ask(self, operation: str, query: str) -> Mapping[str, Any] | Unknown:
        started = time.perf_counter()
        target = f"{_TARGET}?{query}&{self._credentials}&v=1&format=json"
        try:
            fields = _fields(await self._client.get(target))
        except HttpCallError as error:
            self._observe[operation, "failed"](time.perf_counter() - started)
            return Unknown(error.reason, error.retry_after_seconds)
        self._observe[operation, "answered"](time.perf_counter() - started)
        if fields.get("APIConnect") != "DONE":
            # Refused credentials or parameters say nothing of an earlier call.
            return Unknown("refund_api_refused")
        return fields


def _fields(answer: HttpAnswer) -> Mapping[str, Any]:
    if answer.status != _HTTP_OK:
        raise HttpCallError(f"http_{answer.status}", answer.retry_after_seconds)
    if b"\\u0000" in answer.body:
        raise HttpCallError("not_text")  # PostgreSQL stores no NUL, and no answer needs one.
    try:
        fields = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        raise HttpCallError("not_json") from None
    if not isinstance(fields, dict):
        raise HttpCallError("not_an_object")
    return fields


def _started(fields: Mapping[str, Any], order: RefundOrder) -> RefundOutcome:
    if _text(fields, "bank_tran_id") not in {"", order.gateway_payment_id}:
        return Unknown("payment_differs")
    if _text(fields, "trans_id") not in {"", order.payment_reference}:
        return Unknown("reference_differs")
    handle = _text(fields, "refund_ref_id") or None
    match _text(fields, "status"):
        case "success":
            return RefundPending("accepted", handle)
        case "processing":
            return RefundPending("processing", handle)
        case "failed":
            return RefundFailed(_reason(fields, "refused"))
        case _:
            return Unknown("unknown_refund_status")


def _progress(fields: Mapping[str, Any], handle: str) -> RefundOutcome:
    if _text(fields, "refund_ref_id") not in {"", handle}:
        return Unknown("refund_differs")
    match _text(fields, "status"):
        case "refunded":
            return Refunded(handle)
        case "processing":
            return RefundPending("processing", handle)
        case "cancelled":
            return RefundFailed(_reason(fields, "cancelled"))
        case _:
            return Unknown("unknown_refund_status")


def _reason(fields: Mapping[str, Any], default: str) -> str:
    return (_text(fields, "errorReason") or default)[:200]


def _text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text, whether it came as one or as a number; empty for all else."""
    value = fields.get(name)
    return str(value) if isinstance(value, (str, int)) else ""
