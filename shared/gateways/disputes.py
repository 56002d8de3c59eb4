"""How a dispute stands: a customer's bank takes a payment back, and we may object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.money import Money


class DisputeState(StrEnum):
    """How far the customer's bank has come with taking a payment back."""

    #: The bank asks. No money has moved, and none may ever.
    INQUIRY = "inquiry"
    #: The bank has taken the money back until the dispute is decided.
    OPENED = "opened"
    #: The money is ours, again or still.
    WON = "won"
    #: The money is gone.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Disputed:
    """A dispute as the gateway's source of truth shows it now.

    A won or lost one may be opened again: banks and networks hear appeals.
    """

    #: The gateway's name for the dispute; unique per gateway.
    handle: str
    state: DisputeState
    #: What the bank claims, in the currency of the payment; it may be a part of the payment.
    amount: Money
    #: The gateway's own word for the customer's reason, at most 200 characters.
    reason: str
    #: Our name for the disputed attempt; None when the payment is of another system.
    reference: str | None
    #: The gateway's name for the charge, as in `Paid`.
    gateway_payment_id: str
    opened_at: datetime
    #: What the gateway itself charges for the dispute so far, in the currency of its account; None
    #: when it does not tell.
    fee: Money | None = None
