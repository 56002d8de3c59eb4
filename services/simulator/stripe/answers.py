"""The objects of the API as JSON, with Stripe's own member names. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

from services.simulator.stripe.cards import CARDS, Card, Decline
from services.simulator.stripe.domain import (
    Dispute,
    Intent,
    IntentStatus,
    PaymentMethod,
    Refund,
    StripeCustomer,
)

Json: TypeAlias = dict[str, Any]

#: What events are rendered as; a request may ask for another version, which changes nothing here.
API_VERSION: Final = "2026-10-28.endive"


def payment_intent(
    intent: Intent, public_url: str, expand: Collection[str] = (), *, prefix: str = ""
) -> Json:
    """Render an intent; `latest_charge` and `payment_method` may be expanded."""
    charge_shown: str | Json | None = intent.latest_charge
    if charge_shown is not None and prefix + "latest_charge" in expand:
        charge_shown = charge(intent)
    method_shown: str | Json | None = intent.payment_method
    if intent.payment_method and intent.card_name and prefix + "payment_method" in expand:
        method_shown = payment_method(
            PaymentMethod(
                intent.payment_method, intent.card_name, intent.customer, intent.created_at
            )
        )
    is_capturable = intent.status is IntentStatus.REQUIRES_CAPTURE
    return {
        "id": intent.id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_capturable": intent.amount if is_capturable else 0,
        "amount_received": intent.amount_received,
        "application": None,
        "automatic_payment_methods": None,
        "canceled_at": _seconds(intent.canceled_at),
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": intent.capture_method,
        "client_secret": intent.client_secret,
        "confirmation_method": "automatic",
        "created": _seconds(intent.created_at),
        "currency": intent.currency,
        "customer": intent.customer,
        "description": intent.description,
        "last_payment_error": intent.last_payment_error,
        "latest_charge": charge_shown,
        "livemode": False,
        "metadata": dict(intent.metadata),
        "next_action": _next_action(intent, public_url),
        "payment_method": method_shown,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "setup_future_usage": intent.setup_future_usage,
        "shipping": None,
        "statement_descriptor": None,
        "status": intent.status,
    }


def authentication_url(intent: Intent, public_url: str) -> str:
    """Return the page where the customer authenticates."""
    return f"{public_url}/stripe/authenticate/{intent.id}/{intent.client_secret}"


def charge(intent: Intent) -> Json:
    """Render the last charge of an intent; it takes over the intent's metadata."""
    card = intent.card or Card()
    error = intent.last_payment_error or {}
    is_paid = intent.status in (IntentStatus.SUCCEEDED, IntentStatus.REQUIRES_CAPTURE)
    failed_code = None if is_paid else error.get("code")
    return {
        "id": intent.latest_charge,
        "object": "charge",
        "amount": intent.amount,
        "amount_captured": intent.amount_received,
        "amount_refunded": intent.amount_refunded,
        "captured": intent.status is IntentStatus.SUCCEEDED,
        "created": _seconds(intent.created_at),
        "currency": intent.currency,
        "customer": intent.customer,
        "description": intent.description,
        "disputed": False,
        "failure_code": failed_code,
        "failure_message": None if is_paid else error.get("message"),
        "livemode": False,
        "metadata": dict(intent.metadata),
        "outcome": _outcome(intent, card, is_paid=is_paid),
        "paid": is_paid,
        "payment_intent": intent.id,
        "payment_method": intent.payment_method,
        "payment_method_details": {"type": "card", "card": _card(card)},
        "refunded": 0 < intent.amount_received == intent.amount_refunded,
        "status": "succeeded" if is_paid else "failed",
    }


def card_error(intent: Intent, decline: Decline, public_url: str) -> Json:
    """Render why a charge was declined, with the intent as it is now inside."""
    inside = payment_intent(intent, public_url)
    return {**payment_error(intent, decline), "payment_intent": inside}


def payment_error(intent: Intent, decline: Decline) -> Json:
    """Render what an intent keeps as `last_payment_error`."""
    error: Json = {
        "type": "card_error",
        "code": decline.code,
        "doc_url": f"https://stripe.com/docs/error-codes/{decline.code}",
        "message": decline.message,
    }
    if intent.latest_charge is not None:
        error["charge"] = intent.latest_charge
    for name in ("decline_code", "advice_code", "network_decline_code"):
        text = getattr(decline, name)
        if text is not None:
            error[name] = text
    if intent.payment_method and intent.card_name:
        error["payment_method"] = payment_method(
            PaymentMethod(intent.payment_method, intent.card_name, None, intent.created_at)
        )
    return error


