"""Doors between Dramatiq's threads and the event loop, one a queue.

A queue whose door is closed stays in Redis for whoever has room, and its thread alone waits: a full
queue of little urgency stands in no other's way.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

#: Messages that may be on their way through one door; a busy event loop takes them a little later.
PASSING_MAX: Final = 4


class Intake(Protocol):
    """Takes what actors receive. Lives on the event loop."""

    def has_room(self, queue: str) -> bool:
        """Whether more of a queue can be taken; read from any thread."""

    def call_when_roomy(self, queue: str, notify: Callable[[], None]) -> None:
        """Have `notify` called, on the event loop, each time that a full queue has room again."""

    def accept(self, queue: str, arguments: dict[str, Any]) -> None:
        """Take a message's arguments; what becomes of them is not the actor's concern."""


class Door:
    """Lets the messages of one queue through to its intake, while that has room."""

    def __init__(self, loop: asyncio.AbstractEventLoop, intake: Intake, queue: str) -> None:
        self._loop = loop
        self._intake = intake
        self._queue = queue
        self._passing: deque[dict[str, Any]] = deque()
        self._opened = threading.Event()
        intake.call_when_roomy(queue, self._opened.set)

    @property
    def is_open(self) -> bool:
        """Whether more may be fetched; from any thread."""
        return len(self._passing) < PASSING_MAX and self._intake.has_room(self._queue)

    def wait(self, seconds: float) -> bool:
        """Wait, in a thread, until the door is open, at most so long; return whether it is."""
        self._opened.clear()
        # Asked again after the event is cleared: it may have opened in between.
        if not self.is_open:
            self._opened.wait(seconds)
        return self.is_open

    def hand_over(self, arguments: dict[str, Any]) -> None:
        """Hand a message to the event loop, from any thread."""
        self._passing.append(arguments)
        self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        arguments = self._passing.popleft()
        was_closed = not self.is_open
        self._intake.accept(self._queue, arguments)
        if was_closed:
            self._opened.set()
