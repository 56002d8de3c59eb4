"""A real Dramatiq worker on a real Redis: wake-up, poison, outages, stop."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import dramatiq.worker
import orjson
import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.local.ports import free_port
from deploy.local.redis_server import RedisServer
from shared.messaging import broker as broker_module
from shared.messaging import redis_client
from shared.messaging import worker as worker_module
from shared.messaging.broker import SluiceBroker, declare_actor
from shared.messaging.doors import Door
from shared.messaging.envelope import encode_batch
from shared.messaging.publisher import Publisher
from shared.messaging.redis_client import publisher_client
from shared.messaging.worker import PREFETCH, STOP_SECONDS, THREADS, QueueWorker
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import key_of, outgoing

GRANTS = "enrollment.grants"


@dataclass
class Taking:
    """Takes what the actor receives, and notes when."""

    is_roomy: bool = True
    at: list[float] = field(default_factory=list)
    arguments: list[Mapping[str, Any]] = field(default_factory=list)
    notify: Callable[[], None] = field(init=False)

    def has_room(self, _queue: str) -> bool:
        return self.is_roomy

    def call_when_roomy(self, _queue: str, notify: Callable[[], None]) -> None:
        self.notify = notify

    def make_room(self) -> None:
        self.is_roomy = True
        self.notify()

    def accept(self, queue: str, arguments: dict[str, Any]) -> None:
        assert queue == GRANTS
        self.at.append(time.perf_counter())
        self.arguments.append(arguments)

    @property
    def ids(self) -> list[int]:
        return [item["id"] for each in self.arguments for item in each["batch"]["items"]]

    async def until(self, count: int) -> None:
        async def taken() -> bool:
            return len(self.ids) >= count

        await eventually(taken)


@dataclass
class Working:
    taking: Taking
    worker: QueueWorker
    publisher: Publisher
    redis: redis.asyncio.Redis
    broker: SluiceBroker

    async def send(self, *ids: int) -> None:
        items = [outgoing(id_, payment_succeeded(f"pay_{id_}")) for id_ in ids]
        assert await self.publisher.send(items)

    async def push(self, body: bytes, message_id: str) -> None:
        await self.redis.hset(f"{key_of(GRANTS)}.msgs", message_id, body)
        await self.redis.rpush(key_of(GRANTS), message_id)

    def consumer_thread(self) -> threading.Thread:
        return self.worker._worker.consumers[GRANTS]

    async def until_dead(self, message_id: str) -> None:
        async def dead() -> bool:
            return await self.redis.zscore(f"{key_of(GRANTS)}.XQ", message_id) is not None

        await eventually(dead)


@asynccontextmanager
async def working(url: str, *, is_started: bool = True) -> AsyncIterator[Working]:
    broker = SluiceBroker(url, "enrollment", connections_max=20)
    taking = Taking()
    door = Door(asyncio.get_running_loop(), taking, GRANTS)
    declare_actor(broker, door, queue=GRANTS, priority=0)
    worker = QueueWorker(broker)
    client = publisher_client(url)
    publisher = Publisher(client, "payments")
    if is_started:
        worker.start()
    try:
        yield Working(taking, worker, publisher, client, broker)
    finally:
        taking.make_room()
        await worker.stop()
        await publisher.close()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stop take less than the seconds that idle threads wait."""
    monkeypatch.setattr(broker_module, "BLOCK_SECONDS", 0.2)
    monkeypatch.setattr(worker_module, "IDLE_MS", 100)


async def test_a_message_reaches_an_idle_worker_within_a_few_milliseconds(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_module, "BLOCK_SECONDS", redis_client.BLOCK_SECONDS)
    monkeypatch.setattr(worker_module, "IDLE_MS", 1_000)
    async with working(redis_url) as world:
        waits = []
        for number in range(1, 21):
            sent_at = time.perf_counter()
            await world.send(number)
            await world.taking.until(number)
            waits.append(world.taking.at[-1] - sent_at)

    # Polling consumers take 40 to 500 ms. The bound leaves room for a busy machine.
    assert statistics.median(waits) < 0.025


async def test_many_messages_are_taken_once_each(redis_url: str) -> None:
    async with working(redis_url) as world:
        for start in range(0, 3_000, 300):
            await world.send(*range(start, start + 300))
        await world.taking.until(3_000)

    assert sorted(world.taking.ids) == list(range(3_000))


