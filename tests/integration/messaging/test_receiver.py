"""The receiver: admits, handles, repeats, buries; each message ends on its own."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
import pytest
from prometheus_client import REGISTRY

from shared.contracts.payments import PaymentSucceeded
from shared.contracts.subscriptions import queues_of
from shared.errors import NotFoundError, SluiceError, TransientError
from shared.messaging import receiver as receiver_module
from shared.messaging.receiver import CAPACITY, Delivery, Receiver
from shared.process import Core, open_core
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for
from tests.support.settings import service_settings
from tests.support.tcp_proxy import proxied

(GRANTS,) = queues_of("enrollment")

Deliveries = Sequence[Delivery[PaymentSucceeded]]


@dataclass
class Handling:
    """A handler that notes what it gets and does what the test says."""

    act: Callable[[Deliveries], Awaitable[None]] | None = None
    calls: list[list[int]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def __call__(self, deliveries: Sequence[Delivery[Any]]) -> None:
        self.calls.append([delivery.id for delivery in deliveries])
        self.at.append(time.monotonic())
        if self.act is not None:
            await self.act(deliveries)


@dataclass
class Receiving:
    core: Core
    receiver: Receiver
    handling: Handling

    async def receive(self, *ids: int, sender: str = "payments") -> None:
        numbered = [(id_, payment_succeeded(f"pay_{id_}")) for id_ in ids]
        await self.receiver.room()
        self.receiver.accept(GRANTS, {"batch": batch_of(sender, numbered)})

    async def until_confirmed(self, *ids: int) -> list[int]:
        async def confirmed() -> list[int]:
            receipts = await receipts_for(self.core.redis, "payments")
            return receipts if set(ids) <= set(receipts) else []

        return await eventually(confirmed)

    async def dead_letters(self) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch("SELECT * FROM dead_letter ORDER BY message_id")

    async def until_buried(self, count: int) -> list[asyncpg.Record]:
        async def buried() -> list[asyncpg.Record]:
            letters = await self.dead_letters()
            return letters if len(letters) >= count else []

        return await eventually(buried)


@asynccontextmanager
async def receiving(
    core: Core,
    act: Callable[[Deliveries], Awaitable[None]] | None = None,
    *,
    capacity: int = CAPACITY,
) -> AsyncIterator[Receiving]:
    handling = Handling(act)
    receiver = Receiver(
        core.database, core.publisher, {PaymentSucceeded: handling}, capacity=capacity
    )
    yield Receiving(core, receiver, handling)
    await receiver.close()


def handled(outcome: str) -> float:
    labels = {"message": PaymentSucceeded.name, "outcome": outcome}
    return REGISTRY.get_sample_value("messages_handled_total", labels) or 0.0


def in_hand() -> float:
    return REGISTRY.get_sample_value("messages_in_hand", {"service": "enrollment"}) or 0.0


async def nobody_in_hand() -> bool:
    return in_hand() == 0


async def test_a_batch_goes_to_its_handler_at_once_and_each_message_gets_a_receipt(
    enrollment_core: Core,
) -> None:
    async with receiving(enrollment_core) as world:
        await world.receive(1, 2, 3)
        assert sorted(await world.until_confirmed(1, 2, 3)) == [1, 2, 3]

    assert world.handling.calls == [[1, 2, 3]]
    assert await world.dead_letters() == []


async def test_a_message_in_hand_is_not_handled_twice_but_again_once_it_is_done(
    enrollment_core: Core,
) -> None:
    go_on = asyncio.Event()

    async def wait(_deliveries: Deliveries) -> None:
        await go_on.wait()

    async with receiving(enrollment_core, wait) as world:
        await world.receive(1)
        await world.receive(1, 2)
        await world.receive(1, sender="webhook")
        go_on.set()
        await world.until_confirmed(1, 2)
        assert world.handling.calls == [[1], [2], [1]], "ids are each sender's own"

        await world.receive(1)

        async def confirmed_again() -> bool:
            return (await receipts_for(enrollment_core.redis, "payments")).count(1) == 2

        await eventually(confirmed_again)


async def test_an_item_that_does_not_fit_its_contract_is_buried_and_its_neighbours_are_handled(
    enrollment_core: Core,
) -> None:
    batch = batch_of("payments", [(id_, payment_succeeded()) for id_ in (1, 2, 3, 4)])
    del batch["items"][1]["payload"]["paymentId"]
    batch["items"][2]["name"] = "payments.payment_exploded.v9"
    batch["items"][3]["payload"] = ["not", "an", "object"]

    async with receiving(enrollment_core) as world:
        world.receiver.accept(GRANTS, {"batch": batch})
        await world.until_confirmed(1, 2, 3, 4)
        assert world.handling.calls == [[1]]
        letters = await world.dead_letters()

    assert [letter["message_id"] for letter in letters] == [2, 3, 4]
    assert "paymentId" in letters[0]["reason"]
    assert "payments.payment_exploded.v9" in letters[1]["reason"]
    assert {letter["queue"] for letter in letters} == {GRANTS}
    assert orjson.loads(letters[2]["payload"]) == ["not", "an", "object"]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"name": "no\x00name"}, id="a NUL in its name"),
        pytest.param({"payload": {"no\x00field": "no\x00value"}}, id="a NUL in a field"),
    ],
)
async def test_what_postgresql_or_a_dictionary_cannot_take_is_buried_all_the_same(
    enrollment_core: Core, spoil: dict[str, Any]
) -> None:
    batch = batch_of("payments", [(1, payment_succeeded()), (2, payment_succeeded())])
    batch["items"][1].update(spoil)

    async with receiving(enrollment_core) as world:
        world.receiver.accept(GRANTS, {"batch": batch})
        await world.until_confirmed(1, 2)
        assert [letter["message_id"] for letter in await world.dead_letters()] == [2]


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"sender": "payments"},
        {"sender": "payments", "items": [7]},
        {"sender": "payments", "items": [{"id": 1}]},
        pytest.param(
            {"sender": "payments", "items": [{"id": [1], "name": "", "payload": 0, "trace": None}]},
            id="an id that is a list",
        ),
        pytest.param(
            {"sender": "payments", "items": [{"id": "1", "name": "", "payload": 0, "trace": None}]},
            id="an id that is text",
        ),
        pytest.param(
            {"sender": "payments", "items": [{"id": 1, "name": [], "payload": 0, "trace": None}]},
            id="a name that is a list",
        ),
        [],
        None,
    ],
)
async def test_what_is_no_batch_at_all_is_buried_without_a_receipt(
    enrollment_core: Core, batch: Any
) -> None:
    async with receiving(enrollment_core) as world:
        world.receiver.accept(GRANTS, {"batch": batch})
        (letter,) = await world.until_buried(1)

    assert letter["message_id"] is None
    assert letter["reason"].startswith("not a batch")
    assert in_hand() == 0


async def test_a_refusal_for_good_is_buried_at_once(enrollment_core: Core) -> None:
    async def refuse(deliveries: Deliveries) -> None:
        for delivery in deliveries:
            delivery.fail(NotFoundError("no such payment"))

    async with receiving(enrollment_core, refuse) as world:
        await world.receive(1)
        await world.until_confirmed(1)
        (letter,) = await world.dead_letters()

    assert letter["reason"] == "NotFoundError: no such payment"
    assert letter["message_name"] == PaymentSucceeded.name
    assert orjson.loads(letter["payload"])["paymentId"] == "pay_1"
    assert in_hand() == 0


async def test_a_message_that_its_handler_puts_back_gets_no_receipt_until_it_is_done(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sender's outbox would forget what only this process still remembers."""
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (60,))

    async def put_the_first_back(deliveries: Deliveries) -> None:
        deliveries[0].fail(TransientError("away"))

    async with receiving(enrollment_core, put_the_first_back) as world:
        await world.receive(1, 2)
        assert await world.until_confirmed(2) == [2]
        assert in_hand() == 1


