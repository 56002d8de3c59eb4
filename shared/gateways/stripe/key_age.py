"""How long an idempotency key of ours is good for. Pure.

Stripe keeps a key for 24 hours at least, and then may forget it: from then on the same call with
the same key is a new charge.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

#: The same call may be repeated for so long; an hour less, for clocks and calls on their way.
REPEATED_FOR: Final = timedelta(hours=23)

#: What was not found after so long was never begun: the last call that could have begun it is
#: more than an hour past, and Stripe's search is never later than that.
KNOWN_AFTER: Final = timedelta(hours=24, minutes=15)


def may_be_repeated(started_at: datetime, now: datetime) -> bool:
    """Tell whether the same call with the same key is still surely the same charge."""
    return now - started_at < REPEATED_FOR


def may_be_known(started_at: datetime, now: datetime) -> bool:
    """Tell whether a call of ours may still be under way, or not yet be found."""
    return now - started_at < KNOWN_AFTER