async def test_what_is_done_leaves_redis_once_the_queue_is_quiet(redis_url: str) -> None:
    async with working(redis_url) as world:
        await world.send(*range(5))
        await world.taking.until(5)

        async def gone() -> bool:
            return await world.redis.hlen(f"{key_of(GRANTS)}.msgs") == 0

        await eventually(gone)
        acks = f"{world.broker.namespace}:__acks__.{world.broker.broker_id}.{GRANTS}"
        assert await world.redis.scard(acks) == 0


async def test_what_is_done_leaves_redis_at_a_stop(redis_url: str) -> None:
    async with working(redis_url) as world:
        await world.send(*range(5))
        await world.taking.until(5)

    with redis.Redis.from_url(redis_url) as client:
        assert client.hlen(f"{key_of(GRANTS)}.msgs") == 0
        assert list(client.scan_iter("*__acks__*")) == []


async def test_a_full_receiver_leaves_the_rest_in_redis(redis_url: str) -> None:
    async with working(redis_url) as world:
        world.taking.is_roomy = False
        for number in range(100):
            await world.send(number)
        heard_at = world.broker.heard_at

        async def waits_at_the_door() -> bool:
            """Tell whether the consumer showed Redis twice that it lives, without a fetch."""
            nonlocal heard_at
            is_new, heard_at = world.broker.heard_at > heard_at, world.broker.heard_at
            return is_new and heard_at > time.monotonic() - 1

        await eventually(waits_at_the_door)
        await eventually(waits_at_the_door)
        # What it was waiting for in Redis when the room ran out.
        assert len(world.taking.ids) <= PREFETCH
        assert await world.redis.llen(key_of(GRANTS)) >= 100 - PREFETCH
        world.taking.make_room()
        await world.taking.until(100)


async def test_a_stop_gives_fetched_messages_back(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Door, "hand_over", lambda *_: go_on.wait(20))
        await _stop_with_messages_fetched(redis_url)
    go_on.set()

    async with working(redis_url) as second:
        await second.taking.until(30 - THREADS)
        assert set(second.taking.ids) <= set(range(30))


async def _stop_with_messages_fetched(redis_url: str) -> None:
    async with working(redis_url) as world:
        for number in range(30):
            await world.send(number)

        async def fetched() -> bool:
            return await world.redis.llen(key_of(GRANTS)) < 30

        await eventually(fetched)
        await world.worker.stop()


def spoiled(change: Callable[[dict[str, Any]], Any]) -> bytes:
    _, body = encode_batch(GRANTS, "payments", [outgoing(99, payment_succeeded())])
    fields = orjson.loads(body)
    change(fields)
    return orjson.dumps(fields)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xff\x00 not json", id="no JSON"),
        pytest.param(b"[]", id="no object"),
        pytest.param(spoiled(lambda fields: fields.pop("kwargs")), id="a field is missing"),
        pytest.param(spoiled(lambda fields: fields.update(more=1)), id="a field too many"),
        pytest.param(spoiled(lambda fields: fields.update(options=None)), id="no options"),
        pytest.param(spoiled(lambda fields: fields.update(options={})), id="no id in the options"),
        pytest.param(spoiled(lambda fields: fields.update(kwargs=[])), id="no arguments"),
        pytest.param(spoiled(lambda fields: fields.update(queue_name="x")), id="another queue"),
    ],
)
async def test_a_body_that_cannot_be_used_ends_in_the_dead_letters_and_its_neighbours_go_on(
    redis_url: str, body: bytes
) -> None:
    async with working(redis_url, is_started=False) as world:
        await world.send(1)
        await world.push(body, "poison")
        await world.send(2)
        world.worker.start()
        await world.taking.until(2)
        assert world.taking.ids == [1, 2]

        await world.until_dead("poison")
        await world.send(3)
        await world.taking.until(3)
        assert world.worker.problems() == []


async def test_a_message_for_an_unknown_actor_ends_in_the_dead_letters(redis_url: str) -> None:
    async with working(redis_url) as world:
        body = spoiled(lambda fields: fields.update(actor_name="x"))
        message_id = orjson.loads(body)["message_id"]
        await world.push(body, message_id)
        await world.until_dead(message_id)
        await world.send(1)
        await world.taking.until(1)


