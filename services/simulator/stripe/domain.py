"""Payment intents and refunds: their states, and the steps between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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


class DisputeStatus(StrEnum):
    """Where a dispute stands; the steps between are in the table `transition`."""

    #: An inquiry: the bank asks, and takes nothing yet.
    WARNING_NEEDS_RESPONSE = "warning_needs_response"
    WARNING_UNDER_REVIEW = "warning_under_review"
    WARNING_CLOSED = "warning_closed"
    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    #: Decided, and heard again: by the wish of the bank, or of the merchant.
    APPEAL_NEEDS_RESPONSE = "appeal_needs_response"
    APPEAL_UNDER_REVIEW = "appeal_under_review"
    WON = "won"
    LOST = "lost"


#: In which the bank has taken nothing, or has given it back.
MONEY_IS_OURS: Final = frozenset(
    {
        DisputeStatus.WARNING_NEEDS_RESPONSE,
        DisputeStatus.WARNING_UNDER_REVIEW,
        DisputeStatus.WARNING_CLOSED,
        DisputeStatus.WON,
    }
)

DECIDED: Final = frozenset({DisputeStatus.WARNING_CLOSED, DisputeStatus.WON, DisputeStatus.LOST})

#: What a dispute costs, in minor units of whatever currency; an inquiry costs nothing.
DISPUTE_FEE: Final = 1_500


@dataclass(frozen=True, slots=True)
class Dispute:
    """A customer's bank takes a charge back, or wants to.

    `withdrawn_at` is when it last took the money, `reinstated_at` when it gave it back since.
    """

    id: str
    intent_id: str
    charge: str
    amount: int
    currency: str
    reason: str
    status: DisputeStatus
    created_at: datetime
    withdrawn_at: datetime | None = None
    reinstated_at: datetime | None = None
    fee: int = 0

    @property
    def is_withdrawn(self) -> bool:
        """Whether the bank has the money now."""
        return self.withdrawn_at is not None and self.reinstated_at is None

    def moved_to(self, status: DisputeStatus, now: datetime) -> Dispute:
        """Return the dispute in another status, with the money where it then is."""
        moved = replace(self, status=status)
        if status in MONEY_IS_OURS:
            return replace(moved, reinstated_at=now) if self.is_withdrawn else moved
        if self.is_withdrawn:
            return moved
        fee = self.fee or DISPUTE_FEE
        return replace(moved, withdrawn_at=now, reinstated_at=None, fee=fee)


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
