"""Takes up what is due, for ever, so that a slow gateway holds up its own work only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from services.payments.runtime import Runtime
from shared.contracts.priorities import Priority
from shared.errors import DatabaseUnavailableError
from shared.gateways.registry import REGISTRY

log = structlog.get_logger()

#: Rows that one look takes up, where nothing else is said.
BATCH_MAX: Final = 50

#: Batches in hand at once.
BATCHES_MAX: Final = 4


async def take_up_for_ever(
    what: str,
    take_up: Callable[[int], Awaitable[list[asyncio.Task[None]]]],
    *,
    interval_seconds: float,
    batch_size: Callable[[], int] = lambda: BATCH_MAX,
) -> None:
    """Let `take_up` begin work on as many due rows as there is room for, again and again.

    Args:
        what: The name of the work, for logs.
        take_up: Claims at most so many rows, by a lease that runs out, and begins their work.
        interval_seconds: Pause when nothing, or not much, is due.
        batch_size: Rows that one look takes up; it may change.
    """
    in_hand: set[asyncio.Task[None]] = set()
    try:
        while True:
            size = batch_size()
            room = max(0, min(size, BATCHES_MAX * size - len(in_hand)))
            taken: list[asyncio.Task[None]] = []
            try:
                taken = await take_up(room)
            except DatabaseUnavailableError as error:
                log.warning("due_work_waits", what=what, reason=error.message)
            in_hand.update(taken)
            ended = {task for task in in_hand if task.done()}
            in_hand -= ended
            for task in ended:
                task.result()  # What nobody foresaw ends the process, and is started anew.
            if len(in_hand) >= BATCHES_MAX * size:
                await asyncio.wait(in_hand, return_when=asyncio.FIRST_COMPLETED)
            elif len(taken) < room:
                await asyncio.sleep(interval_seconds)
    finally:
        for task in in_hand:
            task.cancel()


def gateways_at_rest(runtime: Runtime) -> list[str]:
    """Return the gateways of which nothing is taken up: paused, or their breaker is open."""
    called = {
        name for level in Priority for name in runtime.flow.claimable(REGISTRY, level, BATCH_MAX)
    }
    return sorted(REGISTRY.keys() - called)