async def test_a_time_out_of_redis_ends_no_consumer_thread(
    redis_url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed_out = threading.Event()

    class Impatient(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            try:
                return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
            except redis.TimeoutError:
                timed_out.set()
                raise

    def impatient_client(url: str, _key: str, *, connections_max: int) -> redis.Redis:
        return Impatient.from_url(
            url, socket_timeout=0.3, retry=Retry(NoBackoff(), 0), max_connections=connections_max
        )

    monkeypatch.setattr(broker_module, "consumer_client", impatient_client)
    monkeypatch.setattr(broker_module, "BLOCK_SECONDS", 0.1)
    monkeypatch.setattr(dramatiq.worker, "CONSUMER_RESTART_DELAY_SECS", 0.1)
    async with working(redis_url) as world:
        await world.send(1)
        await world.taking.until(1)
        thread = world.consumer_thread()
        redis_server.pause()
        try:

            async def has_timed_out() -> bool:
                return timed_out.is_set()

            await eventually(has_timed_out)
        finally:
            redis_server.resume()

        async def sent() -> bool:
            return await world.publisher.send([outgoing(2, payment_succeeded())])

        await eventually(sent)
        await world.taking.until(2)
        assert world.worker.problems() == []
        assert world.consumer_thread() is thread
        assert thread.is_alive()


async def test_after_redis_was_wiped_messages_arrive_as_before(redis_url: str) -> None:
    async with working(redis_url) as world:
        await world.send(1)
        await world.taking.until(1)
        await world.redis.flushdb()
        await world.redis.script_flush()
        await world.send(2)
        await world.taking.until(2)
        assert world.worker.problems() == []


async def test_a_worker_that_cannot_reach_redis_at_boot_fails_at_once() -> None:
    broker = SluiceBroker(f"redis://127.0.0.1:{free_port()}/0", "enrollment", connections_max=5)
    started = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        QueueWorker(broker).start()
    assert time.monotonic() - started < 3


async def test_a_worker_that_redis_does_not_answer_at_boot_fails_soon(
    redis_url: str, redis_server: RedisServer
) -> None:
    broker = SluiceBroker(redis_url, "enrollment", connections_max=5)
    redis_server.pause()
    try:
        with pytest.raises(redis.TimeoutError):
            await asyncio.to_thread(QueueWorker(broker).start)
    finally:
        redis_server.resume()


async def test_a_stop_is_bounded_while_redis_hangs_and_may_be_repeated(
    redis_url: str, redis_server: RedisServer
) -> None:
    async with working(redis_url) as world:
        await world.send(1)
        await world.taking.until(1)
        redis_server.pause()
        try:
            started = time.monotonic()
            await world.worker.stop()
            await world.worker.stop()
            assert time.monotonic() - started < STOP_SECONDS + 1
        finally:
            redis_server.resume()
        assert world.worker.problems() == [], "a worker that stops has no problems"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_the_death_of_a_consumer_thread_is_a_problem_with_its_name(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with working(redis_url) as world:
        assert world.worker.problems() == []
        thread = world.consumer_thread()

        def break_down(_self: object) -> None:
            raise SystemExit  # Ends a thread without a word, as nothing else of ours does.

        monkeypatch.setattr(broker_module._WakefulConsumer, "__next__", break_down)
        await asyncio.to_thread(thread.join, 10)
        assert f"consumer of {GRANTS} is dead" in world.worker.problems()


async def test_a_worker_thread_that_dies_is_a_problem(redis_url: str) -> None:
    async with working(redis_url) as world:
        victim = world.worker._worker.workers[0]
        victim.stop()
        await asyncio.to_thread(victim.join, 10)
        assert world.worker.problems() == ["a worker thread is dead"]


async def test_a_redis_that_forgot_dramatiq_s_script_is_told_it_again(redis_url: str) -> None:
    async with working(redis_url) as world:
        await world.send(1)
        await world.taking.until(1)
        await world.redis.script_flush()  # As after a restart.

        await world.send(2)
        await world.taking.until(2)

        assert world.taking.ids == [1, 2]
        assert world.worker.problems() == []
