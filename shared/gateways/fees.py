"""What a gateway keeps for itself, where its answer tells what is left for us."""

from __future__ import annotations

from shared.errors import InvalidInputError
from shared.money import Money, minor_units_in


def kept_of(amount: Money, net: object) -> Money | None:
    """Return the part of an amount that is not in `net`, the decimal text or number of an answer.

    None unless it is told exactly: a fee is booked, and never guessed.
    """
    if not isinstance(net, (str, int, float)):
        return None
    try:
        left = minor_units_in(str(net), amount.currency)
    except InvalidInputError:
        return None
    if left > amount.minor_units:
        return None
    return Money(amount.minor_units - left, amount.currency)
