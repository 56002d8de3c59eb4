"""A purge takes what no worker will take up again, and nothing else, also while workers work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq
import pytest

from shared.errors import RedisUnavailableError
from shared.messaging.broker import SluiceBroker
from shared.messaging.publisher import namespace
from shared.messaging.purge import CHECKED_MAX, CHUNK, Purged, purge_queue, purge_queues
from shared.messaging.redis_client import publisher_client
from shared.process import Core
from tests.support.messages import payment_succeeded
from tests.support.queues import bodies_on, key_of, outgoing

GRANTS = "enrollment.grants"
KEY = key_of(GRANTS)
NOTHING = Purged(0, 0)


@contextmanager
def broker_of(redis_url: str) -> Iterator[SluiceBroker]:
    """Make a worker's broker, whose queue only this test consumes."""
    broker = SluiceBroker(redis_url, "enrollment", connections_max=10)
    broker.declare_queue(GRANTS)
    yield broker
    broker.close()


def message(number: int) -> dramatiq.Message[object]:
    return dramatiq.Message(GRANTS, GRANTS, (), {"n": number}, {})


def redis_id(body: bytes) -> str:
    """Return what Redis knows a message by; Dramatiq chooses it when it enqueues."""
    return str(dramatiq.Message.decode(body).options["redis_message_id"])


async def test_dead_letters_go_with_their_bodies(payments_core: Core) -> None:
    count = CHUNK + 3
    await payments_core.redis.zadd(f"{KEY}.XQ", {f"d{n}": time.time() for n in range(count)})
    for field in (*(f"d{n}" for n in range(count)), "alone"):
        await payments_core.redis.hset(f"{KEY}.XQ.msgs", field, b"{}")

    assert await purge_queue(payments_core.redis, GRANTS) == Purged(count, 1)

    assert await payments_core.redis.exists(f"{KEY}.XQ", f"{KEY}.XQ.msgs") == 0
    assert await purge_queue(payments_core.redis, GRANTS) == NOTHING


async def test_a_batch_that_dramatiq_gave_up_is_a_dead_letter(
    payments_core: Core, redis_url: str
) -> None:
    with broker_of(redis_url) as broker:
        broker.enqueue(message(1))
        (body,) = await asyncio.to_thread(broker.do_fetch, GRANTS, 10)
        await asyncio.to_thread(broker.do_nack, GRANTS, redis_id(body))

    assert await purge_queue(payments_core.redis, GRANTS) == Purged(1, 0)


@pytest.mark.parametrize("suffix", ["", ".DQ"])
async def test_bodies_without_a_place_are_orphans(payments_core: Core, suffix: str) -> None:
    count = CHECKED_MAX * 2 + 1
    for number in range(count):
        await payments_core.redis.hset(f"{KEY}{suffix}.msgs", f"o{number}", b"{}")

    assert await purge_queue(payments_core.redis, GRANTS) == Purged(0, count)


async def test_what_waits_and_what_a_worker_has_fetched_stays(
    payments_core: Core, redis_url: str
) -> None:
    items = [outgoing(number, payment_succeeded()) for number in range(150)]
    assert await payments_core.publisher.send(items)
    with broker_of(redis_url) as broker:
        fetched = await asyncio.to_thread(broker.do_fetch, GRANTS, 1)
        assert len(fetched) == 1
        await payments_core.redis.hset(f"{KEY}.msgs", "orphan", b"{}")

        assert await purge_queue(payments_core.redis, GRANTS) == Purged(0, 1)

        assert len(await payments_core.redis.hkeys(f"{KEY}.msgs")) == 2
        assert len(await bodies_on(payments_core.redis, GRANTS)) == 1


async def test_nothing_is_lost_while_messages_move_from_place_to_place(
    payments_core: Core, redis_url: str
) -> None:
    """They go from the queue to a worker, back, and to the queue again, all the time."""
    with broker_of(redis_url) as broker:
        for number in range(40):
            broker.enqueue(message(number))

        def move() -> None:
            for _ in range(150):
                fetched = broker.do_fetch(GRANTS, 15)
                broker.do_requeue(GRANTS, *map(redis_id, filter(None, fetched)))

        moving = asyncio.create_task(asyncio.to_thread(move))
        found = []
        while not moving.done():
            found.append(await purge_queue(payments_core.redis, GRANTS))
            await asyncio.sleep(0)
        await moving

    assert len(found) > 1
    assert set(found) == {NOTHING}
    assert len(await bodies_on(payments_core.redis, GRANTS)) == 40


async def test_other_services_keys_are_not_touched(payments_core: Core) -> None:
    other = f"{namespace('webhook')}:webhook.checkouts.msgs"
    await payments_core.redis.hset(other, "orphan", b"{}")

    assert await purge_queues(payments_core.redis, [GRANTS]) == {GRANTS: NOTHING}

    assert await payments_core.redis.hlen(other) == 1


async def test_without_redis_it_says_so() -> None:
    client = publisher_client("redis://127.0.0.1:1/0")

    with pytest.raises(RedisUnavailableError):
        await purge_queue(client, GRANTS)
