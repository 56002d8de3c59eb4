"""A receiver whose handler does what the test says."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from prometheus_client import REGISTRY

from shared.contracts.payments import PaymentSucceeded
from shared.messaging.receiver import CAPACITY, Delivery, Receiver
from shared.process import Core
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for

GRANTS = "enrollment.grants"

Deliveries = Sequence[Delivery[PaymentSucceeded]]


@dataclass
class Handling:
    """A handler that notes what it gets and does what the test says."""

    act: Callable[[Deliveries], Awaitable[None]] | None = None
    calls: list[list[int]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def __call__(self, deliveries: Sequence[Delivery[Any]]) -> None:
        self.calls.append([delivery.id for delivery in deliveries])
        self.at.append(time.monotonic())
        if self.act is not None:
            await self.act(deliveries)


@dataclass
class Receiving:
    core: Core
    receiver: Receiver
    handling: Handling

    async def receive(self, *ids: int, sender: str = "payments") -> None:
        numbered = [(id_, payment_succeeded(f"pay_{id_}")) for id_ in ids]
        self.receiver.accept(GRANTS, {"batch": batch_of(sender, numbered)})

    async def until_confirmed(self, *ids: int) -> list[int]:
        async def confirmed() -> list[int]:
            receipts = await receipts_for(self.core.redis, "payments")
            return receipts if set(ids) <= set(receipts) else []

        return await eventually(confirmed)

    async def dead_letters(self) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch("SELECT * FROM dead_letter ORDER BY message_id")

    async def until_buried(self, count: int) -> list[asyncpg.Record]:
        async def buried() -> list[asyncpg.Record]:
            letters = await self.dead_letters()
            return letters if len(letters) >= count else []

        return await eventually(buried)


@asynccontextmanager
async def receiving(
    core: Core,
    act: Callable[[Deliveries], Awaitable[None]] | None = None,
    *,
    capacity: int = CAPACITY,
) -> AsyncIterator[Receiving]:
    handling = Handling(act)
    receiver = Receiver(
        core.database, core.publisher, {PaymentSucceeded: handling}, capacity=capacity
    )
    yield Receiving(core, receiver, handling)
    await receiver.close()


def handled(outcome: str) -> float:
    labels = {"message": PaymentSucceeded.name, "outcome": outcome}
    return REGISTRY.get_sample_value("messages_handled_total", labels) or 0.0


def in_hand() -> float:
    return REGISTRY.get_sample_value("messages_in_hand", {"service": "enrollment"}) or 0.0


async def nobody_in_hand() -> bool:
    return in_hand() == 0
