"""An idle worker starts at once on what comes, and costs nothing while nothing comes."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from tests.support.blocking import run_blocking
from tests.support.polling import eventually_blocking
from tests.support.promises import settle
from tests.support.supervised_stack import SupervisedStack, outlast, supervised_stack
from tests.support.traffic import Order, Traffic

#: From the notice to the enrollment, over two queues. Dramatiq's own consumers, when idle, wait
#: 470 ms in the mean at each; ours a few milliseconds, and beside other tests a few dozen.
WHOLE_WAY_SECONDS: Final = 0.100
SAMPLES: Final = 20
#: A busy machine delays some samples, in bad moments most of them. So the faster half has to be
#: fast in its middle, in one round of a few; polling reaches that as rarely as it reaches a median.
ROUNDS_MAX: Final = 5

#: Of one core. An idle worker needs 0.01; CI is noisy.
IDLE_SHARE_MAX: Final = 0.02
IDLE_SECONDS: Final = 5.0
WORKERS: Final = ("webhook-worker", "payments-worker", "enrollment-worker")

_ENROLLED_AT: Final = """
    SELECT extract(epoch FROM created_at)::float FROM enrollment.enrollment WHERE payment_id = $1
"""

_MESSAGES_UNDER_WAY: Final = """
    SELECT (SELECT count(*) FROM webhook.outbox) + (SELECT count(*) FROM payments.outbox)
"""


def test_idle_workers_wake_at_once_and_use_no_processor() -> None:
    with (
        supervised_stack() as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=8, count=0) as traffic,
    ):
        assert_wakes_at_once(stack, traffic)
        assert_idles(stack)
        with stack.fault("Redis restarted"):
            stack.redis.restart()
        eventually_blocking(lambda: all(stack.local.processes[name].is_ready() for name in WORKERS))
        assert_wakes_at_once(stack, traffic)
        settle(stack, traffic)


def assert_wakes_at_once(stack: SupervisedStack, traffic: Traffic) -> None:
    rounds = []
    for _ in range(ROUNDS_MAX):
        seconds = [whole_way(stack, traffic, order) for order in traffic.buy(SAMPLES)]
        rounds.append(statistics.quantiles(seconds, n=4))
        if rounds[-1][0] < WHOLE_WAY_SECONDS:
            break
    told = [", ".join(f"{quartile * 1000:.1f} ms" for quartile in each) for each in rounds]
    print(f"from notice to enrollment, quartiles of each round: {told}")
    assert rounds[-1][0] < WHOLE_WAY_SECONDS, told


def whole_way(stack: SupervisedStack, traffic: Traffic, order: Order) -> float:
    """Post a notice while all is quiet; return the seconds until its enrollment."""
    url = stack.local.database_url
    eventually_blocking(lambda: run_blocking(first_value(url, _MESSAGES_UNDER_WAY)) == 0)
    began_at = time.time()
    webhook = stack.local.processes["webhook-http"].url
    assert traffic.run(traffic.send_notice(order.notice, url=webhook)).status == 200
    enrolled_at = eventually_blocking(
        lambda: run_blocking(first_value(url, _ENROLLED_AT, order.payment_id))
    )
    assert enrolled_at is not None
    return enrolled_at - began_at


async def first_value(url: str, query: str, *arguments: str) -> float | None:
    connection = await asyncpg.connect(url)
    try:
        value: float | None = await connection.fetchval(query, *arguments)
    finally:
        await connection.close()
    return value


def assert_idles(stack: SupervisedStack) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("the processor time of another process is only known on Linux")
    before = {name: processor_seconds(stack, name) for name in WORKERS}
    began_at = time.monotonic()
    with outlast(IDLE_SECONDS):
        pass
    elapsed = time.monotonic() - began_at
    shares = {name: (processor_seconds(stack, name) - before[name]) / elapsed for name in WORKERS}
    print(f"share of a core while idle: {shares}")
    assert max(shares.values()) <= IDLE_SHARE_MAX, shares


def processor_seconds(stack: SupervisedStack, process: str) -> float:
    pid = stack.local.processes[process].pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # After the name come the state and 10 others; then user and system time in clock ticks.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
