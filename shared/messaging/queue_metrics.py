"""How long each queue is, and how full Redis, measured when Prometheus asks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

import orjson
import redis.asyncio
import structlog

from shared import metrics
from shared.contracts.subscriptions import queue_owner
from shared.messaging.envelope import items_in
from shared.messaging.publisher import namespace
from shared.messaging.redis_client import UNAVAILABLE

log = structlog.get_logger()

#: Ids read to count the messages of a queue; the rest is taken to be like these.
IDS_READ_MAX: Final = 5_000


async def measure_queues(client: redis.asyncio.Redis, queues: Iterable[str]) -> None:
    """Set the gauges of the queues; when Redis is away they keep their last value."""
    for queue in queues:
        key = f"{namespace(queue_owner(queue))}:{queue}"
        try:
            async with client.pipeline(transaction=True) as pipe:
                pipe.llen(key)
                pipe.lrange(key, 0, IDS_READ_MAX - 1)
                pipe.hkeys(f"{key}.msgs")
                pipe.hlen(f"{key}.DQ.msgs")
                pipe.zcard(f"{key}.XQ")
                length, ready_ids, all_ids, delayed, dead = await pipe.execute()
            oldest = await client.hget(f"{key}.msgs", ready_ids[0]) if ready_ids else None
        except UNAVAILABLE as error:
            log.warning("queues_not_measured", error=type(error).__name__)
            return
        ready = _ready(length, ready_ids)
        gauge = metrics.QUEUE_MESSAGES
        gauge.labels(queue, "ready").set(ready)
        gauge.labels(queue, "in_flight").set(max(0, _count(all_ids) - ready))
        gauge.labels(queue, "delayed").set(delayed)
        gauge.labels(queue, "dead").set(dead)
        metrics.QUEUE_OLDEST_AGE.labels(queue).set(_age_seconds(oldest))


async def measure_memory(client: redis.asyncio.Redis) -> None:
    """Set the gauges of Redis's memory; when it is away, or tells us not, they keep their value."""
    try:
        memory = await client.info("memory")
    except UNAVAILABLE as error:
        log.debug("memory_not_measured", error=type(error).__name__)
        return
    # A Cluster answers for each of its nodes.
    nodes = [memory] if "used_memory" in memory else list(memory.values())
    metrics.REDIS_MEMORY.labels("used").set(sum(node["used_memory"] for node in nodes))
    metrics.REDIS_MEMORY.labels("limit").set(sum(node["maxmemory"] for node in nodes))


async def ready_messages(
    client: redis.asyncio.Redis, queues: Sequence[str]
) -> dict[str, int] | None:
    """Count the messages that nobody has taken, by queue; None when Redis is away."""
    try:
        async with client.pipeline(transaction=False) as pipe:
            for queue in queues:
                key = f"{namespace(queue_owner(queue))}:{queue}"
                pipe.llen(key)
                pipe.lrange(key, 0, IDS_READ_MAX - 1)
            answers = await pipe.execute()
    except UNAVAILABLE as error:
        log.warning("queues_not_measured", error=type(error).__name__)
        return None
    return {
        queue: _ready(length, ids)
        for queue, length, ids in zip(queues, answers[::2], answers[1::2], strict=True)
    }


def _ready(length: int, first_ids: Sequence[bytes]) -> int:
    """Return how many messages a queue holds, from the first of its ids."""
    return round(_count(first_ids) * (length / len(first_ids) if first_ids else 1))


def _count(ids: Iterable[bytes]) -> int:
    return sum(items_in(message_id.decode()) for message_id in ids)


def _age_seconds(body: bytes | str | None) -> float:
    if body is None:
        return 0.0
    try:
        return max(0.0, time.time() - float(orjson.loads(body)["message_timestamp"]) / 1000)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0.0
