"""The worker side as a whole: from a sender's outbox to a receiver and back by a receipt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import redis
from prometheus_client import REGISTRY

from deploy.local.ports import free_port
from deploy.local.redis_server import RedisServer
from shared.contracts.payments import PaymentSucceeded
from shared.contracts.subscriptions import queues_of, receipts_queue
from shared.contracts.webhook import NoticeReceived
from shared.messaging import broker as broker_module
from shared.messaging import outbox
from shared.messaging import receiver as receiver_module
from shared.messaging import worker as worker_module
from shared.messaging.consumption import consume
from shared.messaging.envelope import ITEMS_MAX, encode_receipt
from shared.messaging.receiver import Delivery
from shared.messaging.worker import THREADS
from shared.process import Core, Part, open_core
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import key_of
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied

PAYMENT_QUEUES = dict.fromkeys(queues_of("payments") - {receipts_queue("payments")}, 0)

Deliveries = Sequence[Delivery[Any]]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a stop take less than the seconds that idle threads wait."""
    monkeypatch.setattr(broker_module, "BLOCK_SECONDS", 0.2)
    monkeypatch.setattr(worker_module, "IDLE_MS", 100)


async def ignore(_deliveries: Deliveries) -> None:
    pass


@asynccontextmanager
async def payments_worker(core: Core, redis_url: str) -> AsyncIterator[Part]:
    """Run the sender's worker: it takes receipts."""
    async with consume(
        core, redis_url, handlers={NoticeReceived: ignore}, priorities=PAYMENT_QUEUES
    ) as part:
        yield part


def enrollment_worker(core: Core, redis_url: str, handler: Any, **options: Any) -> Any:
    return consume(
        core,
        redis_url,
        handlers={PaymentSucceeded: handler},
        priorities={"enrollment.grants": 0, "enrollment.access": 5, "enrollment.revocations": 10},
        **options,
    )


async def send(core: Core, count: int) -> None:
    async with core.database.transaction() as connection:
        items = await outbox.append(
            connection, [(payment_succeeded(f"pay_{number}"), None) for number in range(count)]
        )
    core.publisher.publish(items)


async def outbox_is_empty(core: Core) -> bool:
    async with core.database.connection() as connection:
        return bool(await connection.fetchval("SELECT count(*) = 0 FROM outbox"))


async def test_what_is_handled_leaves_the_sender_s_outbox(
    payments_core: Core, enrollment_core: Core, redis_url: str
) -> None:
    handled: list[str] = []

    async def handle(deliveries: Deliveries) -> None:
        handled.extend(delivery.message.payment_id for delivery in deliveries)

    async with (
        payments_worker(payments_core, redis_url) as sender,
        enrollment_worker(enrollment_core, redis_url, handle) as receiver,
    ):
        await send(payments_core, 500)
        await eventually(partial(outbox_is_empty, payments_core))
        assert sender.problems() == receiver.problems() == []

    assert sorted(handled) == sorted(f"pay_{number}" for number in range(500))


async def test_a_receiver_that_is_full_takes_little_more_than_its_capacity(
    payments_core: Core, enrollment_core: Core, redis_url: str
) -> None:
    go_on = asyncio.Event()
    handled: list[int] = []

    async def wait(deliveries: Deliveries) -> None:
        handled.extend(delivery.id for delivery in deliveries)
        await go_on.wait()

    async with enrollment_worker(enrollment_core, redis_url, wait, capacity=200):
        await send(payments_core, 5_000)
        settled = (0, 0.0)

        async def stands_still() -> bool:
            nonlocal settled
            if settled[0] != len(handled):
                settled = (len(handled), time.monotonic())
            return settled[0] > 0 and time.monotonic() - settled[1] > 0.5

        await eventually(stands_still)
        assert 200 <= len(handled) <= 200 + 2 * THREADS * ITEMS_MAX
        go_on.set()

        async def all_handled() -> bool:
            return len(handled) == 5_000

        await eventually(all_handled)


async def test_a_worker_leaves_to_others_the_queues_that_it_is_told_to(
    payments_core: Core, enrollment_core: Core, redis_url: str
) -> None:
    handled: list[str] = []

    async def handle(deliveries: Deliveries) -> None:
        handled.extend(delivery.message.payment_id for delivery in deliveries)

    await send(payments_core, 1)
    left = key_of("enrollment.grants")
    async with enrollment_worker(
        enrollment_core, redis_url, handle, left_out=["enrollment.grants"]
    ) as part:
        assert not part.problems()
        for _ in range(2):  # Twice what another consumer waits for in Redis.
            await asyncio.sleep(0.2)
            assert await payments_core.redis.llen(left) == 1

    async with enrollment_worker(enrollment_core, redis_url, handle):

        async def is_handled() -> bool:
            return handled == ["pay_0"]

        await eventually(is_handled)


async def test_what_is_no_receipt_is_dropped_and_the_next_one_is_taken(
    payments_core: Core, redis_url: str
) -> None:
    await send(payments_core, 1)
    async with payments_core.database.connection() as connection:
        id_ = await connection.fetchval("SELECT id FROM outbox")
    key = key_of("payments.receipts")
    async with payments_worker(payments_core, redis_url) as part:
        receipts: list[Any] = [["x"], "", {}, [1.5], [None], [[1]], [2**63 - 1], [id_]]
        for ids in receipts:
            message_id, body = encode_receipt("payments.receipts", ids)
            await payments_core.redis.hset(f"{key}.msgs", message_id, body)
            await payments_core.redis.rpush(key, message_id)
        await eventually(partial(outbox_is_empty, payments_core))
        assert part.problems() == []


async def test_receipts_that_postgresql_cannot_take_come_again_after_the_next_resend(
    new_database: str, redis_url: str, enrollment_core: Core
) -> None:
    async with (
        proxied(new_database) as (proxy, url),
        open_core(service_settings(redis_url), "payments", url) as sender,
        payments_worker(sender, redis_url) as part,
    ):
        labels = {"message": PaymentSucceeded.name, "outcome": "done"}
        done_before = REGISTRY.get_sample_value("messages_handled_total", labels) or 0
        await send(sender, 1)
        await proxy.cut()
        async with enrollment_worker(enrollment_core, redis_url, ignore):

            async def receipt_came_and_went() -> bool:
                done = REGISTRY.get_sample_value("messages_handled_total", labels) or 0
                left = await enrollment_core.redis.llen(key_of("payments.receipts"))
                return done > done_before and left == 0

            await eventually(receipt_came_and_went)
            await proxy.mend()
            async with sender.database.connection() as connection:
                await connection.execute("UPDATE outbox SET send_again_at = clock_timestamp()")
            tasks = [asyncio.create_task(task()) for task in part.tasks]
            await eventually(partial(outbox_is_empty, sender))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_worker_without_redis_does_not_start(enrollment_core: Core) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(redis.ConnectionError):
        async with enrollment_worker(enrollment_core, url, ignore):
            pytest.fail("it started")


async def test_a_worker_stops_within_its_time_while_redis_hangs_and_a_handler_too(
    new_database: str,
    redis_url: str,
    redis_server: RedisServer,
    payments_core: Core,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver_module, "DRAIN_SECONDS", 0.5)
    begun = asyncio.Event()

    async def hang(_deliveries: Deliveries) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with open_core(service_settings(redis_url), "enrollment", new_database) as core:
        async with enrollment_worker(core, redis_url, hang):
            await send(payments_core, 1)
            await begun.wait()
            redis_server.pause()
            started = time.monotonic()
        stopped = time.monotonic()
        redis_server.resume()

    assert stopped - started < worker_module.STOP_SECONDS + 0.5 + 1
