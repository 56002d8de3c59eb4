"""Clears Redis of what no worker will take up again: dead letters of Dramatiq, orphaned bodies.

Neither holds anything that is not in PostgreSQL. A batch among Dramatiq's dead letters could not be
admitted, so no receipt was sent, and its messages were sent again by the outbox. Taking an orphan
for one wrongly would cost no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio

from shared.contracts.subscriptions import queue_owner
from shared.errors import RedisUnavailableError
from shared.messaging.publisher import namespace
from shared.messaging.redis_client import UNAVAILABLE

#: Ids that one command handles: Redis serves nobody else meanwhile.
CHUNK: Final = 500

#: Bodies that one atomic look checks. Each is looked for in the queue's list from end to end.
CHECKED_MAX: Final = 50

# A body belongs to a message that waits or that a worker has fetched; moving from one to the other
# is atomic too, so a body that is in neither place is an orphan. The sets of what workers have
# fetched come and go with their content, so those of live workers are named here, in the same
# atomic step, and only those of dead ones before it. All keys are of one slot.
_DELETE_ORPHANS: Final = """
    local fetched = {}
    for i = 4, #KEYS do
        fetched[#fetched + 1] = KEYS[i]
    end
    for _, worker in ipairs(redis.call('zrange', KEYS[3], 0, -1)) do
        fetched[#fetched + 1] = ARGV[1] .. worker .. ARGV[2]
    end
    local deleted = 0
    for i = 3, #ARGV do
        local id = ARGV[i]
        local found = redis.call('lpos', KEYS[1], id)
        for _, key in ipairs(fetched) do
            found = found or (redis.call('sismember', key, id) == 1)
        end
        if not found then
            deleted = deleted + redis.call('hdel', KEYS[2], id)
        end
    end
    return deleted
"""


@dataclass(frozen=True, slots=True)
class Purged:
    """What was cleared from one queue."""

    dead_letters: int
    orphaned_bodies: int


async def purge_queue(client: redis.asyncio.Redis, queue: str) -> Purged:
    """Clear one queue. Safe while its workers work, and to repeat.

    Raises:
        RedisUnavailableError: Redis is away; what was cleared until then is gone.
    """
    prefix = namespace(queue_owner(queue))
    try:
        dead = await _purge_dead(client, f"{prefix}:{queue}.XQ")
        orphans = await _purge_without_id(client, f"{prefix}:{queue}.XQ")
        for name in (queue, f"{queue}.DQ"):
            orphans += await _purge_orphans(client, prefix, name)
    except UNAVAILABLE as error:
        problem = f"Redis did not answer ({type(error).__name__})"
        raise RedisUnavailableError(problem) from error
    return Purged(dead, orphans)


async def _purge_dead(client: redis.asyncio.Redis, key: str) -> int:
    purged = 0
    while ids := _texts(await client.zrange(key, 0, CHUNK - 1)):
        async with client.pipeline(transaction=True) as pipe:
            pipe.hdel(f"{key}.msgs", *ids)
            pipe.zrem(key, *ids)
            purged += (await pipe.execute())[1]
    return purged


async def _purge_without_id(client: redis.asyncio.Redis, key: str) -> int:
    """Delete bodies of dead letters whose id went alone; Dramatiq writes and takes both at once."""
    purged = 0
    for ids in _chunks(_texts(await client.hkeys(f"{key}.msgs")), CHUNK):
        scores = await client.zmscore(key, list(ids))
        alone = [id_ for id_, score in zip(ids, scores, strict=True) if score is None]
        if alone:
            purged += await client.hdel(f"{key}.msgs", *alone)
    return purged


async def _purge_orphans(client: redis.asyncio.Redis, prefix: str, name: str) -> int:
    key = f"{prefix}:{name}"
    async with client.pipeline(transaction=True) as pipe:
        pipe.hkeys(f"{key}.msgs")
        pipe.lrange(key, 0, -1)
        bodies, waiting = map(_texts, await pipe.execute())
    # Most bodies are of messages that wait; only the others are worth an atomic look.
    known = set(waiting)
    doubtful = [id_ for id_ in bodies if id_ not in known]
    if not doubtful:
        return 0
    pattern = f"{_literal(prefix)}:__acks__.*.{_literal(name)}"
    dead = _texts([each async for each in client.scan_iter(match=pattern)])
    keys = [key, f"{key}.msgs", f"{prefix}:__heartbeats__", *dead]
    purged = 0
    for ids in _chunks(doubtful, CHECKED_MAX):
        around = (f"{prefix}:__acks__.", f".{name}")  # A worker's id, in the name of its set.
        answer: Any = client.eval(_DELETE_ORPHANS, len(keys), *keys, *around, *ids)
        purged += int(await answer)
    return purged


def _texts(values: Iterable[Any]) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


def _chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (ids[first : first + size] for first in range(0, len(ids), size))


def _literal(text: str) -> str:
    """Write a text so that a pattern of Redis means it as it is."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in text)


async def purge_queues(client: redis.asyncio.Redis, queues: Iterable[str]) -> dict[str, Purged]:
    """Clear several queues; see `purge_queue`."""
    return {queue: await purge_queue(client, queue) for queue in queues}
