"""What an answer says about the gateway itself: whether it works, and whether we come too often.

A decline, a "not found" or a refusal of our parameters is a gateway at work. Whether the money
moved is not decided here.
"""

from __future__ import annotations

import re
from typing import Final

from shared.gateways.interface import Declined, FailureKind, Unknown

#: How long calls are held back from a gateway that finds them too many and does not say how long.
HOLD_SECONDS_DEFAULT: Final = 1.0

#: Reasons of unknown outcomes that say that the gateway was not reached, did not answer in time, or
#: that what answered was not it: a proxy's page, half an answer.
_OUTAGES: Final = frozenset(
    {
        *("timeout", "connect_timeout", "connect_failed", "connection_failed"),
        *("connection_reset", "tls_error", "answer_cut_short", "not_http", "not_json"),
        "http_408",
    }
)
_SERVER_ERROR: Final = re.compile(r"http_5\d\d")

_RATE_LIMITS: Final = frozenset({"http_429", "rate_limited"})


def judge(outcome: object) -> tuple[bool, float]:
    """Return whether a gateway failed a call, and the seconds for which it wants none; 0 for none.

    A rate limit is no failure: the gateway works, and says when to come back.
    """
    match outcome:
        case Unknown():
            # A reason may tell of two calls: "http_502; chain: timeout".
            first = outcome.reason.partition(";")[0]
            if first in _RATE_LIMITS:
                return False, _hold_seconds(outcome.retry_after_seconds)
            return first in _OUTAGES or _SERVER_ERROR.fullmatch(first) is not None, 0.0
        case Declined(kind=FailureKind.RATE_LIMIT_EXCEEDED):
            if outcome.reason in _RATE_LIMITS:
                return False, _hold_seconds(outcome.retry_after_seconds)
            return False, 0.0  # A bank's own limit, for one card.
        case _:
            return False, 0.0


def _hold_seconds(asked: float | None) -> float:
    return HOLD_SECONDS_DEFAULT if asked is None else asked
