"""Until when a call that moves money may leave this process.

Whoever finds a try without an answer asks the gateway, and begins another one when nobody there
knows of it. A process that was stopped for so long and then goes on must not send the first one
after all. So it is given a time, and the last step before the network looks at it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

#: Of the task: on the clock since boot, which no one sets, and on that of the day, which goes on
#: while the machine sleeps.
_DEADLINES: Final[ContextVar[tuple[float, float] | None]] = ContextVar(
    "send_deadline", default=None
)


@contextmanager
def send_within(seconds: float) -> Iterator[None]:
    """Let nothing that is called inside leave for a gateway after this time.

    To be entered before a try is recorded: a process may be stopped between any two steps. Of
    several, one inside the other, the earliest holds.
    """
    deadlines = (time.monotonic() + seconds, time.time() + seconds)
    if (outer := _DEADLINES.get()) is not None:
        deadlines = (min(outer[0], deadlines[0]), min(outer[1], deadlines[1]))
    token = _DEADLINES.set(deadlines)
    try:
        yield
    finally:
        _DEADLINES.reset(token)


def is_too_late() -> bool:
    """Tell whether a call of this task may no longer be sent."""
    deadlines = _DEADLINES.get()
    return deadlines is not None and (
        time.monotonic() >= deadlines[0] or time.time() >= deadlines[1]
    )
