"""Rate limits: a token bucket per caller, kept in the process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from shared.errors import TooManyRequestsError

#: Callers remembered; the longest unseen is forgotten first, which only favours that caller.
CALLERS_MAX: Final = 10_000

#: A bucket holds this many seconds of its rate, so that a page may load in one burst.
BURST_SECONDS: Final = 2


class RateLimit:
    """Allows `rate` requests a second to each caller; N processes allow N times as many."""

    def __init__(self, rate: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._size = max(1.0, rate * BURST_SECONDS)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request.

        Raises:
            TooManyRequestsError: the caller's bucket is empty; says when it is not.
        """
        now = self._monotonic()
        tokens, at = self._buckets.pop(caller, (self._size, now))
        tokens = min(self._size, tokens + (now - at) * self._rate)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)
        if not allowed:
            wait = math.ceil((1 - tokens) / self._rate)
            raise TooManyRequestsError(
                f"over {self._rate:g} requests a second", retry_after_seconds=max(1, wait)
            )
