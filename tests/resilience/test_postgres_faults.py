"""PostgreSQL restarts, hangs, and is away, while customers are buying."""

from __future__ import annotations

from typing import Final

import pytest

from shared.errors import DatabaseUnavailableError
from shared.process import Core
from tests.support.polling import eventually, eventually_blocking
from tests.support.promises import settle
from tests.support.supervised_stack import outlast, supervised_stack
from tests.support.traffic import Order, Traffic

OUTAGE_SECONDS: Final = 10.0

#: Soon enough for the next redelivery, and for the first resend of what waits for the row.
GIVEN_BACK_SECONDS: Final = 25.0

_INSERT: Final = """
    INSERT INTO enrollment (id, customer_id, product_id, state)
    VALUES ('enr_1', 'cus_1', 'course_1', 'active')
"""
_TOUCH: Final = "UPDATE enrollment SET updated_at = clock_timestamp() WHERE id = 'enr_1'"


def test_a_postgres_that_restarts_hangs_or_dies_loses_and_doubles_nothing() -> None:
    with (
        supervised_stack() as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=3) as traffic,
    ):
        held = traffic.buy(2)

        traffic.wait_for_more(30)
        with stack.fault("restart of PostgreSQL"):
            stack.postgres.restart()

        traffic.wait_for_more(30)
        with stack.fault("PostgreSQL stopped for 10 s"):
            stack.postgres.pause()
            refuse_notices(traffic, held[0])
            stack.postgres.resume()

        traffic.wait_for_more(30)
        with stack.fault("PostgreSQL killed and away for 10 s"):
            stack.postgres.kill()
            refuse_notices(traffic, held[1])
            stack.postgres.start()
        traffic.wait_for_more(30)

        for order in held:
            traffic.run(traffic.acknowledge(order))
        settle(stack, traffic)


async def test_a_transaction_that_nobody_goes_on_with_gives_its_rows_back(
    enrollment_core: Core,
) -> None:
    """Its process may be frozen, or its machine gone: then nothing closes the connection."""
    database = enrollment_core.database
    async with database.connection() as connection:
        await connection.execute(_INSERT)

    async def is_free() -> bool:
        try:
            async with database.connection() as connection:
                await connection.execute(_TOUCH)
        except DatabaseUnavailableError:
            return False  # Waited for the row as long as a statement may.
        return True

    async def go_on_late() -> None:
        async with database.transaction() as connection:
            await connection.execute(_TOUCH)
            await eventually(is_free, timeout_seconds=GIVEN_BACK_SECONDS)
            await connection.execute(_TOUCH)

    with pytest.raises(DatabaseUnavailableError):
        await go_on_late()


def refuse_notices(traffic: Traffic, held: Order) -> None:
    """Check, during an outage, that nothing is acknowledged and the gateway told to come again."""
    with outlast(OUTAGE_SECONDS) as outage:
        eventually_blocking(lambda: traffic.post(held.notice).status == 503)
    replies = [reply for reply in traffic.replies_in(outage) if reply.step == "notice"]
    assert {reply.status for reply in replies} == {503}
    assert all(int(reply.retry_after or "0") > 0 for reply in replies)
