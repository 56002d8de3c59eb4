"""Payment intents and refunds: their states, and the steps between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from services.simulator.stripe.cards import CARDS, Card


class IntentStatus(StrEnum):
    """Where a payment intent stands; the steps between are in the table `transition`."""

    REQUIRES_PAYMENT_METHOD = "requires_payment_method"
    REQUIRES_CONFIRMATION = "requires_confirmation"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    REQUIRES_CAPTURE = "requires_capture"
    CANCELED = "canceled"
    SUCCEEDED = "succeeded"


#: From which a merchant may confirm, and may cancel.
CONFIRMABLE: Final = frozenset(
    {
        IntentStatus.REQUIRES_PAYMENT_METHOD,
        IntentStatus.REQUIRES_CONFIRMATION,
        IntentStatus.REQUIRES_ACTION,
    }
)
CANCELABLE: Final = CONFIRMABLE | {IntentStatus.REQUIRES_CAPTURE}

#: What a merchant may give as the reason; Stripe itself has others.
CANCELLATION_REASONS: Final = (
    "abandoned",
    "duplicate",
    "fraudulent",
    "requested_by_customer",
)

REFUND_REASONS: Final = ("duplicate", "fraudulent", "requested_by_customer")


class RefundStatus(StrEnum):
    """Where a refund stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment that a merchant wants; amounts are minor units of `currency`, in lower case.

    `due_at` is when it comes to `due_status` by itself, if it ever does.
    """

    id: str
    status: IntentStatus
    amount: int
    currency: str
    client_secret: str
    created_at: datetime
    customer: str | None = None
    payment_method: str | None = None
    card_name: str | None = None
    capture_method: str = "automatic"
    description: str | None = None
    return_url: str | None = None
    setup_future_usage: str | None = None
    is_off_session: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    latest_charge: str | None = None
    amount_received: int = 0
    amount_refunded: int = 0
    last_payment_error: Mapping[str, Any] | None = None
    cancellation_reason: str | None = None
    canceled_at: datetime | None = None
    due_at: datetime | None = None
    due_status: IntentStatus | None = None
    #: The request that made it, which its events name.
    request_id: str | None = None
    idempotency_key: str | None = None

    @property
    def card(self) -> Card | None:
        """How its payment method behaves."""
        return None if self.card_name is None else CARDS[self.card_name]

    @property
    def reference(self) -> str:
        """The merchant's own name for it, or ours if there is none."""
        return self.metadata.get("reference", self.id)


@dataclass(frozen=True, slots=True)
class Refund:
    """Money on its way back, in minor units of the intent's currency."""

    id: str
    intent_id: str
    charge: str
    amount: int
    currency: str
    status: RefundStatus
    created_at: datetime
    reason: str | None = None
    failure_reason: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    due_at: datetime | None = None
    due_status: RefundStatus | None = None


@dataclass(frozen=True, slots=True)
class Dispute:
    """A customer's bank takes a charge back, or wants to."""

    id: str
    intent_id: str
    charge: str
    amount: int
    currency: str
    reason: str
    status: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A stored card: `card_name` is the test payment method that it is a copy of."""

    id: str
    card_name: str
    customer: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StripeCustomer:
    """Somebody who pays, without anything personal."""

    id: str
    metadata: Mapping[str, str]
    created_at: datetime
