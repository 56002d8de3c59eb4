"""What Stripe can do. Apart from its client, which takes half a second and 30 MB to import."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shared.gateways.interface import Capabilities, Limits

#: Eight digits (Stripe's reference of `amount`).
AMOUNT_MAX: Final = 99_999_999

#: Smallest charge, in minor units (docs.stripe.com/currencies). Of a currency without its own it is
#: the worth of half a dollar, which only Stripe knows: it refuses less, and nothing is charged.
_AMOUNT_MIN: Final[Mapping[str, int]] = MappingProxyType(
    {
        "BDT": 1,
        "EUR": 50,
        "GBP": 30,
        "INR": 50,
        "JPY": 50,
        "KWD": 10,
        "MYR": 200,
        "SGD": 50,
        "USD": 50,
        "XAF": 1,
    }
)

#: Currencies whose last digit must be 0 (docs.stripe.com/currencies, three-decimal currencies).
_LAST_DIGIT_ZERO: Final = frozenset({"KWD"})

CAPABILITIES: Final = Capabilities(
    methods=("card",),
    limits=MappingProxyType(
        {
            currency: Limits(low, AMOUNT_MAX, step=10 if currency in _LAST_DIGIT_ZERO else 1)
            for currency, low in _AMOUNT_MIN.items()
        }
    ),
    charges_off_session=True,
    refunds=True,
    cancels=True,
    disputes=True,
    lists_payments=True,
)
