"""Waiting for what another task, thread or process will do: polled, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

#: Long enough for a busy machine; a test that needs it has most likely failed.
DEADLINE_SECONDS = 15.0

_POLL_SECONDS = 0.01

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T]], *, timeout_seconds: float = DEADLINE_SECONDS
) -> T:
    """Call `look` until it returns something true, and return that.

    Raises:
        AssertionError: it did not within `timeout_seconds`; quotes what it returned last.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (seen := await look()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s; last seen: {seen!r}"
        await asyncio.sleep(_POLL_SECONDS)
    return seen


def eventually_blocking(look: Callable[[], T], *, timeout_seconds: float = DEADLINE_SECONDS) -> T:
    """Do as `eventually`, for tests without an event loop."""
    deadline = time.monotonic() + timeout_seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s; last seen: {seen!r}"
        time.sleep(_POLL_SECONDS)
    return seen