async def test_a_bug_in_a_handler_is_tried_again_at_growing_waits_and_then_buried(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = (0.02, 0.08, 0.2)
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", waits)

    async def break_(_deliveries: Deliveries) -> None:
        raise ZeroDivisionError("a bug")

    redelivered_before = handled("redelivered")
    async with receiving(enrollment_core, break_) as world:
        await world.receive(1)
        await world.until_confirmed(1)
        (letter,) = await world.dead_letters()

    assert world.handling.calls == [[1]] * 4
    at = world.handling.at
    gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(gap >= wait for gap, wait in zip(gaps, waits, strict=True))
    assert handled("redelivered") == redelivered_before + 3
    assert letter["reason"] == "ZeroDivisionError: a bug"
    assert in_hand() == 0


async def test_a_poisonous_message_does_not_spoil_its_neighbours(
    enrollment_core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_module, "REDELIVERY_SECONDS", (0.01,))

    async def break_on_two(deliveries: Deliveries) -> None:
        if any(delivery.id == 2 for delivery in deliveries):
            raise ValueError("two")

    async with receiving(enrollment_core, break_on_two) as world:
        await world.receive(1, 2, 3)
        await world.until_confirmed(1, 2, 3)
        assert [letter["message_id"] for letter in await world.dead_letters()] == [2]

    assert world.handling.calls[0] == [1, 2, 3]
    assert all(len(call) == 1 for call in world.handling.calls[1:]), "then each alone"


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


async def test_a_slow_message_delays_no_receipt_of_its_neighbours(enrollment_core: Core) -> None:
    go_on = asyncio.Event()

    async def first_is_slow(deliveries: Deliveries) -> None:
        for delivery in deliveries[1:]:
            delivery.done()
        await go_on.wait()

    async with receiving(enrollment_core, first_is_slow) as world:
        await world.receive(*range(1, 101))
        assert 1 not in await world.until_confirmed(*range(2, 101))
        assert in_hand() == 1
        go_on.set()
        await world.until_confirmed(1)


async def test_admission_waits_while_the_receiver_is_full(enrollment_core: Core) -> None:
    go_on = asyncio.Event()

    async def wait(_deliveries: Deliveries) -> None:
        await go_on.wait()

    async with receiving(enrollment_core, wait, capacity=3) as world:
        await world.receive(1, 2, 3)
        waiting = asyncio.create_task(world.receive(4))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert world.handling.calls == [[1, 2, 3]]

        go_on.set()
        await waiting
        await world.until_confirmed(1, 2, 3, 4)


async def test_messages_that_wait_for_another_try_count_as_in_hand(enrollment_core: Core) -> None:
    async def outage(_deliveries: Deliveries) -> None:
        raise TransientError("away")

    async with receiving(enrollment_core, outage) as world:
        await world.receive(1)

        async def tried() -> bool:
            return world.handling.calls == [[1]]

        await eventually(tried)
        assert in_hand() == 1


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
