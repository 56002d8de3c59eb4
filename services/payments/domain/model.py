"""The nouns of payments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from shared.contracts.priorities import Priority
from shared.gateways.interface import MethodKind, Outcome
from shared.money import Money


class PaymentState(StrEnum):
    """Where a payment stands."""

    #: Recorded; the gateway has not been asked for a page, or did not answer yet.
    CREATED = "created"
    #: The customer must act.
    PENDING = "pending"
    #: A notice says that money was taken; the gateway has not confirmed it yet.
    PROCESSING = "processing"
    #: The gateway did not say. It is asked again, never charged again blindly.
    UNKNOWN = "unknown"
    #: Money was taken, but a person must look before anything is released.
    ON_HOLD = "on_hold"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: No money moved; the next attempt has a time, in its retry.
    RETRY_SCHEDULED = "retry_scheduled"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    #: The customer took the money back through the bank, or tries to.
    DISPUTED = "disputed"


class Payment(NamedTuple):
    """A payment as far as decisions need it. A tuple, because every notice makes and copies one."""

    id: str
    gateway: str
    method: MethodKind
    state: PaymentState
    reason: str | None
    amount: Money
    customer_id: str
    product_id: str
    reference: str
    validation_id: str | None
    gateway_payment_id: str | None
    checks_made: int
    next_check_at: datetime | None
    created_at: datetime
    expires_at: datetime
    version: int
    priority: Priority
    #: Whether a decline is followed by further attempts of ours.
    retries_automatically: bool
    #: The subscription for which the scheduler ordered it; it hears what becomes of it.
    subscription_id: str | None = None
    #: It is on a test clock: its longer waits end with an order.
    waits_for_orders: bool = False


@dataclass(frozen=True, slots=True)
class Deferred:
    """A call that was not made: nothing about the payment is known, and nothing was counted.

    `reason` says what kept it (a pause, an open breaker), `until` when to come back.
    """

    reason: str
    until: datetime


#: What became of a call, if it was made at all.
Verdict: TypeAlias = Outcome | Deferred
