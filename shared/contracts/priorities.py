"""Which payments go first: three levels by amount, thresholds per currency."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Priority(StrEnum):
    """A level of urgency; each has a queue of its own."""

    HIGH = "high"
    MEDIUM = "medium"
    NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a currency's levels begin, in minor units."""

    medium_from: int
    high_above: int


#: XAF is the product's rule; the others are the same value in round figures (10,000 XAF is about
#: 16 USD).
THRESHOLDS: Final[Mapping[str, Thresholds]] = MappingProxyType(
    {
        "XAF": Thresholds(5_000, 10_000),
        "BDT": Thresholds(100_000, 200_000),
        "EUR": Thresholds(800, 1_500),
        "USD": Thresholds(800, 1_600),
        "USDC": Thresholds(8_000_000, 16_000_000),
    }
)

_ENTRY: Final = re.compile(r"\s*([A-Z]{3,5})=(\d{1,15}):(\d{1,15})\s*")


def read_thresholds(text: str) -> dict[str, Thresholds]:
    """Read `XAF=5000:10000,EUR=800:1500`: for each currency medium from, and high above.

    Raises:
        ValueError: says which entry is wrong, and how.
    """
    found = {}
    for entry in text.split(","):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"{entry!r} is not like XAF=5000:10000")
        currency, medium_from, high_above = match[1], int(match[2]), int(match[3])
        if medium_from > high_above:
            raise ValueError(f"{entry!r} begins medium above high")
        found[currency] = Thresholds(medium_from, high_above)
    return found


def priority_of(
    amount: int, currency: str, thresholds: Mapping[str, Thresholds] = THRESHOLDS
) -> Priority:
    """Return the level of an amount in minor units; an unlisted currency is normal."""
    levels = thresholds.get(currency)
    if levels is None:
        return Priority.NORMAL
    if amount > levels.high_above:
        return Priority.HIGH
    return Priority.MEDIUM if amount >= levels.medium_from else Priority.NORMAL
