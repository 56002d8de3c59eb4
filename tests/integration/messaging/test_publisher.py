"""The publisher: puts messages on queues at once, and is never an obstacle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
import redis.asyncio
from prometheus_client import REGISTRY

from deploy.local.redis_server import RedisServer
from shared.messaging import publisher as publisher_module
from shared.messaging.envelope import ITEMS_MAX
from shared.messaging.publisher import Publisher
from shared.messaging.redis_client import publisher_client
from shared.process import Core
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import bodies_on, items_on, key_of, outgoing, receipts_for
from tests.support.tcp_proxy import proxied

GRANTS = "enrollment.grants"


def failed_publications() -> float:
    labels = {"queue": GRANTS}
    return REGISTRY.get_sample_value("messages_publications_failed_total", labels) or 0.0


async def test_one_message_is_published_in_one_multi_of_hset_and_rpush(
    payments_core: Core, redis_url: str
) -> None:
    observer = redis.asyncio.Redis.from_url(redis_url)
    async with observer, observer.monitor() as monitor:
        payments_core.publisher.publish([outgoing(1, payment_succeeded())])
        seen: list[str] = []
        async with asyncio.timeout(5):
            while "EXEC" not in seen:
                command = await monitor.next_command()
                if command["command"].split()[0] in {"MULTI", "HSET", "RPUSH", "EXEC"}:
                    seen.append(command["command"].split()[0])

    assert seen == ["MULTI", "HSET", "RPUSH", "EXEC"]
    (body,) = await bodies_on(payments_core.redis, GRANTS)
    assert (body["queue_name"], body["actor_name"]) == (GRANTS, GRANTS)
    assert body["kwargs"]["batch"]["sender"] == "payments"


async def test_many_messages_travel_in_batches_of_at_most_a_hundred_and_none_twice(
    payments_core: Core,
) -> None:
    payments_core.publisher.publish(
        outgoing(number, payment_succeeded(f"pay_{number}")) for number in range(1, 1_234)
    )

    async def arrived() -> bool:
        return len(await items_on(payments_core.redis, GRANTS)) >= 1_233

    await eventually(arrived)
    bodies = await bodies_on(payments_core.redis, GRANTS)
    sizes = [len(body["kwargs"]["batch"]["items"]) for body in bodies]
    assert max(sizes) <= ITEMS_MAX
    assert sum(sizes) == 1_233
    ids = Counter(item["id"] for item in await items_on(payments_core.redis, GRANTS))
    assert set(ids.values()) == {1}
    for body in bodies:
        size = len(body["kwargs"]["batch"]["items"])
        assert body["message_id"].endswith(f".{size}"), "the id says how many it carries"


async def test_receipts_gather_by_sender(payments_core: Core) -> None:
    for number in range(1, 301):
        payments_core.publisher.confirm("webhook" if number % 2 else "payments", number)

    async def arrived() -> bool:
        odd = await receipts_for(payments_core.redis, "webhook")
        even = await receipts_for(payments_core.redis, "payments")
        return (len(odd), len(even)) == (150, 150)

    await eventually(arrived)
    assert len(await bodies_on(payments_core.redis, "webhook.receipts")) <= 3


async def test_while_redis_is_away_nothing_is_raised_the_failure_is_counted_and_it_recovers(
    redis_url: str,
) -> None:
    async with proxied(redis_url) as (proxy, url):
        publisher = Publisher(publisher_client(url), "payments")
        publisher.publish([outgoing(1, payment_succeeded())])
        observer = redis.asyncio.Redis.from_url(redis_url)

        async def first_arrived() -> bool:
            return await observer.llen(key_of(GRANTS)) == 1

        await eventually(first_arrived)
        await proxy.cut()
        failed_before = failed_publications()
        publisher.publish([outgoing(2, payment_succeeded())])
        publisher.confirm("webhook", 1)
        assert not await publisher.send([outgoing(3, payment_succeeded())])

        async def counted() -> bool:
            return failed_publications() == failed_before + 2

        await eventually(counted)
        await proxy.mend()
        assert await publisher.send([outgoing(4, payment_succeeded())]), "at the first try"
        ids = [item["id"] for item in await items_on(observer, GRANTS)]
        assert ids == [1, 4]
        await publisher.close()
        await observer.aclose()


async def test_what_would_wait_for_a_hanging_redis_without_end_is_left_to_the_outbox(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "WAITING_MAX", 10)
    publisher = Publisher(publisher_client(redis_url), "payments")
    failed_before = failed_publications()

    publisher.publish(outgoing(number, payment_succeeded()) for number in range(1, 26))

    assert failed_publications() == failed_before + 15
    await publisher.close()


async def test_a_close_is_bounded_while_redis_hangs_with_thousands_waiting(
    redis_url: str, redis_server: RedisServer
) -> None:
    publisher = Publisher(publisher_client(redis_url), "payments")
    assert await publisher.send([outgoing(1, payment_succeeded())])
    redis_server.pause()
    try:
        publisher.publish(outgoing(number, payment_succeeded()) for number in range(20_000))
        for number in range(20_000):
            publisher.confirm("webhook", number)
        started = time.monotonic()
        await publisher.close()
        assert time.monotonic() - started < 4
    finally:
        redis_server.resume()
