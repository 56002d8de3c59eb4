"""What a gateway lists: the payments that it says it took money for."""

from __future__ import annotations

from dataclasses import dataclass

from shared.money import Money


@dataclass(frozen=True, slots=True)
class ListedPayment:
    """One payment of a gateway's list, under a reference of ours."""

    #: Our name for the attempt.
    reference: str
    #: The gateway's name for the charge, as in `Paid`.
    gateway_payment_id: str
    #: In the currency that we asked for.
    amount: Money


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A piece of a gateway's list, in no order that matters; a payment may come twice."""

    payments: tuple[ListedPayment, ...]
    #: What to ask the next piece with; None after the last.
    next_cursor: str | None = None
    #: Whether the gateway may have kept something of this piece to itself.
    is_cut: bool = False