def refund(refund: Refund) -> Json:
    """Render a refund."""
    answer: Json = {
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": None,
        "charge": refund.charge,
        "created": _seconds(refund.created_at),
        "currency": refund.currency,
        "metadata": dict(refund.metadata),
        "payment_intent": refund.intent_id,
        "reason": refund.reason,
        "receipt_number": None,
        "status": refund.status,
    }
    if refund.failure_reason is not None:
        answer["failure_reason"] = refund.failure_reason
    return answer


def dispute(dispute: Dispute, intent: Json | None = None) -> Json:
    """Render a dispute, with its intent inside if that is given.

    It has metadata of its own, so not the intent's.
    """
    return {
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": _movements(dispute),
        "charge": dispute.charge,
        "created": _seconds(dispute.created_at),
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {"has_evidence": False, "past_due": False, "submission_count": 0},
        "is_charge_refundable": dispute.status.startswith("warning"),
        "livemode": False,
        "metadata": {},
        "payment_intent": dispute.intent_id if intent is None else intent,
        "reason": dispute.reason,
        "status": dispute.status,
    }


def payment_method(method: PaymentMethod) -> Json:
    """Render a stored card."""
    return {
        "id": method.id,
        "object": "payment_method",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None},
        "card": _card(CARDS[method.card_name]),
        "created": _seconds(method.created_at),
        "customer": method.customer,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def customer(customer: StripeCustomer) -> Json:
    """Render a customer."""
    return {
        "id": customer.id,
        "object": "customer",
        "created": _seconds(customer.created_at),
        "email": None,
        "livemode": False,
        "metadata": dict(customer.metadata),
        "name": None,
    }


def event(event_id: str, kind: str, subject: Json, intent: Intent, created_at: datetime) -> Json:
    """Render an event: its envelope and the object it is about as that was then."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": _seconds(created_at),
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": intent.request_id, "idempotency_key": intent.idempotency_key},
        "type": kind,
    }


def page_of(path: str, data: Sequence[Any], *, has_more: bool) -> Json:
    """Render one page of a list."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": path}


def search_result(path: str, data: Sequence[Any], *, has_more: bool) -> Json:
    """Render what a search found."""
    return {
        "object": "search_result",
        "data": list(data),
        "has_more": has_more,
        "next_page": None,
        "url": path,
    }


def _movements(dispute: Dispute) -> list[Json]:
    """Render what a dispute moved on the account: taken, and given back; the fee stays taken."""
    moved = [(dispute.withdrawn_at, -dispute.amount, dispute.fee, "Chargeback withdrawal")]
    moved.append((dispute.reinstated_at, dispute.amount, 0, "Chargeback reversal"))
    return [
        {
            "id": f"txn_{dispute.id.removeprefix('du_')}{'w' if amount < 0 else 'r'}",
            "object": "balance_transaction",
            "amount": amount,
            "created": _seconds(moment),
            "currency": dispute.currency,
            "description": description,
            "fee": fee,
            "net": amount - fee,
            "source": dispute.id,
            "type": "adjustment",
        }
        for moment, amount, fee, description in moved
        if moment is not None
    ]


def _next_action(intent: Intent, public_url: str) -> Json | None:
    if intent.status is not IntentStatus.REQUIRES_ACTION:
        return None
    if intent.return_url is None:
        return {"type": "use_stripe_sdk", "use_stripe_sdk": {}}
    url = authentication_url(intent, public_url)
    return {
        "type": "redirect_to_url",
        "redirect_to_url": {"return_url": intent.return_url, "url": url},
    }


def _outcome(intent: Intent, card: Card, *, is_paid: bool) -> Mapping[str, Any]:
    if is_paid:
        network_status, kind = "approved_by_network", "authorized"
    elif card.is_blocked:
        network_status, kind = "not_sent_to_network", "blocked"
    else:
        network_status, kind = "declined_by_network", "issuer_declined"
    reason = None
    if card.is_blocked:
        reason = "highest_risk_level"
    elif card.risk_level == "elevated":
        reason = "elevated_risk_level"
    elif not is_paid:
        error = intent.last_payment_error or {}
        reason = error.get("decline_code") or error.get("code")
    return {
        "network_status": network_status,
        "reason": reason,
        "risk_level": card.risk_level,
        "type": kind,
    }


def _card(card: Card) -> Json:
    return {
        "brand": card.brand,
        "country": "US",
        "exp_month": 12,
        "exp_year": 2034,
        "funding": "credit",
        "last4": card.last4,
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
