"""Payments for tests: everything has a plausible value, a test names what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.state_machine import RESTING, TAKEN
from shared.contracts.priorities import Priority
from shared.gateways.interface import Paid
from shared.money import Money

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)

PAYMENT_ID = "pay_01KE70EHG0JY1QREBD77BRA2Z7"
REFERENCE = "att_01KE70EHG0JY1QREBD77BRA2Z8"
PRICE = Money(115_000, "BDT")


def payment_in(state: PaymentState, **changes: Any) -> Payment:
    """Return a payment in a state, with what that state always comes with."""
    has_money = state in TAKEN | {PaymentState.ON_HOLD}
    values: dict[str, Any] = {
        "id": PAYMENT_ID,
        "gateway": "sslcommerz",
        "method": "checkout",
        "state": state,
        "reason": "amount_differs" if state is PaymentState.ON_HOLD else None,
        "amount": PRICE,
        "customer_id": "cus_1",
        "product_id": "course_1",
        "reference": REFERENCE,
        "validation_id": "val_1" if has_money else None,
        "gateway_payment_id": "bank_1" if has_money else None,
        "checks_made": 0,
        "next_check_at": None if state in RESTING else NOW,
        "created_at": NOW - timedelta(minutes=1),
        "expires_at": NOW + timedelta(hours=24),
        "version": 1,
        "priority": Priority.MEDIUM,
        "retries_automatically": state is PaymentState.RETRY_SCHEDULED,
    }
    return Payment(**(values | changes))


def paid(**changes: Any) -> Paid:
    """Return the verdict that confirms what `payment_in` asks for."""
    values: dict[str, Any] = {
        "reference": REFERENCE,
        "amount": PRICE,
        "validation_id": "val_1",
        "gateway_payment_id": "bank_1",
        "is_risky": False,
    }
    return Paid(**(values | changes))
