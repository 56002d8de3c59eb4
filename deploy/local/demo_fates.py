"""What may become of a payment in the demonstration: how it is made to, and how it must end."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Customer = Literal["pays", "cancels", "leaves"]


@dataclass(frozen=True, slots=True)
class Fate:
    """One way a payment can go.

    `cents` are the decimals of the amount, by which the simulator knows what to do, and
    `share_per_mille` is how many of every thousand payments have it.
    """

    story: str
    cents: int
    share_per_mille: int
    #: The state that the payment must end in.
    state: str = "succeeded"
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


#: Slow ones first: they are sent first, and the others are done while they wait.
FATES: Final[Mapping[str, Fate]] = MappingProxyType(
    {
        "lost": Fate("the notice is never sent; the reconciler asks", 5, 15, is_slow=True),
        "forged": Fate("the notice is badly signed; the reconciler asks", 7, 15, is_slow=True),
        "broken": Fate("the first 3 validations answer 500", 9, 30),
        "dropped": Fate("the first 2 validations lose the connection", 18, 30),
        "pending": Fate("the first 2 validations say PENDING", 16, 30),
        "garbled": Fate("the first validation answers with HTML", 17, 30),
        "slow": Fate("every validation takes 2 s", 11, 40),
        "reordered": Fate("a notice of a decline comes after the success", 12, 40),
        "returned": Fate(
            "the notice is never sent; the customer comes back", 5, 40, comes_back=True
        ),
        "abandoned": Fate(
            "the customer leaves without paying", 0, 50, state="pending", customer="leaves"
        ),
        "risky": Fate("the gateway says risk level 1", 4, 50, state="on_hold"),
        "short": Fate("the gateway took 0.50 less", 13, 30, state="on_hold"),
        "declined": Fate("the card is declined", 1, 80, state="failed"),
        "cancelled": Fate(
            "the customer presses Cancel", 0, 50, state="cancelled", customer="cancels"
        ),
        "again": Fate("paid twice for the same product", 0, 60, group=2),
        "repeated": Fate("the notice is sent five times", 6, 110),
        # The rest.
        "paid": Fate("paid, and the customer comes back", 0, 0, comes_back=True),
    }
)


@dataclass(frozen=True, slots=True)
class Order:
    """One payment that a customer is going to make: the amount in minor units, and two numbers."""

    fate: str
    amount: int
    customer: int
    product: int


def plan_orders(count: int, seed: int, *, quick: bool = False) -> list[Order]:
    """Return `count` orders of every fate, the slow ones first; the same for the same seed.

    `count` must not be below `count_min()`: each fate occurs at least once, in a whole group. If
    it is to be quick, those fates are left out that take half a minute.
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
        orders.append(
            Order(
                name,
                amount=generator.randint(100, 3_000) * 100 + FATES[name].cents,
                customer=first.customer if first else number,
                product=first.product if first else generator.randint(1, 12),
            )
        )
    return orders


def count_min() -> int:
    """Return the smallest number of orders in which every fate occurs."""
    return sum(fate.group for fate in FATES.values())


def _count_of(name: str, count: int) -> int:
    """Return how many of `count` have a fate: its share in whole groups, at least one."""
    fate = FATES[name]
    return max(1, count * fate.share_per_mille // 1_000 // fate.group) * fate.group
