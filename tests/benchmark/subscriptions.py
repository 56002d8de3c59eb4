"""The scan of the scheduler over a large table, beside a plain INSERT … SELECT of the same rows.

`python -m tests.benchmark.subscriptions --subscriptions 1000000 --due 50000`, from the root of the
repository. PostgreSQL and Redis are real and durable; every repetition begins with the same
database. The due subscriptions are scattered evenly over the table.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import uvloop
from redis.asyncio import Redis

from deploy.local.migrate import migrate_service
from deploy.local.services import load_service
from services.scheduler.handlers import scan
from services.scheduler.store.due import CLAIM, LONG_AGO
from shared.contracts.subscriptions import CHARGES_QUEUE
from shared.identifiers import first_id_at
from shared.messaging.envelope import items_in
from shared.messaging.publisher import namespace
from tests.benchmark.errors import BenchmarkError, VerificationError
from tests.benchmark.machine import description, wait_until_quiet
from tests.benchmark.servers import Servers
from tests.support.subscriptions import Many, insert_plan, insert_subscriptions

#: The database that every repetition copies, and the copy.
TEMPLATE: Final = "subscriptions"
COPY: Final = "subscriptions_copy"

#: Subscriptions that one statement makes.
CHUNK: Final = 500_000

#: To reach: the scan's share of the plain speed.
GOAL: Final = 1 / 3

MEGABYTE: Final = 1 << 20

#: Longest statement of the preparation.
STATEMENT_SECONDS: Final = 3_600

# What the scan inserts, made by PostgreSQL alone: reads what is due, and writes the same rows.
PLAIN: Final = """
    WITH due AS MATERIALIZED (
        SELECT s.id, s.customer_id, s.plan_id, s.payment_method_id, s.period_number,
               s.period_end AS new_start, s.period_end + interval '1 month' AS new_end,
               p.product_id, p.product_name, p.amount, p.currency, p.gateway,
               substr($1, 5, 10) || translate(upper(substr(md5(s.id), 1, 16)), 'ILOU', 'JKMN')
                   AS new_id
          FROM subscription s
          JOIN plan p ON p.id = s.plan_id
         WHERE s.priority IN ('high', 'medium', 'normal')
           AND s.due_at <= $2
           AND s.clock_id IS NULL
           AND s.problem IS NULL),
    cycle AS (
        INSERT INTO billing_cycle (subscription_id, period_start, period_end, number, periods,
                                   state, payment_id, plan_id, amount, currency, opened_at)
        SELECT id, new_start, new_end, period_number + 1, 1, 'charging', 'pay_' || new_id, plan_id,
               amount, currency, $2
          FROM due),
    job AS (
        INSERT INTO job (id, subscription_id, payment_id, period_start, charge_number, occasion,
                         status, progress, ordered_at, plan_id, payment_method_id, gateway, amount,
                         currency)
        SELECT 'job_' || new_id, id, 'pay_' || new_id, new_start, 1, 'period', 'waiting', 10, $2,
               plan_id, payment_method_id, gateway, amount, currency
          FROM due),
    message AS (
        INSERT INTO outbox (queue, message_name, payload)
        SELECT 'payments.charges', 'scheduler.charge_subscription.v1',
               json_build_object(
                   'paymentId', 'pay_' || new_id, 'subscriptionId', id, 'paymentMethodId',
                   payment_method_id, 'customerId', customer_id, 'productId', product_id,
                   'productName', product_name, 'gateway', gateway, 'amount', amount, 'currency',
                   currency, 'periodStart', new_start, 'isOnTestClock', false)
          FROM due)
    INSERT INTO subscription_history (subscription_id, at, event, state, reason, period_start,
                                      payment_id)
    SELECT id, $2, 'period_opened', 'active', 'period_opened', new_start, 'pay_' || new_id
      FROM due
"""

# What the scan has to do besides: the subscriptions are in their next period.
PLAIN_UPDATE: Final = """
    UPDATE subscription
       SET charging = 'pay_' || substr(id, 5), due_at = NULL, period_number = period_number + 1,
           period_start = period_end, period_end = period_end + interval '1 month',
           is_unpaid = true, charges_made = 1, reason = 'period_opened', version = version + 1,
           periods_opened = periods_opened + 1
     WHERE priority IN ('high', 'medium', 'normal')
       AND due_at <= $1
       AND clock_id IS NULL
       AND problem IS NULL
