"""What may become of a payment in the demonstration: how it is made to, and how it must end."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

Customer = Literal["pays", "cancels", "leaves", "none"]

#: How a payment is taken, as the body of `POST /api/payments` says it.
CHECKOUT: Final[Mapping[str, Any]] = MappingProxyType({"type": "checkout"})
PROMPT: Final[Mapping[str, Any]] = MappingProxyType({"type": "prompt", "phone": "237677123456"})
WALLET: Final[Mapping[str, Any]] = MappingProxyType(
    {"type": "wallet", "recipient": "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"}
)


def card(name: str, *, off_session: bool = True) -> Mapping[str, Any]:
    """Return the method of one of Stripe's test cards."""
    return MappingProxyType({"type": "card", "paymentMethod": name, "offSession": off_session})


@dataclass(frozen=True, slots=True)
class Fate:
    """One way a payment can go.

    `digits` are the last two of the amount in minor units, by which the simulator knows what to
    do, and `share_per_mille` is how many of every thousand payments have it, beside the first.
    """

    story: str
    digits: int
    share_per_mille: int
    gateway: str = "sslcommerz"
    method: Mapping[str, Any] = field(default_factory=lambda: CHECKOUT)
    #: The state that the payment must end in.
    state: str = "succeeded"
    #: What is left to the customer once the payment was created.
    customer: Customer = "pays"
    #: The customer's browser comes back to us with what the gateway gave it.
    comes_back: bool = False
    #: How many payments of one customer for one product belong together.
    group: int = 1
    #: Only the reconciler finds the money, and it looks a while after the creation.
    is_slow: bool = False

    @property
    def is_enrolled(self) -> bool:
        """Whether it must enroll its customer."""
        return self.state == "succeeded"


#: Currency, smallest and largest hundreds of its minor unit. Of mobile money only amounts above
#: 1,000 XAF are magic to the simulator.
_AMOUNTS: Final[Mapping[str, tuple[str, int, int]]] = MappingProxyType(
    {
        "sslcommerz": ("BDT", 100, 3_000),
        "fapshi": ("XAF", 11, 200),
        "campay": ("XAF", 11, 200),
        "stripe": ("USD", 5, 200),
        "x402": ("USDC", 10_000, 50_000),
    }
)

_SSLCOMMERZ: Final = {
    "lost": Fate("the notice is never sent; the reconciler asks", 5, 10, is_slow=True),
    "forged": Fate("the notice is badly signed; the reconciler asks", 7, 10, is_slow=True),
    "broken": Fate("the first 3 validations answer 500", 9, 20),
    "dropped": Fate("the first 2 validations lose the connection", 18, 20),
    "pending": Fate("the first 2 validations say PENDING", 16, 20),
    "garbled": Fate("the first validation answers with HTML", 17, 20),
    "slow": Fate("every validation takes 2 s", 11, 20),
    "reordered": Fate("a notice of a decline comes after the success", 12, 25),
    "returned": Fate("the notice is never sent; the customer comes back", 5, 25, comes_back=True),
    "abandoned": Fate(
        "the customer leaves without paying", 0, 25, state="pending", customer="leaves"
    ),
    "risky": Fate("the gateway says risk level 1", 4, 25, state="on_hold"),
    "short": Fate("the gateway took 0.50 less", 13, 20, state="on_hold"),
    "declined": Fate("the card is declined", 1, 30, state="failed"),
    "cancelled": Fate("the customer presses Cancel", 0, 25, state="cancelled", customer="cancels"),
    "again": Fate("paid twice for the same product", 0, 40, group=2),
    "repeated": Fate("the notice is sent five times", 6, 40),
}

_FAPSHI: Final = {
    "fapshi silent": Fate(
        "the one notice is lost; the reconciler asks", 5, 10, "fapshi", is_slow=True
    ),
    "fapshi page": Fate("paid on the page of a link", 0, 40, "fapshi"),
    "fapshi prompt": Fate("confirmed on the phone", 0, 40, "fapshi", PROMPT),
    "fapshi unheard": Fate(
        "prompted, but the answer is lost: looked up, not prompted again", 15, 10, "fapshi", PROMPT
    ),
    "fapshi declined": Fate("the operator declines", 1, 15, "fapshi", PROMPT, state="failed"),
    "fapshi refused": Fate(
        "the customer refuses on the phone", 2, 15, "fapshi", PROMPT, state="cancelled"
    ),
    "fapshi funds": Fate("insufficient funds", 3, 15, "fapshi", PROMPT, state="failed"),
    "fapshi short": Fate("50 XAF less are paid", 13, 10, "fapshi", PROMPT, state="on_hold"),
}

