"""Stored means of payment: how customers are charged who are not there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias, assert_never

from shared.gateways.interface import (
    Capabilities,
    Card,
    Customer,
    Order,
    Prompt,
    Refusal,
    Wallet,
)
from shared.money import Money

#: Ids of stored means of payment begin with this.
ID_PREFIX: Final = "pmt"

#: A page is none of them: somebody must open it each time.
StoredKind: TypeAlias = Literal["prompt", "card", "wallet"]
Chargeable: TypeAlias = Prompt | Card | Wallet

#: Characters of a phone number that tell its owner which one it is, and nobody else.
_PHONE_DIGITS_SHOWN: Final = 4

#: Characters of an id or an address that are shown of its beginning and of its end. The first ones
#: are a prefix and little more (`pm_`, `0x`).
_BEGINNING_SHOWN: Final = 6
_END_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Means:
    """What a gateway is told: who pays, and how. Personal data.

    A card is off session: the customer is not there when it is charged.
    """

    customer: Customer
    method: Chargeable


@dataclass(frozen=True, slots=True)
class StoredMethod:
    """A stored means of payment. Once removed it is erased: `means` is None and it charges nobody.

    `gateway` may be off by now, and its rules for amounts are not those of when it was stored.
    """

    id: str
    gateway: str
    kind: StoredKind
    customer_id: str
    means: Means | None
    created_at: datetime
    removed_at: datetime | None


def refusal_to_store(
    gateway: str, capabilities: Capabilities, method: Chargeable
) -> Refusal | None:
    """Return why a gateway cannot charge by such a method without the customer's page, or None.

    What it cannot take of one method (a phone abroad, say) its client knows: see `smallest_order`.
    """
    able = [kind for kind in capabilities.methods if kind != "checkout"]
    if not able:
        problem = f"{gateway} takes payments on its page only, and the customer must be there"
        return Refusal("gateway", problem)
    if method.kind not in able:
        return Refusal("method.type", f"{gateway} takes {', '.join(able)}, not {method.kind}")
    return None


def smallest_order(
    capabilities: Capabilities, means: Means, *, reference: str, now: datetime
) -> Order:
    """Return the least that can be ordered, to learn from a client what it refuses of a method.

    It is never sent.
    """
    currency, limits = next(iter(capabilities.limits.items()))
    return Order(
        reference=reference,
        amount=Money(limits.minimum, currency),
        method=means.method,
        customer=means.customer,
        product_name="",
        started_at=now,
    )


def hint_of(method: Chargeable) -> str:
    """Return what tells a customer's methods apart without saying what they are."""
    match method:
        case Prompt(phone=phone):
            return f"…{phone[-_PHONE_DIGITS_SHOWN:]}"
        case Card(payment_method=text) | Wallet(recipient=text):
            if len(text) <= _BEGINNING_SHOWN + _END_SHOWN:
                return f"…{text[-_END_SHOWN:]}"
            return f"{text[:_BEGINNING_SHOWN]}…{text[-_END_SHOWN:]}"
    assert_never(method)
