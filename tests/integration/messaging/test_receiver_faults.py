"""The receiver during outages and at a stop: nothing is confirmed that is not done."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from shared.errors import NotFoundError, SluiceError, TransientError
from shared.messaging import receiver as receiver_module
from shared.process import Core, open_core
from tests.integration.messaging.receiving import (
    GRANTS,
    Deliveries,
    handled,
    nobody_in_hand,
    receiving,
)
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied


async def test_a_message_that_met_an_outage_is_tried_again_and_then_left_to_the_outbox(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.01, 0.02))

    async def outage(_deliveries: Deliveries) -> None:
        raise TransientError("away")

    left_before = handled("left_to_outbox")
    async with receiving(enrollment_core, outage) as world:
        await world.receive(1, 2)

        async def left() -> bool:
            return handled("left_to_outbox") == left_before + 2

        await eventually(left)
        assert await world.dead_letters() == []
        assert await receipts_for(enrollment_core.redis, "payments") == []

        world.handling.act = None
        await world.receive(1, 2)
        await world.until_confirmed(1, 2)


async def test_a_message_that_met_an_outage_is_handled_once_the_outage_is_over(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.01,) * 5)
    failures = itertools.count(1)

    async def away_twice(_deliveries: Deliveries) -> None:
        if next(failures) <= 2:
            raise TransientError("away")

    async with receiving(enrollment_core, away_twice) as world:
        await world.receive(1)
        await world.until_confirmed(1)
        assert await world.dead_letters() == []


async def test_a_close_lets_what_is_in_hand_finish(enrollment_core: Core) -> None:
    begun = asyncio.Event()

    async def take_a_moment(_deliveries: Deliveries) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    async with receiving(enrollment_core, take_a_moment) as world:
        await world.receive(1)
        await begun.wait()
        await world.receiver.close()
        await world.until_confirmed(1)


async def test_a_close_waits_neither_for_a_hanging_message_nor_for_the_next_try_of_another(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "DRAIN_SECONDS", 0.2)
    was_cancelled = asyncio.Event()

    async def hang_or_fail(deliveries: Deliveries) -> None:
        if deliveries[0].id == 1:
            raise TransientError("away")
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    async with receiving(enrollment_core, hang_or_fail) as world:
        await world.receive(1)
        await world.receive(2)

        async def both_tried() -> bool:
            return len(world.handling.calls) == 2

        await eventually(both_tried)
        started = time.monotonic()
        await world.receiver.close()
        assert time.monotonic() - started < 2
        await was_cancelled.wait()
        assert await receipts_for(enrollment_core.redis, "payments") == []


async def test_a_message_that_fails_during_a_close_starts_no_further_try(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.05,) * 5)
    is_closing = asyncio.Event()

    async def fail_then(_deliveries: Deliveries) -> None:
        await is_closing.wait()
        raise TransientError("away")

    async with receiving(enrollment_core, fail_then) as world:
        await world.receive(1)
        closing = asyncio.create_task(world.receiver.close())
        await asyncio.sleep(0)
        is_closing.set()
        await closing

        started = time.monotonic()

        async def a_while() -> bool:
            return time.monotonic() - started > 0.2

        await eventually(a_while)
        assert world.handling.calls == [[1]]


async def test_a_burial_that_postgresql_cannot_store_gives_no_receipt(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(new_database) as (proxy, url),
        open_core(service_settings(redis_url), "enrollment", url) as core,
        receiving(core) as world,
    ):
        await proxy.cut()
        batch = batch_of("payments", [(1, payment_succeeded())])
        batch["items"][0]["name"] = "payments.payment_exploded.v9"
        world.receiver.accept(GRANTS, {"batch": batch})
        assert await receipts_for(core.redis, "payments") == []

        await proxy.mend()
        world.receiver.accept(GRANTS, {"batch": batch})
        await world.until_confirmed(1)


async def test_a_give_up_that_postgresql_cannot_store_leaves_the_message_to_the_outbox(
    new_database: str, redis_url: str
) -> None:
    async def refuse(deliveries: Deliveries) -> None:
        for delivery in deliveries:
            delivery.fail(NotFoundError("none"))

    async with (
        proxied(new_database) as (proxy, url),
        open_core(service_settings(redis_url), "enrollment", url) as core,
        receiving(core, refuse) as world,
    ):
        await proxy.cut()
        await world.receive(1)
        await eventually(nobody_in_hand)
        await proxy.mend()
        await world.receive(1)
        await world.until_confirmed(1)
        assert len(await world.dead_letters()) == 1


async def test_every_error_of_ours_is_either_permanent_or_transient() -> None:
    """The receiver's two ways out cover the whole tree."""
    kinds = {kind.__name__ for kind in SluiceError.__subclasses__()}
    assert kinds == {"TransientError", "PermanentError"}
