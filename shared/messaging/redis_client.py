"""Redis clients: one kind that gives up quickly, one that never does.

Each takes a `REDIS_URL` of any form, and in a cluster reaches one slot: that of `key`.
"""

from __future__ import annotations

from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from shared.messaging import moving_redis
from shared.messaging.redis_address import parse_redis_address

#: A publisher's patience. The outbox is its fallback, so nobody waits for Redis.
PUBLISH_TIMEOUT_SECONDS: Final = 0.5

#: Longest blocking read of a consumer; also the beat of its heartbeat.
BLOCK_SECONDS: Final = 1.0

#: What redis-py raises when the server is away. The last two come from a connection that was just
#: reset under it (redis-py 8.1, the RuntimeError with uvloop).
UNAVAILABLE: Final = (redis.RedisError, OSError, TimeoutError, AttributeError, RuntimeError)


def publisher_client(url: str, key: str = "") -> redis.asyncio.Redis:
    """Return an asynchronous client with short time-outs and no retries."""
    options: dict[str, Any] = {
        "socket_timeout": PUBLISH_TIMEOUT_SECONDS,
        "socket_connect_timeout": PUBLISH_TIMEOUT_SECONDS,
        # Explicit, because the default of ten retries makes a time-out of 1 s last 15 s.
        "retry": AsyncRetry(NoBackoff(), 0),
        "max_connections": 20,
    }
    address = parse_redis_address(url)
    if address.arrangement != "server":
        return moving_redis.async_client(address, key, options)
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, **options)
    return client


def is_cluster(url: str) -> bool:
    """Tell whether clients of different services are different ones."""
    return parse_redis_address(url).arrangement == "cluster"


def consumer_client(url: str, key: str = "", *, connections_max: int) -> redis.Redis:
    """Return a synchronous client that retries for ever.

    With a bounded retry Dramatiq acknowledges a message whose redelivery it could not enqueue, and
    leaves others in the set of a worker that lives on; both were reproduced.
    """
    return _blocking_client(
        url,
        key,
        socket_timeout=BLOCK_SECONDS + 4,
        socket_connect_timeout=2,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1), retries=-1),
        max_connections=connections_max,
    )


def probing_client(url: str, key: str = "") -> redis.Redis:
    """Return a synchronous client that tells soon whether Redis answers."""
    return _blocking_client(
        url, key, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )


def _blocking_client(url: str, key: str, **options: Any) -> redis.Redis:
    address = parse_redis_address(url)
    if address.arrangement != "server":
        return moving_redis.blocking_client(address, key, options)
    client: redis.Redis = redis.Redis.from_url(url, **options)
    return client
