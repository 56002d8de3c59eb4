"""What waits: messages on the queues, and payments whose next step is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.payments.runtime import Runtime
from services.payments.store import backlog as backlog_store
from shared.contracts.priorities import Priority
from shared.messaging.queue_metrics import ready_messages


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be worked at, by priority. What waits for its time is not part of it."""

    #: Messages on the queues that no worker has taken; None when Redis is away.
    messages: Mapping[Priority, int] | None
    #: Payments whose next look at the gateway is due and that no worker has taken.
    looks: Mapping[Priority, int]
    #: Payments whose next attempt is due, likewise.
    retries: Mapping[Priority, int]
    #: Whether there are more due payments than were counted.
    is_capped: bool

    @property
    def total(self) -> int:
        """All that waits, as far as it is known."""
        messages = sum((self.messages or {}).values())
        return messages + sum(self.looks.values()) + sum(self.retries.values())


async def read_backlog(runtime: Runtime) -> Backlog:
    """Count what waits.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    queues = {level: f"payments.{level}" for level in Priority}
    ready = await ready_messages(runtime.core.redis, list(queues.values()))
    async with runtime.core.database.connection() as connection:
        now = runtime.core.clock()
        looks = await backlog_store.count_due_looks(connection, now)
        retries = await backlog_store.count_due_retries(connection, now)
    counted = [*looks.values(), *retries.values()]
    return Backlog(
        messages=None if ready is None else {level: ready[queues[level]] for level in Priority},
        looks=looks,
        retries=retries,
        is_capped=any(count >= backlog_store.COUNTED_MAX for count in counted),
    )
