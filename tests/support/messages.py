"""Messages for tests: everything has a plausible value, a test names what it is about."""

from __future__ import annotations

from typing import Any

from shared.contracts.payments import (
    DisputeLost,
    DisputeWon,
    PaymentRefunded,
    PaymentSucceeded,
    RefundReturned,
)
from shared.contracts.scheduler import AccessGranted, AccessRevoked
from shared.contracts.webhook import NoticeReceived
from tests.support.clocks import START


def payment_succeeded(payment_id: str = "pay_1", **changes: Any) -> PaymentSucceeded:
    values: dict[str, Any] = {
        "payment_id": payment_id,
        "customer_id": "cus_1",
        "product_id": "course_1",
        "amount": 115_000,
        "currency": "BDT",
        "noticed_at": START,
    }
    return PaymentSucceeded(**(values | changes))


def notice_received(reference: str, **changes: Any) -> NoticeReceived:
    values: dict[str, Any] = {
        "gateway": "sslcommerz",
        "reference": reference,
        "claim": "paid",
        "validation_id": "val_1",
        "amount": 115_000,
        "currency": "BDT",
        "received_at": START,
    }
    return NoticeReceived(**(values | changes))


def payment_refunded(payment_id: str = "pay_1", **changes: Any) -> PaymentRefunded:
    values: dict[str, Any] = {
        "payment_id": payment_id,
        "refund_id": f"ref_of_{payment_id}",
        "customer_id": "cus_1",
        "product_id": "course_1",
        "amount": 115_000,
        "currency": "BDT",
        "refunded_total": 115_000,
        "is_full": True,
        "refunded_at": START,
    }
    return PaymentRefunded(**(values | changes))


def refund_returned(payment_id: str = "pay_1", **changes: Any) -> RefundReturned:
    values: dict[str, Any] = {
        "payment_id": payment_id,
        "refund_id": f"ref_of_{payment_id}",
        "customer_id": "cus_1",
        "product_id": "course_1",
        "amount": 115_000,
        "currency": "BDT",
        "refunded_total": 0,
        "returned_at": START,
    }
    return RefundReturned(**(values | changes))


def dispute_lost(payment_id: str = "pay_1", **changes: Any) -> DisputeLost:
    return DisputeLost(**(_dispute(payment_id) | changes))


def dispute_won(payment_id: str = "pay_1", **changes: Any) -> DisputeWon:
    return DisputeWon(**(_dispute(payment_id) | changes))


def _dispute(payment_id: str) -> dict[str, Any]:
    return {
        "payment_id": payment_id,
        "dispute_id": f"du_of_{payment_id}",
        "customer_id": "cus_1",
        "product_id": "course_1",
        "amount": 115_000,
        "currency": "BDT",
        "reason": "fraudulent",
        "noticed_at": START,
    }


def access_granted(
    sequence: int = 1, subscription_id: str = "sub_1", **changes: Any
) -> AccessGranted:
    values: dict[str, Any] = {
        "subscription_id": subscription_id,
        "customer_id": "cus_1",
        "product_id": "course_1",
        "sequence": sequence,
        "granted_at": START,
    }
    return AccessGranted(**(values | changes))


def access_revoked(
    sequence: int = 2, subscription_id: str = "sub_1", **changes: Any
) -> AccessRevoked:
    values: dict[str, Any] = {
        "subscription_id": subscription_id,
        "customer_id": "cus_1",
        "product_id": "course_1",
        "sequence": sequence,
        "reason": "unpaid",
        "revoked_at": START,
    }
    return AccessRevoked(**(values | changes))
