"""What a gateway keeps for itself, where its answer tells what is left for us."""

from __future__ import annotations

from shared.gateways.json_calls import money_in
from shared.money import Money


def kept_of(amount: Money, net: object) -> Money | None:
    """Return the part of an amount that is not in `net`, the decimal text or number of an answer.

    None unless it is told exactly: a fee is booked, and never guessed.
    """
    left = money_in(net, amount.currency)
    if left is None or left.minor_units > amount.minor_units:
        return None
    return Money(amount.minor_units - left.minor_units, amount.currency)