"""

PAID_CYCLES: Final = """
    INSERT INTO billing_cycle (subscription_id, period_start, period_end, number, state, payment_id,
                               plan_id, amount, currency, opened_at, paid_at)
    SELECT id, period_start, period_end, 0, 'paid', 'pay_' || substr(id, 5), plan_id, 1200, 'USD',
           period_start, period_start
      FROM subscription
"""

COUNTS: Final = """
    SELECT (SELECT count(*) FROM billing_cycle WHERE state = 'charging'),
           (SELECT count(DISTINCT payment_id) FROM job),
           (SELECT count(*) FROM outbox),
           (SELECT count(*) FROM subscription_history),
           (SELECT count(*) FROM subscription WHERE charging IS NOT NULL AND due_at IS NULL)
"""


@dataclass(frozen=True, slots=True)
class Result:
    """Subscriptions a second of one repetition, and the memory of the scanning process."""

    plain: float
    plain_with_update: float
    scanned: float
    bytes_before: int
    bytes_most: int
    bytes_after: int


class Benchmark:
    """One size of table, measured again and again."""

    def __init__(self, servers: Servers, subscriptions: int, due: int, schedulers: int = 1) -> None:
        self._servers = servers
        self._schedulers = schedulers
        self._subscriptions = subscriptions
        self._due = due
        self._now = datetime.now(UTC).replace(microsecond=0)

    async def prepare(self) -> str:
        """Make the table and return the plan of the claim."""
        await self._maintain(f"CREATE DATABASE {TEMPLATE}")
        url = self._servers.postgres_url(TEMPLATE)
        await migrate_service(load_service("scheduler"), url, self._now.date())
        groups = self._subscriptions // self._due
        many = Many(
            first_due_at=self._now - timedelta(hours=1),
            made_at=self._now - timedelta(days=1),
            apart=timedelta(hours=1) / self._subscriptions,
            groups=groups,
            # All but the first group are due later, up to a month from now.
            group_apart=timedelta(days=27) / groups + timedelta(hours=1, minutes=30),
        )
        async with self._connected(TEMPLATE) as connection:
            await insert_plan(connection)
            for first in range(0, self._subscriptions, CHUNK):
                count = min(CHUNK, self._subscriptions - first)
                await insert_subscriptions(connection, many, first, count)
            await connection.execute(PAID_CYCLES)
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("SET plan_cache_mode = force_generic_plan")
            claim = await connection.prepare(f"EXPLAIN {CLAIM}")
            rows = await claim.fetch("medium", LONG_AGO, self._now, scan.BATCH_SIZE)
        return "\n".join(row[0] for row in rows)

    async def repeat(self) -> Result:
        """Measure both ways once, each on its own copy of the table."""
        plain, with_update = await self._plainly()
        return Result(plain, with_update, *await self._scan())

    async def _plainly(self) -> tuple[float, float]:
        await self._copy()
        async with self._connected(COPY) as connection:
            started = time.perf_counter()
            first_id = first_id_at("pay", datetime.now(UTC))
            inserted = await connection.execute(PLAIN, first_id, self._now)
            seconds = time.perf_counter() - started
            updated = await connection.execute(PLAIN_UPDATE, self._now)
            seconds_with_update = time.perf_counter() - started
        if (inserted, updated) != (f"INSERT 0 {self._due}", f"UPDATE {self._due}"):
            raise VerificationError(f"plainly: {inserted}, {updated}, {self._due} are due")
        return self._due / seconds, self._due / seconds_with_update

    async def _scan(self) -> tuple[float, int, int, int]:
        await self._copy()
        url = self._servers.postgres_url(COPY)
        async with AsyncExitStack() as stack:
            scans = [
                await stack.enter_async_context(_scanning(url, self._servers.redis_url))
                for _ in range(self._schedulers)
            ]
            for each in scans:
                await each.line()
            started = time.perf_counter()
            for each in scans:
                each.go()
            said = [(await each.line()).split() for each in scans]
            seconds = time.perf_counter() - started
        taken, before, most, after = zip(*(map(int, words) for words in said), strict=True)
        await self._verify(sum(taken))
        return self._due / seconds, max(before), max(most), max(after)

    async def _verify(self, taken: int) -> None:
        async with self._connected(COPY) as connection:
            counts = tuple(await connection.fetchrow(COUNTS) or ())
        queue = f"{namespace('payments')}:{CHARGES_QUEUE}"
        async with Redis.from_url(self._servers.redis_url, decode_responses=True) as redis:
            published = await redis.lrange(queue, 0, -1)
        orders = sum(items_in(str(message_id)) for message_id in published)
        if {taken, orders, *counts} != {self._due}:
            raise VerificationError(
                f"taken {taken}, published {orders}, written {counts}; {self._due} are due"
            )

    async def _copy(self) -> None:
        await self._maintain(f"DROP DATABASE IF EXISTS {COPY} WITH (FORCE)")
        await self._maintain(f"CREATE DATABASE {COPY} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
        await self._maintain("CHECKPOINT")
        async with Redis.from_url(self._servers.redis_url) as redis:
            await redis.flushall()
        if not wait_until_quiet():
            print("the machine was not quiet", file=sys.stderr)

    async def _maintain(self, statement: str) -> None:
        async with self._connected("postgres") as connection:
            await connection.execute(statement)

    @asynccontextmanager
    async def _connected(self, database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
        connection = await asyncpg.connect(
            self._servers.postgres_url(database),
            server_settings={"search_path": "scheduler"},
            command_timeout=STATEMENT_SECONDS,
        )
        try:
            yield connection
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True)
class _Scanning:
    """A scheduler in a process of its own."""

    process: asyncio.subprocess.Process

    async def line(self) -> str:
        """Return the next thing that it says."""
        assert self.process.stdout is not None, "it was asked for"
        said = await self.process.stdout.readline()
        if not said:
            raise BenchmarkError("a scheduler ended before it was done")
        return said.decode()

    def go(self) -> None:
        """Have it scan."""
        assert self.process.stdin is not None, "it was asked for"
        self.process.stdin.write(b"go\n")


@asynccontextmanager
async def _scanning(database_url: str, redis_url: str) -> AsyncIterator[_Scanning]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmark.scanning_process", database_url, redis_url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield _Scanning(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the goal was missed, 2 when something is not as it must be."""
    options = _options(arguments)
    print(", ".join(f"{name}: {value}" for name, value in description().items()))
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-benchmark-") as temporary:
            directory = Path(temporary)
            directory.chmod(0o711)  # PostgreSQL may run as another user.
            with Servers(directory) as servers:
                results = uvloop.run(_measure(servers, options))
    except BenchmarkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    best = sorted(results, key=lambda result: result.scanned / result.plain)
    median = best[len(best) // 2]
    print(f"median: {median.scanned / median.plain:.2f} of the plain speed; to reach: {GOAL:.2f}")
    return 0 if median.scanned / median.plain >= GOAL else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.subscriptions")
    parser.add_argument("--subscriptions", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=50_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--schedulers", type=int, default=2, help="processes that scan at once (%(default)s)"
    )
    options = parser.parse_args(arguments)
    if (
        options.due < 1
        or options.subscriptions % options.due != 0
        or min(options.repetitions, options.schedulers) < 1
    ):
        parser.error("--subscriptions is a multiple of --due, and all are positive")
    return options


async def _measure(servers: Servers, options: argparse.Namespace) -> list[Result]:
    benchmark = Benchmark(servers, options.subscriptions, options.due, options.schedulers)
    started = time.perf_counter()
    plan = await benchmark.prepare()
    seconds = time.perf_counter() - started
    print(f"{options.subscriptions:,} subscriptions made in {seconds:.0f} s\n\n{plan}\n")
    if "Seq Scan" in plan:
        raise VerificationError("the claim reads the whole table")
    print("subscriptions a second   plain   with its UPDATE   scan   of plain   memory (MB)")
    results = []
    for _ in range(options.repetitions):
        result = await benchmark.repeat()
        results.append(result)
        memory = "/".join(
            str(size // MEGABYTE)
            for size in (result.bytes_before, result.bytes_most, result.bytes_after)
        )
        print(
            f"{'':22}{result.plain:8,.0f}{result.plain_with_update:18,.0f}{result.scanned:7,.0f}"
            f"{result.scanned / result.plain:11.2f}   {memory}",
            flush=True,
        )
    return results


if __name__ == "__main__":
    sys.exit(main())
