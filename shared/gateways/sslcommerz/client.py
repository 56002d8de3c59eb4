"""Calls SSLCommerz: create a session, validate an order, query a transaction.

Answers come inside HTTP 200 also when they are errors; whatever is not the documented JSON says
nothing, and nothing is never a failure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import date
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import orjson

from shared import metrics
from shared.errors import InvalidInputError
from shared.gateways.fees import kept_of
from shared.gateways.http_client import HttpAnswer, HttpCallError, HttpClient
from shared.gateways.interface import (
    ActionRequired,
    Capabilities,
    Declined,
    DisputeOutcome,
    FailureKind,
    Limits,
    Listing,
    Order,
    Outcome,
    Paid,
    Pending,
    RefundOrder,
    RefundOutcome,
    Refusal,
    Unknown,
    refusal_of,
)
from shared.gateways.sslcommerz.refunds import CURRENCY as REFUND_CURRENCY
from shared.gateways.sslcommerz.refunds import SslcommerzRefunds
from shared.money import MINOR_UNITS_MAX, Money

#: Hosts of the hosted page, beside the configured one (developer.sslcommerz.com, v4).
CHECKOUT_HOSTS: Final = frozenset({"sandbox.sslcommerz.com", "securepay.sslcommerz.com"})

#: BDT limits of one session, in poisha: 10.00 to 500000.00.
AMOUNT_MIN: Final = 1_000
AMOUNT_MAX: Final = 50_000_000

#: It converts these; its limits are said of BDT only, so it judges the converted amount itself.
CONVERTED: Final = ("EUR", "GBP", "INR", "MYR", "SGD", "USD")

_PAID: Final = frozenset({"VALID", "VALIDATED"})
_GIVEN_UP: Final = frozenset({"CANCELLED", "UNATTEMPTED", "EXPIRED"})
_HTTP_OK: Final = 200


class SslcommerzGateway:
    """One store at SSLCommerz."""

    name = "sslcommerz"
    capabilities = Capabilities(
        methods=("checkout",),
        limits={
            "BDT": Limits(AMOUNT_MIN, AMOUNT_MAX),
            **dict.fromkeys(CONVERTED, Limits(1, MINOR_UNITS_MAX)),
        },
        refunds=True,
        refund_currencies=frozenset({REFUND_CURRENCY}),
    )

    def __init__(
        self, client: HttpClient, *, base_url: str, store_id: str, password: str, public_url: str
    ) -> None:
        self._client = client
        self._base_url = base_url
        self._store_id = store_id
        self._password = password
        self._public_url = public_url.rstrip("/")
        self._credentials = urlencode({"store_id": store_id, "store_passwd": password})
        self._refunds = SslcommerzRefunds(client, self._credentials)
        observe = metrics.GATEWAY_REQUEST_SECONDS
        self._observe = {
            (operation, outcome): observe.labels(self.name, operation, outcome).observe
            for operation in ("session", "validate", "query")
            for outcome in ("answered", "failed")
        }

    def refusal(self, order: Order) -> Refusal | None:
        """Return which field of an order SSLCommerz cannot take, or None."""
        return refusal_of(self.name, self.capabilities, order)

    async def start(self, order: Order) -> Outcome:
        """Create a session. Repeating a `tran_id` is undocumented, so this is never repeated."""
        body = urlencode(self._session_fields(order)).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        started = time.perf_counter()
        try:
            answer = await self._client.post("/gwprocess/v4/api.php", body, headers)
            fields = self._read("session", started, answer)
        except HttpCallError as error:
            self._observe["session", "failed"](time.perf_counter() - started)
            return Unknown(error.reason, error.retry_after_seconds)
        if fields.get("status") == "FAILED":
            # A session is refused for its fields or our credentials; nobody has paid anything yet.
            reason = str(fields.get("failedreason") or "no reason given")[:200]
            return Declined(reason, FailureKind.CONFIGURATION, is_final=True)
        url, session_key = fields.get("GatewayPageURL"), fields.get("sessionkey")
        if fields.get("status") != "SUCCESS" or not isinstance(url, str) or not url:
            return Unknown("answer_says_nothing")
        if not self._is_checkout(url):
            return Unknown("checkout_on_foreign_host")
        return ActionRequired("customer_must_pay", url, str(session_key or "") or None)

    async def confirm(self, reference: str, validation_id: str) -> Outcome:
        """Validate the order that a notice names; VALID and VALIDATED both mean paid."""
        fields = await self._ask(
            "validate",
            f"/validator/api/validationserverAPI.php?val_id={quote(validation_id, safe='')}"
            f"&{self._credentials}&v=1&format=json",
        )
        if isinstance(fields, Unknown):
            return fields
        status = _text(fields, "status")
        if status in _PAID:
            return _paid(fields, reference, validation_id)
        if status == "PENDING":
            return Pending("gateway_pending")
        if status == "FAILED":
            return _declined(fields, reference)
        if status == "INVALID_TRANSACTION":
            # Said of an unknown val_id and of wrong credentials alike: no result of a payment.
            return Unknown("invalid_transaction")
        return Unknown("unknown_status")

    async def look_up(self, order: Order) -> Outcome:
        """Query by our `tran_id`, and validate the successful element when there is one."""
        reference = order.reference
        fields = await self._ask(
            "query",
            "/validator/api/merchantTransIDvalidationAPI.php"
            f"?tran_id={quote(reference, safe='')}&{self._credentials}&format=json",
        )
        if isinstance(fields, Unknown):
            return fields
        if fields.get("APIConnect") != "DONE":
            return Unknown("query_refused")
        elements = fields.get("element") or []
        if isinstance(elements, Mapping):
            elements = [elements]
        if not isinstance(elements, list) or not all(isinstance(e, Mapping) for e in elements):
            return Unknown("unreadable_elements")
        if any(_text(element, "tran_id") not in {"", reference} for element in elements):
            return Unknown("reference_differs")
        return await self._judge(reference, elements)

    async def cancel(self, order: Order) -> Outcome:
        """Say that SSLCommerz has no call to close a session."""
        return Unknown("not_supported")

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Give money back; the same reference is the same refund."""
        return await self._refunds.refund(order)

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Ask what became of a refund."""
        return await self._refunds.look_up_refund(order)

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        """Say that its protocol knows no disputes: banks bring them by other ways."""
        return Unknown("not_supported")

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        """Say that it can be asked about one transaction at a time only."""
        return Unknown("not_supported")

    async def close(self) -> None:
        """Close kept connections."""
        self._client.close()

    async def _judge(self, reference: str, elements: Sequence[Mapping[str, Any]]) -> Outcome:
        paid = [
            _text(element, "val_id")
            for element in elements
            if _text(element, "status") in _PAID and _text(element, "val_id")
        ]
        if not paid:
            return _unpaid(elements)
        outcome: Outcome = Unknown("no_element")
        for validation_id in dict.fromkeys(paid):
            outcome = await self.confirm(reference, validation_id)
            if isinstance(outcome, Paid):
                return replace(outcome, is_repeated=len(set(paid)) > 1)
        return outcome

    async def _ask(self, operation: str, target: str) -> Mapping[str, Any] | Unknown:
        started = time.perf_counter()
        try:
            return self._read(operation, started, await self._client.get(target))
        except HttpCallError as error:
            self._observe[operation, "failed"](time.perf_counter() - started)
            return Unknown(error.reason, error.retry_after_seconds)

    def _read(self, operation: str, started: float, answer: HttpAnswer) -> Mapping[str, Any]:
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
        self._observe[operation, "answered"](time.perf_counter() - started)
        return fields

    def _is_checkout(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        own = (urlsplit(self._base_url), urlsplit(self._public_url))
        return (parts.scheme, parts.netloc) in {(one.scheme, one.netloc) for one in own} or (
            parts.scheme == "https" and parts.netloc in CHECKOUT_HOSTS
        )

    def _session_fields(self, order: Order) -> dict[str, str]:
        back = f"{self._public_url}/return/sslcommerz"
        return {
            "store_id": self._store_id,
            "store_passwd": self._password,
            "total_amount": order.amount.decimal_text(),
            "currency": order.amount.currency,
            "tran_id": order.reference,
            "product_category": "general",
            "success_url": f"{back}/success",
            "fail_url": f"{back}/fail",
            "cancel_url": f"{back}/cancel",
            "ipn_url": f"{self._public_url}/webhooks/sslcommerz",
            "cus_name": order.customer.name[:50],
            "cus_email": order.customer.email[:50],
            "cus_phone": order.customer.phone[:20],
            # Mandatory, but our customers buy without an address.
            "cus_add1": "-",
            "cus_city": "-",
            "cus_postcode": "-",
            "cus_country": "Bangladesh",
            "shipping_method": "NO",
            "product_name": order.product_name[:255],
            "product_profile": "non-physical-goods",
        }


def _paid(fields: Mapping[str, Any], reference: str, validation_id: str) -> Outcome:
    """Read a successful validation; everything that identifies the payment must be exact."""
    if fields.get("APIConnect", "DONE") != "DONE":
        return Unknown("validation_refused")
    if fields.get("tran_id") != reference:
        return Unknown("reference_differs")
    if fields.get("val_id") != validation_id:
        return Unknown("validation_id_differs")
    # `amount` is what was charged in BDT; for another currency of ours it is `currency_amount`.
    currency = fields.get("currency_type") or fields.get("currency")
    amount = fields.get("amount") if currency == "BDT" else fields.get("currency_amount")
    try:
        money = Money.from_decimal_text(str(amount), str(currency))
    except InvalidInputError:
        return Unknown("unreadable_amount")
    return Paid(
        reference=reference,
        amount=money,
        validation_id=validation_id,
        gateway_payment_id=str(fields.get("bank_tran_id") or ""),
        # Anything but a plain 0 is held: goods are released only when the gateway says safe.
        is_risky=_text(fields, "risk_level") != "0",
        # Told in BDT: of another currency the rate of that moment would be a guess.
        fee=kept_of(money, fields.get("store_amount")) if money.currency == "BDT" else None,
    )


def _declined(fields: Mapping[str, Any], reference: str) -> Outcome:
    """Read a failed validation, which need not name the transaction, but must not name another."""
    if _text(fields, "tran_id") not in {"", reference}:
        return Unknown("reference_differs")
    return Declined(_reason(fields))


def _unpaid(elements: Sequence[Mapping[str, Any]]) -> Outcome:
    """Judge a transaction without a successful element; one may hold several tries."""
    if not elements:
        return Pending("not_attempted")
    statuses = {_text(element, "status") for element in elements}
    if "PENDING" in statuses:
        return Pending("gateway_pending")
    if statuses <= _GIVEN_UP | {"FAILED"}:
        return Declined(_reason(elements[-1]), _kind(statuses))
    return Unknown("unknown_status")


def _kind(statuses: AbstractSet[str]) -> FailureKind:
    if "FAILED" in statuses:
        return FailureKind.UNKNOWN_CODE
    return FailureKind.CANCELLED if "CANCELLED" in statuses else FailureKind.EXPIRED


def _reason(fields: Mapping[str, Any]) -> str:
    return (_text(fields, "error") or _text(fields, "status") or "declined")[:200]


def _text(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text, whether it came as one or as a number; empty for all else."""
    value = fields.get(name)
    return str(value) if isinstance(value, (str, int)) else ""
