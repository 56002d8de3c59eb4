"""Dead letters are handed to their handlers again when that is due, by one worker at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest

from shared.contracts.payments import PaymentSucceeded
from shared.errors import NotFoundError, TransientError
from shared.messaging import dead_letters, outbox
from shared.messaging.dead_letters import DeadLetter
from shared.messaging.receiver import Delivery
from shared.process import Core
from tests.support.clocks import START, ManualClock
from tests.support.messages import payment_succeeded

QUEUE = "enrollment.grants"


class Handler:
    """Notes the payments it was given and does what the test says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.payments: list[str] = []
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def __call__(self, deliveries: Sequence[Delivery[Any]]) -> None:
        self.payments += [delivery.message.payment_id for delivery in deliveries]
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


async def bury(core: Core, number: int = 1, *, payload: str | None = None) -> int:
    message = payment_succeeded(f"pay_{number}")
    async with core.database.connection() as connection:
        await outbox.store_dead_letter(
            connection,
            queue=QUEUE,
            sender="payments",
            message_id=number,
            message_name=message.name,
            payload=message.encode() if payload is None else payload,
            reason="KeyError: a bug",
        )
        found: int = await connection.fetchval(
            "SELECT id FROM dead_letter WHERE message_id = $1", number
        )
        return found


async def read(core: Core, letter_id: int) -> DeadLetter:
    async with core.database.connection() as connection:
        letter = await dead_letters.find_letter(connection, letter_id)
    assert letter is not None
    return letter


async def move(core: Core, letter_id: int, seconds: float = 0) -> None:
    async with core.database.connection() as connection:
        await dead_letters.move_letter(connection, letter_id, START + timedelta(seconds=seconds))


async def retry_due(core: Core, handler: Handler, clock: ManualClock | None = None) -> int:
    return await dead_letters.retry_due(
        core.database, clock or ManualClock(), {PaymentSucceeded: handler}
    )


async def test_a_letter_waits_until_somebody_says_so(enrollment_core: Core) -> None:
    letter_id, handler = await bury(enrollment_core), Handler()

    assert await retry_due(enrollment_core, handler, ManualClock(START + timedelta(days=99))) == 0

    letter = await read(enrollment_core, letter_id)
    assert (letter.state, letter.retry_at, letter.tries) == ("waiting", None, 0)
    assert handler.payments == []


async def test_a_due_letter_is_handled_once_and_kept_as_handled(enrollment_core: Core) -> None:
    letter_id, handler, clock = await bury(enrollment_core), Handler(), ManualClock()
    await move(enrollment_core, letter_id, seconds=60)
    assert await retry_due(enrollment_core, handler, clock) == 0

    clock.advance(60)
    assert await retry_due(enrollment_core, handler, clock) == 1
    assert await retry_due(enrollment_core, handler, clock) == 0

    letter = await read(enrollment_core, letter_id)
    assert (letter.state, letter.retry_at, letter.tries) == ("handled", None, 1)
    assert handler.payments == ["pay_1"]


async def test_a_handler_that_ends_its_delivery_itself_is_believed(enrollment_core: Core) -> None:
    done_id, failed_id = await bury(enrollment_core, 1), await bury(enrollment_core, 2)
    await move(enrollment_core, done_id)
    await move(enrollment_core, failed_id)

    async def handle(deliveries: Sequence[Delivery[Any]]) -> None:
        for delivery in deliveries:
            if delivery.id == 1:
                delivery.done()
            else:
                delivery.fail(NotFoundError("no such payment"))

    count = await dead_letters.retry_due(
        enrollment_core.database, ManualClock(), {PaymentSucceeded: handle}
    )
    assert count == 2

    assert (await read(enrollment_core, done_id)).state == "handled"
    failed = await read(enrollment_core, failed_id)
    assert (failed.state, failed.retry_at) == ("waiting", None)
    assert failed.reason == "NotFoundError: no such payment"


async def test_an_outage_is_tried_again_by_itself_at_growing_intervals(
    enrollment_core: Core,
) -> None:
    letter_id, clock = await bury(enrollment_core), ManualClock()
    handler = Handler(TransientError("away"))
    await move(enrollment_core, letter_id)
    waits = []

    for _ in range(len(dead_letters.OUTAGE_DELAYS_SECONDS) + 1):
        assert await retry_due(enrollment_core, handler, clock) == 1
        due = (await read(enrollment_core, letter_id)).retry_at
        assert due is not None
        waits.append((due - clock.now).total_seconds())
        clock.now = due
    assert waits == [30, 60, 120, 300, 600, 1_800, 1_800]

    handler.error = None
    await retry_due(enrollment_core, handler, clock)
    assert (await read(enrollment_core, letter_id)).state == "handled"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "MalformedMessageError"),
        (orjson.dumps({"surplus": 1}).decode(), "surplus"),
    ],
)
async def test_what_cannot_be_read_is_kept_with_the_reason(
    enrollment_core: Core, payload: str, reason: str
) -> None:
    letter_id, handler = await bury(enrollment_core, payload=payload), Handler()
    await move(enrollment_core, letter_id)

    assert await retry_due(enrollment_core, handler) == 1

    letter = await read(enrollment_core, letter_id)
    assert letter.state == "waiting"
    assert reason in letter.reason
    assert handler.payments == []


async def test_a_message_without_a_handler_is_kept_with_the_reason(enrollment_core: Core) -> None:
    letter_id = await bury(enrollment_core)
    await move(enrollment_core, letter_id)

    assert await dead_letters.retry_due(enrollment_core.database, ManualClock(), {}) == 1

    assert "no handler" in (await read(enrollment_core, letter_id)).reason


async def test_of_many_workers_one_handles_each_letter(enrollment_core: Core) -> None:
    for number in range(1, 51):
        await move(enrollment_core, await bury(enrollment_core, number))
    handler = Handler()

    async def work() -> None:
        while await retry_due(enrollment_core, handler):
            pass

    await asyncio.gather(*(work() for _ in range(5)))

    assert sorted(handler.payments) == sorted(f"pay_{number}" for number in range(1, 51))


async def test_a_worker_that_was_frozen_past_its_lease_does_not_speak_for_its_successor(
    enrollment_core: Core,
) -> None:
    letter_id, frozen = await bury(enrollment_core), Handler(NotFoundError("late news"))
    frozen.gate = asyncio.Event()
    await move(enrollment_core, letter_id)
    first = asyncio.create_task(retry_due(enrollment_core, frozen))
    await frozen.begun.wait()
    assert (await read(enrollment_core, letter_id)).is_in_hand
    async with enrollment_core.database.connection() as connection:
        await connection.execute("UPDATE dead_letter SET leased_until = clock_timestamp()")

    successor = Handler()
    assert await retry_due(enrollment_core, successor) == 1
    frozen.gate.set()
    await first

    letter = await read(enrollment_core, letter_id)
    assert (letter.state, letter.reason, letter.tries) == ("handled", "KeyError: a bug", 2)


async def test_the_gauge_counts_what_waits(enrollment_core: Core) -> None:
    waiting, discarded = await bury(enrollment_core, 1), await bury(enrollment_core, 2)
    async with enrollment_core.database.connection() as connection:
        await dead_letters.discard_letter(connection, discarded)
        assert (await outbox.measure(connection))[3] == 1
        await dead_letters.discard_letter(connection, waiting)
        assert (await outbox.measure(connection))[3] == 0
