"""Money: whole minor units of one currency, never a float."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from shared.errors import InvalidInputError

#: Decimal places of the currencies we know (ISO 4217; USDC: token metadata on EVM chains).
DECIMAL_PLACES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BDT": 2,
        "EUR": 2,
        "GBP": 2,
        "INR": 2,
        "JPY": 0,
        "KWD": 3,
        "MYR": 2,
        "SGD": 2,
        "USD": 2,
        "USDC": 6,
        "XAF": 0,
    }
)

#: The largest amount that fits a PostgreSQL bigint with room for sums of many.
MINOR_UNITS_MAX: Final = 10**15

_PLAIN_DECIMAL: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?")


@dataclass(frozen=True, slots=True)
class Money:
    """A non-negative amount in whole minor units (cents, poisha) of one currency."""

    minor_units: int
    currency: str

    def __post_init__(self) -> None:
        if self.currency not in DECIMAL_PLACES:
            raise InvalidInputError(
                f"currency {self.currency!r} is not one of {', '.join(sorted(DECIMAL_PLACES))}",
                details={"currency": "unknown"},
            )
        if not 0 <= self.minor_units <= MINOR_UNITS_MAX:
            raise InvalidInputError(
                f"amount {self.minor_units} is outside 0 to {MINOR_UNITS_MAX} minor units",
                details={"amount": "out of range"},
            )

    def __str__(self) -> str:
        return f"{self.decimal_text()} {self.currency}"

    def decimal_text(self) -> str:
        """Write the amount with exactly the currency's decimal places: `1150.00`."""
        places = DECIMAL_PLACES[self.currency]
        if places == 0:
            return str(self.minor_units)
        whole, fraction = divmod(self.minor_units, 10**places)
        return f"{whole}.{fraction:0{places}d}"

    @classmethod
    def from_decimal_text(cls, text: str, currency: str) -> Money:
        """Read `1150.00`; exact, so more decimals than the currency has are refused.

        Raises:
            InvalidInputError: the text is no plain decimal number, or would need rounding.
        """
        return cls(minor_units_in(text, currency), currency)


def minor_units_in(text: str, currency: str) -> int:
    """Read `1150.00` as the minor units that it is, exactly.

    Raises:
        InvalidInputError: the text is no plain decimal number, or would need rounding.
    """
    places = DECIMAL_PLACES.get(currency)
    if places is None:
        raise InvalidInputError(f"currency {currency!r} is not known")
    # Not `Decimal`: it reads `1e999999`, `1_0` and other scripts' digits, and may round.
    found = _PLAIN_DECIMAL.fullmatch(text)
    if found is None:
        raise InvalidInputError(f"amount {text[:40]!r} is not a plain decimal number")
    whole, fraction = found.group(1), (found.group(2) or "").rstrip("0")
    if len(fraction) > places:
        raise InvalidInputError(f"amount {text[:40]!r} has more than {places} decimals")
    return int(whole + fraction.ljust(places, "0"))
