"""Several schedulers, killed, frozen, with clocks of their own: no period is billed twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from deploy.local.migrate import migrate_service
from deploy.local.ports import free_port
from deploy.local.postgres_server import PostgresServer
from deploy.local.services import load_service
from services.scheduler.domain.model import Subscription
from services.scheduler.handlers import billing, scan
from services.scheduler.runtime import Runtime
from services.scheduler.store import due as due_store
from services.scheduler.store import moves
from shared.database import IDLE_IN_TRANSACTION_SECONDS, Connection
from shared.errors import ConflictError, DatabaseUnavailableError
from shared.messaging.envelope import Outgoing
from tests.integration.scheduler.world import running_runtime
from tests.support.clocks import START, ManualClock
from tests.support.databases import fresh_database
from tests.support.modules import REPOSITORY
from tests.support.polling import eventually
from tests.support.subscriptions import Many, insert_plan, insert_subscriptions

DAY = timedelta(days=1)
COUNT = 2_000

# What is wrong with the billing of anybody.
_WRONG = """
    SELECT subscription_id, period_start, count(*)
      FROM (SELECT payload->>'subscriptionId' AS subscription_id,
                   payload->>'periodStart' AS period_start
              FROM outbox
             WHERE message_name = 'scheduler.charge_subscription.v1') AS ordered
     GROUP BY 1, 2
    HAVING count(*) > 1
"""

_BILLED = """
    SELECT (SELECT count(*) FROM billing_cycle),
           (SELECT count(DISTINCT subscription_id) FROM billing_cycle),
           (SELECT count(*) FROM job),
           (SELECT count(*) FROM outbox),
           (SELECT count(*) FROM subscription WHERE charging IS NOT NULL)
"""


class Table:
    """A look into the scheduler's database, from outside of it."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.connection = connection

    async def fill(self, count: int = COUNT) -> None:
        await insert_plan(self.connection)
        many = Many(START - timedelta(hours=1), START - 30 * DAY, timedelta(milliseconds=1))
        await insert_subscriptions(self.connection, many, 1, count)

    async def billed_twice(self) -> int:
        return len(await self.connection.fetch(_WRONG))

    async def is_each_billed_once(self, count: int = COUNT) -> bool:
        assert await self.billed_twice() == 0
        return tuple(await self.connection.fetchrow(_BILLED) or ()) == (count,) * 5


@asynccontextmanager
async def table_of(database_url: str) -> AsyncIterator[Table]:
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "scheduler"})
    try:
        yield Table(connection)
    finally:
        await connection.close()


@asynccontextmanager
async def schedulers(
    database_url: str, redis_url: str, clocks: Sequence[Callable[[], datetime]]
) -> AsyncIterator[list[Runtime]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_runtime(database_url, redis_url, clock))
            for clock in clocks
        ]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BATCH_SIZE", 100)


@asynccontextmanager
async def stopped_scan(
    database_url: str, redis_url: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run another scheduler that has stopped with a batch in its hands."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.stopped_scan"),
        *(database_url, redis_url, START.isoformat()),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert (await process.stdout.readline()).startswith(b"claimed ")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_three_schedulers_at_once_bill_each_period_once(
    new_database: str, redis_url: str
) -> None:
    clock = ManualClock()
    async with (
        table_of(new_database) as table,
        schedulers(new_database, redis_url, [clock] * 3) as runtimes,
    ):
        await table.fill()
        taken = await asyncio.gather(*(scan.scan(runtime) for runtime in runtimes))

        assert await table.is_each_billed_once()
    assert sum(taken) == COUNT
    assert min(taken) > 0, "one of them did it all: nothing was shown"


async def test_clocks_that_are_minutes_apart_bill_each_period_once(
    new_database: str, redis_url: str
) -> None:
    """An hourly plan, followed for six hours; each scheduler's clock is wrong in its own way."""
    clocks = [ManualClock(START + timedelta(minutes=wrong)) for wrong in (-7, 0, 4)]
    hours = 6
    async with (
        table_of(new_database) as table,
        schedulers(new_database, redis_url, clocks) as runtimes,
    ):
        await insert_plan(table.connection, interval_unit="hour", catch_up="every")
        many = Many(START + timedelta(minutes=10), START - DAY, period="1 hour")
        await insert_subscriptions(table.connection, many, 1, 50)
        for _ in range(hours * 12):
            for clock in clocks:
                clock.advance(300)
            await asyncio.gather(*(scan.scan(runtime) for runtime in runtimes))
            # Each charge is paid at once.
            await table.connection.execute(
                "UPDATE subscription SET charging = NULL, is_unpaid = false, due_at = period_end"
                " WHERE charging IS NOT NULL"
            )

        assert await table.billed_twice() == 0
        cycles = await table.connection.fetch(
            "SELECT subscription_id, count(*) AS cycles, sum(periods) AS periods,"
            "       max(period_end) - min(period_start) AS time"
            "  FROM billing_cycle GROUP BY 1"
        )
    assert len(cycles) == 50
    assert {(row["cycles"], row["periods"], row["time"]) for row in cycles} == {
        (hours, hours, timedelta(hours=hours))
    }


