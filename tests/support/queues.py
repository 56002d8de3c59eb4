"""What lies on the queues in Redis, read without a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import redis.asyncio

from shared.contracts.base import Message
from shared.contracts.subscriptions import SUBSCRIPTIONS, queue_owner, receipts_queue
from shared.messaging.envelope import Outgoing
from shared.messaging.publisher import namespace


def key_of(queue: str) -> str:
    """Return the Redis key of a queue."""
    return f"{namespace(queue_owner(queue))}:{queue}"


async def bodies_on(client: redis.asyncio.Redis, queue: str) -> list[dict[str, Any]]:
    """Return the Dramatiq messages that are ready on a queue, first to last."""
    key = key_of(queue)
    ids = await client.lrange(key, 0, -1)
    return [orjson.loads(await client.hget(f"{key}.msgs", each) or b"") for each in ids]


async def items_on(client: redis.asyncio.Redis, queue: str) -> list[dict[str, Any]]:
    """Return the messages of ours that are ready on a queue, first to last."""
    bodies = await bodies_on(client, queue)
    return [item for body in bodies for item in body["kwargs"]["batch"]["items"]]


async def receipts_for(client: redis.asyncio.Redis, sender: str) -> list[int]:
    """Return the ids that receivers have confirmed to a sender, in their order."""
    bodies = await bodies_on(client, receipts_queue(sender))
    return [id_ for body in bodies for id_ in body["kwargs"]["ids"]]


def batch_of(sender: str, numbered: Sequence[tuple[int, Message]]) -> dict[str, Any]:
    """Return a batch as an actor gets it."""
    return {
        "sender": sender,
        "items": [
            {"id": id_, "name": each.name, "payload": orjson.loads(each.encode()), "trace": None}
            for id_, each in numbered
        ],
    }


def outgoing(id_: int, message: Message) -> Outgoing:
    """Return a message as its sender's outbox would."""
    (subscription,) = SUBSCRIPTIONS[type(message)]
    return Outgoing(id_, subscription.route(message), message.name, message.encode(), None)
