"""Messages go on when Redis is another server than a moment ago: Sentinel, and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from shared import metrics
from shared.messaging.broker import SluiceBroker, declare_actor
from shared.messaging.doors import Door
from shared.messaging.publisher import Publisher, namespace
from shared.messaging.queue_metrics import measure_memory, measure_queues
from shared.messaging.redis_client import publisher_client
from shared.messaging.worker import QueueWorker
from shared.process import _client_of, open_core
from tests.support.messages import payment_succeeded
from tests.support.moving_redis import SLOTS, clustered_redis, watched_redis
from tests.support.polling import eventually
from tests.support.queues import outgoing, receipts_for
from tests.support.settings import service_settings

GRANTS = "enrollment.grants"

#: Sentinels and nodes must notice, agree and tell; a busy machine takes its time for each.
FAILOVER_SECONDS = 40.0


@dataclass
class Taking:
    """Takes everything that the worker fetches."""

    ids: set[int] = field(default_factory=set)

    def has_room(self, _queue: str) -> bool:
        return True

    def call_when_roomy(self, _queue: str, notify: Callable[[], None]) -> None:
        """Never full."""

    def accept(self, _queue: str, arguments: Mapping[str, Any]) -> None:
        self.ids.update(item["id"] for item in arguments["batch"]["items"])


@dataclass
class Working:
    """A worker of enrollment and a publisher of webhook, whose keys are on another node."""

    taking: Taking
    publisher: Publisher

    async def carry(self, id_: int) -> None:
        """Send a message until Redis takes it, as a relay does, and wait until it is taken up."""

        async def sent() -> bool:
            return await self.publisher.send([outgoing(id_, payment_succeeded(f"pay_{id_}"))])

        async def taken() -> bool:
            return id_ in self.taking.ids

        await eventually(sent, timeout_seconds=FAILOVER_SECONDS)
        await eventually(taken, timeout_seconds=FAILOVER_SECONDS)


@asynccontextmanager
async def working(url: str) -> AsyncIterator[Working]:
    broker = SluiceBroker(url, "enrollment", connections_max=20)
    taking = Taking()
    door = Door(asyncio.get_running_loop(), taking, GRANTS)
    declare_actor(broker, door, queue=GRANTS, priority=0)
    worker = QueueWorker(broker)
    client = publisher_client(url, namespace("webhook"))
    publisher = Publisher(client, "webhook", _client_of(url) if "cluster" in url else None)
    worker.start()
    try:
        yield Working(taking, publisher)
    finally:
        await worker.stop()
        await publisher.close()


async def test_messages_go_on_when_the_server_that_sentinels_watch_dies(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as servers:
        async with working(servers.url) as world:
            await world.carry(1)
            before = servers.master()
            before.kill()
            await world.carry(2)
            assert servers.master() is not before


async def test_a_sentinel_that_is_away_is_not_needed(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as servers:
        servers.sentinels[0].kill()
        async with working(servers.url) as world:
            await world.carry(1)


async def test_messages_go_on_when_the_server_becomes_a_replica(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as servers:
        async with working(servers.url) as world:
            await world.carry(1)
            before = servers.master()
            servers.sentinels[0].ask("SENTINEL FAILOVER", "sluice")

            async def moved() -> bool:
                return servers.master() is not before

            await eventually(moved, timeout_seconds=FAILOVER_SECONDS)
            await world.carry(2)


async def test_a_core_stands_on_a_cluster(tmp_path: Path, new_database: str) -> None:
    with clustered_redis(tmp_path, namespace("enrollment")) as servers:
        settings = service_settings(servers.url)
        async with open_core(settings, "enrollment", new_database) as core:
            assert await core.ping_redis()
            core.publisher.confirm("webhook", 7)
            core.publisher.confirm("payments", 8)
            for sender, id_ in (("webhook", 7), ("payments", 8)):
                async with publisher_client(servers.url, namespace(sender)) as client:

                    async def told(client: Any = client, sender: str = sender) -> list[int]:
                        return await receipts_for(client, sender)

                    assert await eventually(told) == [id_]
            metrics.QUEUE_MESSAGES.labels(GRANTS, "ready").set(-1)
            metrics.REDIS_MEMORY.labels("used").set(-1)
            await measure_queues(core.redis, [GRANTS])
            await measure_memory(core.redis)
            assert metrics.REDIS_MEMORY.labels("used")._value.get() > 0
            assert metrics.QUEUE_MESSAGES.labels(GRANTS, "ready")._value.get() == 0


def test_sender_and_receiver_are_on_different_nodes_of_the_cluster() -> None:
    slots = [key_slot(namespace(name).encode()) for name in ("enrollment", "webhook")]

    assert len({slot * 3 // SLOTS for slot in slots}) == 2


async def test_messages_go_on_when_a_node_of_the_cluster_dies(tmp_path: Path) -> None:
    with clustered_redis(tmp_path, namespace("enrollment")) as servers:
        async with working(servers.url) as world:
            await world.carry(1)
            servers.masters[0].kill()
            await world.carry(2)


async def test_messages_follow_their_slot_to_another_node(tmp_path: Path) -> None:
    with clustered_redis(tmp_path, namespace("enrollment")) as servers:
        async with working(servers.url) as world:
            await world.carry(1)
            source, target = servers.masters[:2]
            servers.move(key_slot(namespace("enrollment").encode()), source, target)

            async def moved() -> bool:
                return "sluice.enrollment" in str(target.ask("KEYS", "*"))

            await eventually(moved, timeout_seconds=FAILOVER_SECONDS)
            await world.carry(2)


@pytest.mark.parametrize("family", ["sentinel", "cluster"])
async def test_a_worker_that_finds_no_server_does_not_start(family: str) -> None:
    path = "/sluice" if family == "sentinel" else ""
    with pytest.raises(redis.ConnectionError, match="nobody says"):
        async with working(f"redis+{family}://127.0.0.1:1{path}"):
            pass
