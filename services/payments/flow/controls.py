"""What this process may do at the moment: limits, pauses, breakers. Read often, replaced whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from services.payments.domain.breaker import BreakerState


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A gateway's breaker, as far as this process acts on it."""

    state: BreakerState
    #: When it is open: when the first probes may be made.
    until: datetime | None = None
    #: When it is half open: calls that this process may still make.
    probes: int = 0
    reason: str | None = None
    #: An operator wants it so, whatever the gateway says.
    is_forced: bool = False


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})

#: What `Controls.paused` calls everything at once.
ALL: Final = "all"


@dataclass(frozen=True, slots=True)
class Controls:
    """What holds in this process until the next look at the database.

    A gateway without an entry has no limit, and one without a breaker works.
    """

    #: Calls that move money, in flight at once in this process.
    charges: int = 10
    #: Calls of one gateway, in flight at once in this process.
    calls: int = 256
    #: Payments that are taken up together.
    batch_size: int = 50
    #: This process's share of each gateway's calls in flight.
    gateway_calls: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    #: This process's share of each gateway's calls a second.
    gateway_rate: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    #: `all`, `gateway:<name>` or `priority:<level>`, each with the reason.
    paused: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    breakers: Mapping[str, BreakerView] = field(default_factory=lambda: _NOTHING)
    #: Until when shares and probes are surely this process's own, by the clock of its event loop.
    #: Later they may have been given to others, and it has none. None: for ever.
    shares_end_at: float | None = None
