"""What may become of a payment in the demonstration: how it is made to, and how it must end."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

#: Customers who buy the same product again have their two payments after one another in the plan.
PAIR: Final = 2

Customer = Literal["pays", "cancels", "leaves"]


@dataclass(frozen=True, slots=True)
class Fate:
    """One way a payment can go.

    `cents` are the decimals of the amount, by which the simulator knows what to do.
    """

    story: str
    cents: int
    #: The state that the payment must end in, and whether that must enroll its customer.
    state: str
    is_enrolled: bool
    #: Of every thousand payments.
    share_per_mille: int
    customer: Customer = "pays"
    #: The customer's browser comes back to us with what the gateway gave it.
    comes_back: bool = False
    #: How many payments of one customer for one product belong together.
    group: int = 1


#: Slow ones first: they are sent first, and the others are done while they wait.
FATES: Final[Mapping[str, Fate]] = MappingProxyType(
    {
        "lost": Fate(
            "the notice is never sent; the reconciler asks after 30 s", 5, "succeeded", True, 15
        ),
        "forged": Fate(
            "the notice is badly signed and refused; the reconciler asks after 30 s",
            7,
            "succeeded",
            True,
            15,
        ),
        "broken": Fate("the first 3 validations answer 500", 9, "succeeded", True, 30),
        "dropped": Fate("the first 2 validations lose the connection", 18, "succeeded", True, 30),
        "pending": Fate("the first 2 validations say PENDING", 16, "succeeded", True, 30),
        "garbled": Fate("the first validation answers with HTML", 17, "succeeded", True, 30),
        "slow": Fate("every validation takes 2 s", 11, "succeeded", True, 40),
        "reordered": Fate("a notice of a decline comes after the success", 12, "succeeded", True, 40),
        "abandoned": Fate("the customer leaves without paying", 0, "pending", False, 50, "leaves"),
        "returned": Fate(
            "the notice is never sent; the browser's return tells",
            5,
            "succeeded",
            True,
            40,
            comes_back=True,
        ),
        "risky": Fate("the gateway says risk level 1", 4, "on_hold", False, 50),
        "short": Fate("the gateway took 0.50 less", 13, "on_hold", False, 30),
        "declined": Fate("the card is declined", 1, "failed", False, 80),
        "cancelled": Fate("the customer presses Cancel", 0, "cancelled", False, 50, "cancels"),
        "again": Fate("paid twice for the same product", 0, "succeeded", True, 60, group=PAIR),
        "repeated": Fate("the notice is sent five times", 6, "succeeded", True, 110),
        "paid": Fate("paid, and the customer comes back", 0, "succeeded", True, 300, comes_back=True),
    }
)


@dataclass(frozen=True, slots=True)
class Order:
    """One payment that a customer is going to make."""

    number: int
    fate: str
    amount: int
    customer_id: str
    product_id: str


def plan_orders(count: int, seed: int) -> list[Order]:
    """Return `count` orders of every fate, the slow ones first; the same for the same seed.

    Each fate occurs at least once (in a whole group), so `count` must not be below `count_min()`.
    """
    generator = random.Random(seed)  # noqa: S311 - a plan, not a secret
    fates = [name for name in FATES for _ in range(_count_of(name, count))]
    fates += ["paid"] * (count - len(fates))
    orders: list[Order] = []
    for number, name in enumerate(fates[:count]):
        is_next = _position(fates, number) % FATES[name].group > 0
        before = orders[-1] if is_next else None
        orders.append(
            Order(
                number,
                name,
                generator.randint(100, 3_000) * 100 + FATES[name].cents,
                before.customer_id if before else f"customer-{generator.randrange(10**9):09d}",
                before.product_id if before else f"course-{generator.randint(1, 12)}",
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


def _position(fates: Sequence[str], number: int) -> int:
    """Return how many of the same fate come before."""
    return number - fates.index(fates[number])
