"""The gateway hangs, errs and is slow: its payments wait for it, their neighbours do not."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

import asyncpg

from tests.support.blocking import run_blocking
from tests.support.polling import eventually_blocking
from tests.support.promises import find_broken, settle
from tests.support.supervised_stack import outlast, supervised_stack
from tests.support.traffic import (
    DROPPED,
    ERRORS,
    NONSENSE,
    PENDING,
    PLAIN,
    POSTED,
    SLOW,
    UNANSWERED,
    Traffic,
)

STALL_SECONDS: Final = 10.0

#: Shorter than a stall, so that calls in flight fail; two unanswered ones fit into a minute.
TIMEOUT_SECONDS: Final = 5

#: One call in a hundred is slow.
NEIGHBOURS: Final = 198
SLOW_CALLS: Final = 2
SLOW_SECONDS: Final = 6.0

#: Who waited for a slow neighbour would need longer. On an idle machine the burst takes 0.4 s.
UNDELAYED_SECONDS: Final = 5.0

_WHOLE_WAY: Final = """
    SELECT enrollment.payment_id,
           extract(epoch FROM enrollment.created_at - inbound_event.received_at)::float AS seconds
      FROM webhook.inbound_event
      JOIN payments.attempt ON starts_with(event_key, attempt.reference || ':')
      JOIN enrollment.enrollment USING (payment_id)
"""


def test_a_gateway_that_stalls_or_errs_loses_and_doubles_nothing() -> None:
    kinds = (PLAIN, POSTED, ERRORS, UNANSWERED, SLOW, PENDING, NONSENSE, DROPPED)
    with (
        supervised_stack({"GATEWAY_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS)}) as stack,
        Traffic(
            stack.local.url, stack.local.api_key, seed=4, per_second=10, kinds=kinds
        ) as traffic,
    ):
        traffic.wait_for_more(30)
        with stack.fault("gateway stalled for 10 s"):
            gateway = stack.local.processes["simulator-http"].pid
            os.kill(gateway, signal.SIGSTOP)
            with outlast(STALL_SECONDS):
                pass
            os.kill(gateway, signal.SIGCONT)
        traffic.wait_for_more(30)

        settle(stack, traffic)


def test_slow_calls_do_not_delay_their_neighbours() -> None:
    with (
        supervised_stack(split=False) as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=5, count=0) as traffic,
    ):
        orders = traffic.buy(NEIGHBOURS + SLOW_CALLS)
        slow = orders[50 :: len(orders) // SLOW_CALLS]
        for order in slow:
            script = {"operation": "validate", "behaviour": "slow", "delaySeconds": SLOW_SECONDS}
            assert traffic.control("script", script | {"reference": order.reference}).status == 201

        async def acknowledge_all() -> None:
            await asyncio.gather(*(traffic.acknowledge(order) for order in orders))

        traffic.run(acknowledge_all())

        eventually_blocking(
            lambda: not run_blocking(find_broken(stack.local.database_url, orders)).lost
        )
        seconds = run_blocking(whole_ways(stack.local.database_url))
        late = [seconds.pop(order.payment_id) for order in slow]
        others = sorted(seconds.values())
        print(f"slow: {late}, others: median {others[len(others) // 2]}, last {others[-1]}")
        assert min(late) >= SLOW_SECONDS
        assert len(others) == NEIGHBOURS
        assert others[-1] < UNDELAYED_SECONDS
        settle(stack, traffic)


async def whole_ways(database_url: str) -> dict[str, float]:
    """Return how long each payment took from its notice to its enrollment."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(_WHOLE_WAY)
    finally:
        await connection.close()
    return {row["payment_id"]: row["seconds"] for row in rows}
