"""The outbox table: written with the change, deleted by receipts, sent again until then."""

from __future__ import annotations

from itertools import pairwise

import asyncpg
import pytest

from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from shared.process import Core
from tests.support.messages import payment_succeeded


async def append(core: Core, count: int) -> list[Outgoing]:
    async with core.database.transaction() as connection:
        messages = [(payment_succeeded(f"pay_{number}"), None) for number in range(count)]
        return await outbox.append(connection, messages)


async def claim(core: Core, limit: int = 500) -> list[Outgoing]:
    async with core.database.transaction() as connection:
        return await outbox.claim_due(connection, limit)


async def make_due(core: Core) -> None:
    async with core.database.connection() as connection:
        await connection.execute("UPDATE outbox SET send_again_at = clock_timestamp()")


async def rows(core: Core) -> list[asyncpg.Record]:
    async with core.database.connection() as connection:
        return await connection.fetch("""
            SELECT id, sends, parked_at,
                   extract(epoch FROM send_again_at - clock_timestamp())::float AS wait
              FROM outbox
             ORDER BY id""")


async def test_what_is_appended_is_returned_with_its_ids_and_is_gone_after_a_rollback(
    payments_core: Core,
) -> None:
    message = payment_succeeded("pay_first")
    async with payments_core.database.transaction() as connection:
        (item,) = await outbox.append(connection, [(message, "00-trace")])

    assert (item.queue, item.name) == ("enrollment.grants", message.name)
    assert (item.payload, item.traceparent) == (message.encode(), "00-trace")
    assert [row["id"] for row in await rows(payments_core)] == [item.id]

    async def roll_back() -> None:
        async with payments_core.database.transaction() as connection:
            await outbox.append(connection, [(message, None)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await roll_back()
    assert len(await rows(payments_core)) == 1


async def test_nothing_appended_writes_nothing(payments_core: Core) -> None:
    async with payments_core.database.transaction() as connection:
        assert await outbox.append(connection, []) == []


async def test_a_receipt_deletes_its_rows_and_may_come_twice(payments_core: Core) -> None:
    items = await append(payments_core, 3)

    for _ in range(2):
        async with payments_core.database.connection() as connection:
            await outbox.confirm(connection, [items[0].id, items[2].id, 987_654_321])

    assert [row["id"] for row in await rows(payments_core)] == [items[1].id]


async def test_a_message_is_due_thirty_seconds_after_its_first_sending(
    payments_core: Core,
) -> None:
    await append(payments_core, 1)

    assert await claim(payments_core) == []
    (row,) = await rows(payments_core)
    assert row["wait"] == pytest.approx(30, abs=2)


async def test_the_waits_between_resends_grow_and_the_last_one_parks_the_message(
    payments_core: Core,
) -> None:
    appended = await append(payments_core, 1)
    waits = []
    for sends in range(2, outbox.SENDS_MAX + 1):
        await make_due(payments_core)
        assert await claim(payments_core) == appended
        (row,) = await rows(payments_core)
        assert (row["sends"], row["parked_at"]) == (sends, None)
        waits.append(round(row["wait"]))

    assert waits[:8] == list(outbox.RESEND_AFTER_SECONDS)
    assert set(waits[8:]) == {outbox.RESEND_AFTER_SECONDS[-1]}
    assert all(earlier <= later for earlier, later in pairwise(waits))

    await make_due(payments_core)
    assert await claim(payments_core) == [], "a parked message is not sent again"
    (row,) = await rows(payments_core)
    assert row["parked_at"] is not None, "but it is kept"
    async with payments_core.database.connection() as connection:
        waiting, parked, age_seconds, dead = await outbox.measure(connection)
    assert (waiting, parked, dead) == (0, 1, 0)
    assert age_seconds > 0


async def test_a_release_takes_the_send_back_and_is_due_after_two_seconds(
    payments_core: Core,
) -> None:
    (item,) = await append(payments_core, 1)
    await make_due(payments_core)
    await claim(payments_core)

    async with payments_core.database.connection() as connection:
        await outbox.release(connection, [item.id])

    (row,) = await rows(payments_core)
    assert row["sends"] == 1
    assert row["wait"] == pytest.approx(2, abs=1)


async def test_two_relays_claim_different_messages_and_the_longest_due_go_first(
    payments_core: Core,
) -> None:
    items = await append(payments_core, 4)
    async with payments_core.database.connection() as connection:
        await connection.execute("""
            UPDATE outbox SET send_again_at = clock_timestamp() - make_interval(secs => id)""")

    async with payments_core.database.transaction() as connection:
        first = await outbox.claim_due(connection, 2)
        second = await claim(payments_core)

    assert {item.id for item in first} == {item.id for item in items[2:]}
    assert {item.id for item in second} == {item.id for item in items[:2]}


async def test_a_dead_letter_is_stored_once(payments_core: Core) -> None:
    for reason in ("first", "second"):
        async with payments_core.database.transaction() as connection:
            await outbox.store_dead_letter(
                connection,
                queue="payments.high",
                sender="webhook",
                message_id=7,
                message_name="x",
                payload="{}",
                reason=reason,
            )

    async with payments_core.database.connection() as connection:
        assert await connection.fetchval("SELECT array_agg(reason) FROM dead_letter") == ["first"]
