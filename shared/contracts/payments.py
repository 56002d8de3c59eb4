"""Messages owned by the payments service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime

from shared.contracts.base import CurrencyCode, Message, MinorUnits, Reference


class CheckoutOpened(Message):
    """Fact: a customer can pay at the gateway and will come back to `return_url`."""

    name: ClassVar = "payments.checkout_opened.v1"

    payment_id: Reference
    reference: Reference
    return_url: str


class PaymentSucceeded(Message):
    """Fact: the gateway has confirmed that the money was taken. Sent once per payment.

    `noticed_at` is when the notice or the look-up that led here began; it measures the whole way.
    """

    name: ClassVar = "payments.payment_succeeded.v1"

    payment_id: Reference
    customer_id: Reference
    product_id: Reference
    amount: MinorUnits
    currency: CurrencyCode
    noticed_at: AwareDatetime
