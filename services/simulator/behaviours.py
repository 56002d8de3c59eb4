"""The ways to misbehave that every gateway shares. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Behaviour(StrEnum):
    """How a call or a notice misbehaves."""

    # Calls that leave the work undone.
    ERROR = "error"
    TOO_MANY_REQUESTS = "too_many_requests"
    IN_USE = "in_use"
    TIMEOUT_BEFORE = "timeout_before"
    # Calls that do the work, and answer badly or not at all.
    ERROR_AFTER = "error_after"
    DROP = "drop"
    RESET = "reset"
    TIMEOUT = "timeout"
    SLOW = "slow"
    MALFORMED = "malformed"
    HTML = "html"
    # Notices.
    NEVER = "never"
    LATE = "late"
    DUPLICATE = "duplicate"
    BADLY_SIGNED = "badly_signed"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - the name of a fault
    REORDERED = "reordered"


#: What any call of any gateway can do; `faults.py` does it.
OF_CALLS: Final = frozenset(
    {
        Behaviour.ERROR,
        Behaviour.TOO_MANY_REQUESTS,
        Behaviour.IN_USE,
        Behaviour.TIMEOUT_BEFORE,
        Behaviour.ERROR_AFTER,
        Behaviour.DROP,
        Behaviour.RESET,
        Behaviour.TIMEOUT,
        Behaviour.SLOW,
        Behaviour.MALFORMED,
        Behaviour.HTML,
    }
)

#: What any notice can do; the gateway itself does it when it plans its notices.
OF_NOTICES: Final = frozenset(
    {
        Behaviour.NEVER,
        Behaviour.LATE,
        Behaviour.DUPLICATE,
        Behaviour.BADLY_SIGNED,
        Behaviour.WRONG_SECRET,
        Behaviour.REORDERED,
    }
)

#: Seconds that a behaviour takes when nobody says how many.
DELAY_SECONDS: Final[Mapping[str, float]] = MappingProxyType(
    {
        Behaviour.TIMEOUT: 30.0,  # Longer than any client should wait.
        Behaviour.TIMEOUT_BEFORE: 30.0,
        Behaviour.SLOW: 2.0,
        Behaviour.LATE: 20.0,
        Behaviour.REORDERED: 1.0,  # Surely after the notice that should have come second.
    }
)

#: How often a duplicated notice is sent.
DUPLICATES: Final = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """One misbehaviour; `delay_seconds` means something to those in `DELAY_SECONDS` only.

    `behaviour` is a `Behaviour`, or a word of one gateway's own.
    """

    behaviour: str
    delay_seconds: float


def fault(behaviour: str, delay_seconds: float | None = None) -> Fault:
    """Return a fault, with its usual delay unless another is given."""
    usual = DELAY_SECONDS.get(behaviour, 0.0)
    return Fault(behaviour, usual if delay_seconds is None else delay_seconds)
