"""The injected clock: business time. Leases use the database's clock instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeAlias

#: Returns the present moment in UTC. Handlers receive one; the domain receives its value.
Clock: TypeAlias = Callable[[], datetime]


def system_clock() -> datetime:
    """Return the operating system's time in UTC."""
    return datetime.now(UTC)