async def test_what_a_killed_scheduler_has_claimed_is_billed_by_another(
    new_database: str, redis_url: str
) -> None:
    clock = ManualClock()
    async with (
        table_of(new_database) as table,
        schedulers(new_database, redis_url, [clock]) as (runtime,),
    ):
        await table.fill(300)
        async with stopped_scan(new_database, redis_url) as process:
            process.send_signal(signal.SIGKILL)
            await process.wait()

            async def is_done() -> bool:
                await scan.scan(runtime)
                return await table.is_each_billed_once(300)

            await eventually(is_done)


async def test_a_frozen_scheduler_holds_what_it_claimed_for_seconds_and_writes_nothing_late(
    new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "BATCH_SIZE", 2_000)
    clock = ManualClock()
    async with (
        table_of(new_database) as table,
        schedulers(new_database, redis_url, [clock]) as (runtime,),
    ):
        await table.fill(1_300)
        async with stopped_scan(new_database, redis_url) as process:
            # What is not in the frozen one's hands waits for nobody.
            others = await scan.scan(runtime)
            assert 0 < others < 1_300

            async def is_done() -> bool:
                await scan.scan(runtime)
                return await table.is_each_billed_once(1_300)

            await eventually(is_done, timeout_seconds=IDLE_IN_TRANSACTION_SECONDS + 15)
            process.send_signal(signal.SIGCONT)
            said = (await process.communicate())[0].decode()

        assert said.startswith("given up")
        assert await table.is_each_billed_once(1_300)


async def test_a_restart_of_postgres_in_mid_scan_costs_nothing(
    server_directory: Any, template_database: str, redis_url: str
) -> None:
    """A server of its own, so that no other test is disturbed."""
    _ = template_database
    server = PostgresServer(
        server_directory / "restarted",
        free_port(),
        relocation_base=server_directory / "relocated-restarted",
    )
    server.start()
    try:
        await _restart_in_mid_scan(server, redis_url)
    finally:
        server.kill()


async def _restart_in_mid_scan(server: PostgresServer, redis_url: str) -> None:
    server.create_database("restarted")
    url = server.url("restarted")
    await migrate_service(load_service("scheduler"), url, START.date())
    clock = ManualClock()
    async with schedulers(url, redis_url, [clock, clock]) as runtimes:
        async with table_of(url) as table:
            await table.fill()
        loops = [asyncio.create_task(scan.scan_for_ever(runtime)) for runtime in runtimes]
        try:

            async def has_begun() -> bool:
                async with table_of(url) as table:
                    return bool(await table.connection.fetchval("SELECT count(*) > 0 FROM job"))

            await eventually(has_begun)
            await asyncio.to_thread(server.restart)

            async def is_done() -> bool:
                async with table_of(url) as table:
                    return await table.is_each_billed_once()

            await eventually(is_done, timeout_seconds=40)
            assert not any(loop.done() for loop in loops)
        finally:
            for loop in loops:
                loop.cancel()


def together(parties: int) -> Callable[..., Any]:
    """Return a `do_what_is_due` that waits until so many batches were claimed, once."""
    barrier = asyncio.Barrier(parties)
    waited: set[int] = set()

    async def do_together(
        runtime: Runtime,
        connection: Connection,
        due: Sequence[Subscription],
        moment_of: Callable[[Subscription], datetime],
    ) -> list[Outgoing]:
        if id(runtime) not in waited:
            waited.add(id(runtime))
            await barrier.wait()
        return await billing.do_what_is_due(runtime, connection, due, moment_of)

    return do_together


_LOCK = "       FOR NO KEY UPDATE SKIP LOCKED\n"
_VERSION = "       AND subscription.version = new.version\n"
_ONCE = "ALTER TABLE billing_cycle DROP CONSTRAINT billing_cycle_pkey"


@pytest.fixture
def own_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Make a database whose schema a test may change."""
    with fresh_database(postgres, template_database) as url:
        yield url


@pytest.mark.parametrize(
    "missing",
    [("lock",), ("lock", "version"), ("lock", "version", "key")],
    ids=["claimed by several", "and written by all", "and no key of the period"],
)
async def test_each_guard_holds_alone_and_without_all_of_them_periods_are_billed_twice(
    own_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch, missing: Sequence[str]
) -> None:
    monkeypatch.setattr(scan, "LANES", 1)
    monkeypatch.setattr(scan, "do_what_is_due", together(3))
    for guard, module, name, text in (
        ("lock", due_store, "CLAIM", _LOCK),
        ("version", moves, "_SAVE", _VERSION),
    ):
        statement = getattr(module, name)
        assert statement.count(text) == 1
        if guard in missing:
            monkeypatch.setattr(module, name, statement.replace(text, ""))
    clock = ManualClock()
    async with (
        table_of(own_database) as table,
        schedulers(own_database, redis_url, [clock] * 3) as runtimes,
    ):
        if "key" in missing:
            await table.connection.execute(_ONCE)
        await table.fill(90)
        scans = (scan.scan(runtime) for runtime in runtimes)
        ended = await asyncio.gather(*scans, return_exceptions=True)
        foreseen = (ConflictError, DatabaseUnavailableError, int)
        assert all(isinstance(each, foreseen) for each in ended), ended

        assert (await table.billed_twice() > 0) == ("key" in missing)
