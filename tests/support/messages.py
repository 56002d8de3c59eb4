"""Messages for tests: everything has a plausible value, a test names what it is about."""

from __future__ import annotations

from typing import Any

from shared.contracts.payments import PaymentSucceeded
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
