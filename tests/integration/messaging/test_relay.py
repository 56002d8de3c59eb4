"""The relay: resends what is due, and leaves it due when Redis is away."""

from __future__ import annotations

import asyncio

import pytest

from shared.messaging import outbox, relay
from shared.messaging.envelope import ITEMS_MAX
from shared.process import Core, open_core
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import bodies_on, items_on
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied

GRANTS = "enrollment.grants"


async def append_due(core: Core, count: int) -> set[int]:
    async with core.database.transaction() as connection:
        messages = [(payment_succeeded(f"pay_{number}"), None) for number in range(count)]
        items = await outbox.append(connection, messages)
        await connection.execute("UPDATE outbox SET send_again_at = clock_timestamp()")
    return {item.id for item in items}


async def test_the_relay_sends_what_is_due_in_batches_and_then_has_nothing_to_do(
    payments_core: Core,
) -> None:
    ids = await append_due(payments_core, 250)

    assert await relay.resend_due(payments_core.database, payments_core.publisher) == 250
    assert await relay.resend_due(payments_core.database, payments_core.publisher) == 0

    sizes = [
        len(body["kwargs"]["batch"]["items"])
        for body in await bodies_on(payments_core.redis, GRANTS)
    ]
    assert sizes == [ITEMS_MAX, ITEMS_MAX, 50]
    assert {item["id"] for item in await items_on(payments_core.redis, GRANTS)} == ids


async def test_a_row_that_another_transaction_holds_is_left_alone(payments_core: Core) -> None:
    ids = await append_due(payments_core, 2)

    async with payments_core.database.transaction() as connection:
        held = min(ids)
        await connection.execute("SELECT FROM outbox WHERE id = $1 FOR UPDATE", held)
        assert await relay.resend_due(payments_core.database, payments_core.publisher) == 1

    items = await items_on(payments_core.redis, GRANTS)
    assert [item["id"] for item in items] == [max(ids)]


async def test_while_redis_is_away_nothing_counts_as_sent_and_afterwards_the_relay_sends_it(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "INTERVAL_SECONDS", 0.05)
    async with (
        proxied(redis_url) as (proxy, url),
        open_core(service_settings(url), "payments", new_database) as core,
    ):
        await proxy.cut()
        ids = await append_due(core, 3)
        assert await relay.resend_due(core.database, core.publisher) == 0
        async with core.database.connection() as connection:
            assert await connection.fetchval("SELECT max(sends) FROM outbox") == 1

        running = asyncio.create_task(relay.run(core.database, core.publisher))
        await proxy.mend()

        async def arrived() -> bool:
            return {item["id"] for item in await items_on(core.redis, GRANTS)} == ids

        await eventually(arrived)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_relay_outlives_an_outage_of_postgresql(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "INTERVAL_SECONDS", 0.05)
    async with (
        proxied(new_database) as (proxy, url),
        open_core(service_settings(redis_url), "payments", url) as core,
    ):
        await append_due(core, 1)
        await proxy.cut()
        running = asyncio.create_task(relay.run(core.database, core.publisher))
        assert not await core.database.ping()
        assert not running.done()
        await proxy.mend()

        async def arrived() -> bool:
            return len(await items_on(core.redis, GRANTS)) == 1

        await eventually(arrived)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
