"""What Stripe answers, and its signed notices, made from the protocol's description."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import Any

import orjson

from shared.gateways.interface import Card, Customer, Order, RefundOrder
from shared.gateways.registration import Surroundings
from shared.gateways.stripe.client import StripeGateway
from shared.money import Money
from tests.support.clocks import START, ManualClock
from tests.support.scripted_server import answer

SECRET_KEY = "sk_test_very_secret_key"
WEBHOOK_SECRET = "whsec_test_7f3b1c9d2e4a6058"
PUBLIC_URL = "https://pay.example"
TIMEOUT_SECONDS = 1.0

REFERENCE = "att_01KE70EHG0JY1QREBD77BRA2Z8"
INTENT = "pi_3Qsecretless0001"
REFUND_REFERENCE = "ref_01KE70EHG0JY1QREBD77BRA2Z9"
REFUND = "re_3Q0001"
DISPUTE = "du_1QsecretlessDispute"
ADDRESS = "https://hooks.stripe.com/3d_secure_2/hosted?merchant=acct_1"

ON_SESSION = Card("pm_card_visa", gateway_customer="cus_1")
OFF_SESSION = Card("pm_card_visa", gateway_customer="cus_1", off_session=True)


def order_of(**changes: Any) -> Order:
    """Return an order of 19.99 USD that was started now; a test names what it is about."""
    values: dict[str, Any] = {
        "reference": REFERENCE,
        "amount": Money(1_999, "USD"),
        "method": ON_SESSION,
        "customer": Customer("cus_ours", "Ada Secret", "ada@secret.example", "secret-phone"),
        "product_name": "Course",
        "started_at": START,
    }
    return Order(**(values | changes))


def refund_order_of(**changes: Any) -> RefundOrder:
    """Return an order to give 5.00 USD of that back."""
    values: dict[str, Any] = {
        "reference": REFUND_REFERENCE,
        "payment_reference": REFERENCE,
        "gateway_payment_id": INTENT,
        "amount": Money(500, "USD"),
        "reason": "Ada's secret reason",
        "started_at": START,
    }
    return RefundOrder(**(values | changes))


def gateway_at(base_url: str, clock: ManualClock | None = None) -> StripeGateway:
    """Return a client that calls `base_url` with a test key."""
    surroundings = Surroundings(
        public_url=PUBLIC_URL,
        timeout_seconds=TIMEOUT_SECONDS,
        calls_max=8,
        clock=clock or ManualClock(START + timedelta(minutes=1)),
    )
    return StripeGateway(surroundings, base_url=base_url, secret_key=SECRET_KEY, is_live=False)


def intent(status: object = "succeeded", **changes: Any) -> dict[str, Any]:
    """Return an intent of that order as Stripe shows it."""
    return {
        "id": INTENT,
        "object": "payment_intent",
        "amount": 1_999,
        "amount_received": 1_999 if status == "succeeded" else 0,
        "cancellation_reason": None,
        "client_secret": f"{INTENT}_secret_value",
        "created": int(START.timestamp()),
        "currency": "usd",
        "customer": "cus_1",
        "last_payment_error": None,
        "latest_charge": "ch_1",
        "livemode": False,
        "metadata": {"reference": REFERENCE},
        "next_action": None,
        "payment_method": "pm_card_visa",
        "status": status,
    } | changes


def needs_action(url: object = ADDRESS) -> dict[str, Any]:
    """Return an intent whose customer must authenticate."""
    action = {"type": "redirect_to_url", "redirect_to_url": {"url": url, "return_url": PUBLIC_URL}}
    return intent("requires_action", next_action=action)


def refund(status: str | None = "succeeded", **changes: Any) -> dict[str, Any]:
    """Return a refund of that order to give back."""
    return {
        "id": REFUND,
        "object": "refund",
        "amount": 500,
        "charge": "ch_1",
        "currency": "usd",
        "metadata": {"reference": REFUND_REFERENCE, "payment_reference": REFERENCE},
        "payment_intent": INTENT,
        "status": status,
    } | changes


def dispute(status: object = "needs_response", **changes: Any) -> dict[str, Any]:
    """Return a dispute about that order as Stripe shows it when the intent is asked for too."""
    return {
        "id": DISPUTE,
        "object": "dispute",
        "amount": 1_999,
        "balance_transactions": [movement()],
        "charge": "ch_1",
        "created": int(START.timestamp()),
        "currency": "usd",
        "evidence": {"customer_name": "Ada Secret", "customer_email_address": "ada@secret.example"},
        "livemode": False,
        "metadata": {},
        "payment_intent": intent(),
        "reason": "fraudulent",
        "status": status,
    } | changes


def movement(**changes: Any) -> dict[str, Any]:
    """Return what a dispute took, and what Stripe took for it."""
    return {
        "id": "txn_1",
        "object": "balance_transaction",
        "amount": -1_999,
        "currency": "usd",
        "fee": 1_500,
        "net": -3_499,
        "type": "adjustment",
    } | changes


def error(kind: str = "card_error", **members: Any) -> dict[str, Any]:
    """Return the body of an error; its message holds what must never be shown."""
    return {"error": {"type": kind, "message": "secret words of a bank"} | members}


def card_error(decline_code: str, status: str = "requires_payment_method", **members: Any) -> Any:
    """Return the body of a 402, with its intent inside."""
    inside = intent(status, last_payment_error={"type": "card_error", "message": "secret"})
    return error(code="card_declined", decline_code=decline_code, payment_intent=inside, **members)


def listed(*items: object, has_more: object = False) -> dict[str, Any]:
    """Return a page of a list."""
    return {"object": "list", "data": list(items), "has_more": has_more, "url": "/v1/things"}


def reply(fields: object, status: str = "200 OK", headers: str = "") -> bytes:
    """Return an answer with JSON in it."""
    return answer(
        orjson.dumps(fields),
        status=status,
        headers=f"Content-Type: application/json\r\nRequest-Id: req_1\r\n{headers}",
    )


def signature(body: bytes, time_stamp: int, *secrets: str, scheme: str = "v1") -> str:
    """Return the header over a body, with one signature per secret."""
    message = f"{time_stamp}.".encode() + body
    signed = [
        f"{scheme}={hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()}"
        for secret in secrets or (WEBHOOK_SECRET,)
    ]
    return ",".join([f"t={time_stamp}", *signed])


def event(kind: str, subject: object, **changes: Any) -> dict[str, Any]:
    """Return an event about an object."""
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(START.timestamp()),
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": "req_1", "idempotency_key": REFERENCE},
        "type": kind,
    } | changes
