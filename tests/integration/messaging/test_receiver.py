"""The receiver: admits, handles, repeats, buries; each message ends on its own."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest

from shared.contracts.payments import PaymentSucceeded
from shared.errors import NotFoundError, TransientError
from shared.messaging import receiver as receiver_module
from shared.process import Core
from tests.integration.messaging.receiving import (
    GRANTS,
    Deliveries,
    handled,
    in_hand,
    receiving,
)
from tests.support.messages import payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import batch_of, receipts_for


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


async def test_a_full_queue_stands_in_no_other_ones_way_and_says_when_it_has_room(
    enrollment_core: Core,
) -> None:
    go_on = asyncio.Event()
    notified: list[str] = []

    async def wait(_deliveries: Deliveries) -> None:
        await go_on.wait()

    async with receiving(enrollment_core, wait, capacity=3) as world:
        world.receiver.call_when_roomy(GRANTS, lambda: notified.append(GRANTS))
        await world.receive(1, 2)
        assert world.receiver.has_room(GRANTS)
        await world.receive(3)
        assert not world.receiver.has_room(GRANTS)
        assert world.receiver.has_room("enrollment.other")
        assert notified == []

        go_on.set()
        await world.until_confirmed(1, 2, 3)
        assert world.receiver.has_room(GRANTS)
        assert notified == [GRANTS]


async def test_messages_that_wait_for_another_try_count_as_in_hand(enrollment_core: Core) -> None:
    async def outage(_deliveries: Deliveries) -> None:
        raise TransientError("away")

    async with receiving(enrollment_core, outage) as world:
        await world.receive(1)

        async def tried() -> bool:
            return world.handling.calls == [[1]]

        await eventually(tried)
        assert in_hand() == 1
