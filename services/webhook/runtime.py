"""What the webhook service's handlers need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.webhook import metrics, store
from services.webhook.store import InboundEvent
from shared.batching import Batcher
from shared.contracts.priorities import THRESHOLDS, Thresholds
from shared.gateways.interface import NoticeReader
from shared.process import Core


@dataclass(frozen=True, slots=True)
class Runtime:
    """The core, the readers of each gateway, and the one way into the inbox."""

    core: Core
    readers: Mapping[str, NoticeReader]
    inbox: Batcher[InboundEvent, None]


def make_runtime(
    core: Core,
    readers: Mapping[str, NoticeReader],
    thresholds: Mapping[str, Thresholds] = THRESHOLDS,
) -> Runtime:
    """Put together what handlers need."""

    async def commit(events: Sequence[InboundEvent]) -> Sequence[None]:
        """Store a batch in one commit, then publish what was new."""
        different = {
            (event.gateway, event.notice.event_key, event.notice.event_day): event
            for event in events
        }
        async with core.database.connection() as connection:
            outgoing = await store.insert_events(connection, list(different.values()), thresholds)
        core.publisher.publish(outgoing)
        metrics.RECEIVED.labels("new").inc(len(outgoing))
        metrics.RECEIVED.labels("duplicate").inc(len(events) - len(outgoing))
        return [None] * len(events)

    return Runtime(core, readers, Batcher(commit))
