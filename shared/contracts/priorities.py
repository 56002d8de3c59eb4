"""Which payments go first: three levels by amount, thresholds per currency."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Priority(StrEnum):
    """A level of urgency; each has a queue of its own."""

    HIGH = "high"
    MEDIUM = "medium"
    NORMAL = "normal"


#: (medium from, high above), in minor units. XAF is the product's rule; the others are the same
#: value in round figures (10,000 XAF is about 16 USD).
THRESHOLDS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "XAF": (5_000, 10_000),
        "BDT": (100_000, 200_000),
        "EUR": (800, 1_500),
        "USD": (800, 1_600),
        "USDC": (8_000_000, 16_000_000),
    }
)


def priority_of(amount: int, currency: str) -> Priority:
    """Return the level of an amount in minor units; an unlisted currency is normal."""
    thresholds = THRESHOLDS.get(currency)
    if thresholds is None:
        return Priority.NORMAL
    medium_from, high_above = thresholds
    if amount > high_above:
        return Priority.HIGH
    return Priority.MEDIUM if amount >= medium_from else Priority.NORMAL