_CAMPAY: Final = {
    "campay page": Fate("paid on the page of a link", 0, 30, "campay"),
    "campay prompt": Fate("confirmed on the phone", 0, 50, "campay", PROMPT),
    "campay twice": Fate("the callback is sent five times", 6, 15, "campay", PROMPT),
    "campay forged": Fate(
        "the callback is badly signed; the reconciler asks", 7, 10, "campay", PROMPT, is_slow=True
    ),
    "campay declined": Fate("the operator declines", 1, 15, "campay", PROMPT, state="failed"),
    "campay funds": Fate("insufficient funds", 3, 15, "campay", PROMPT, state="failed"),
    "campay short": Fate("50 XAF less are paid", 13, 10, "campay", PROMPT, state="on_hold"),
}

_VISA: Final = card("pm_card_visa")

_STRIPE: Final = {
    "stripe saved": Fate(
        "a saved card, charged off session", 0, 60, "stripe", _VISA, customer="none"
    ),
    "stripe present": Fate(
        "the customer authenticates on the bank's page",
        0,
        25,
        "stripe",
        card("pm_card_authenticationRequired", off_session=False),
    ),
    "stripe absent": Fate(
        "authentication is needed, but the customer is not there",
        0,
        15,
        "stripe",
        card("pm_card_authenticationRequired"),
        state="failed",
        customer="none",
    ),
    "stripe lost card": Fate(
        "declined: lost_card",
        0,
        15,
        "stripe",
        card("pm_card_visa_chargeDeclinedLostCard"),
        state="failed",
        customer="none",
    ),
    "stripe funds": Fate(
        "declined: insufficient_funds", 2, 15, "stripe", _VISA, state="failed", customer="none"
    ),
    "stripe unheard": Fate(
        "charged, but the answer is lost: the same key finds it",
        15,
        10,
        "stripe",
        _VISA,
        customer="none",
    ),
    "stripe kept 500": Fate(
        "charged, but answered 500 for ever: found by its metadata",
        18,
        10,
        "stripe",
        _VISA,
        customer="none",
    ),
}

_X402: Final = {
    "x402 paid": Fate("the wallet pays", 0, 50, "x402", WALLET, customer="none"),
    "x402 funds": Fate(
        "the wallet has insufficient funds", 1, 15, "x402", WALLET, state="failed", customer="none"
    ),
    "x402 pending": Fate(
        "settled, but said to be pending at first", 5, 15, "x402", WALLET, customer="none"
    ),
    "x402 unheard": Fate(
        "transferred, but not answered in time: the chain tells",
        16,
        10,
        "x402",
        WALLET,
        customer="none",
    ),
}

#: Slow ones first: they are sent first, and the others are done while they wait.
FATES: Final[Mapping[str, Fate]] = MappingProxyType(
    dict(
        sorted(
            {**_SSLCOMMERZ, **_FAPSHI, **_CAMPAY, **_STRIPE, **_X402}.items(),
            key=lambda item: not item[1].is_slow,
        )
    )
    # The rest.
    | {"paid": Fate("paid, and the customer comes back", 0, 0, comes_back=True)}
)


@dataclass(frozen=True, slots=True)
class Order:
    """One payment that a customer is going to make: the amount in minor units, and two numbers."""

    fate: str
    amount: int
    currency: str
    customer: int
    product: int


def plan_orders(count: int, seed: int, *, quick: bool = False) -> list[Order]:
    """Return `count` orders of every fate, the slow ones first; the same for the same seed.

    `count` must not be below `count_min()`: each fate occurs at least once, in a whole group. If
    it is to be quick, those fates are left out that take a while.
    """
    generator = random.Random(seed)  # noqa: S311 - a plan, not a secret
    chosen = [name for name, fate in FATES.items() if not (quick and fate.is_slow)]
    fates = [name for name in chosen for _ in range(_count_of(name, count))]
    assert len(fates) <= count, "fewer orders than fates"
    fates += ["paid"] * (count - len(fates))
    orders: list[Order] = []
    for number, name in enumerate(fates):
        is_next_of_group = (number - fates.index(name)) % FATES[name].group > 0
        first = orders[-1] if is_next_of_group else None
        currency, low, high = _AMOUNTS[FATES[name].gateway]
        orders.append(
            Order(
                name,
                amount=generator.randint(low, high) * 100 + FATES[name].digits,
                currency=currency,
                customer=first.customer if first else number,
                product=first.product if first else generator.randint(1, 12),
            )
        )
    return orders


def count_min() -> int:
    """Return the smallest number of orders in which every fate occurs."""
    return sum(fate.group for fate in FATES.values())


def _count_of(name: str, count: int) -> int:
    """Return how many of `count` have a fate: one group, and its share of what is left over."""
    fate = FATES[name]
    further = (count - count_min()) * fate.share_per_mille // 1_000 // fate.group
    return (1 + further) * fate.group
