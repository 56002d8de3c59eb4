"""What a gateway may be called is shared by all processes, never more than all of it is used."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from services.payments.domain.shares import Share
from services.payments.flow.admission import Purpose
from services.payments.handlers.flow_sync import FlowSync
from services.payments.runtime import Runtime
from services.payments.settings import GatewayLimitSettings
from services.payments.store import shares as share_store
from shared.contracts.priorities import Priority
from shared.gateways.interface import Outcome, Pending
from tests.integration.payments.world import running_runtime
from tests.support.clocks import ManualClock
from tests.support.fake_gateway import FakeGateway
from tests.support.flow_worker import GATEWAY, LEASE_SECONDS
from tests.support.modules import REPOSITORY
from tests.support.polling import eventually

LIMIT = 6


def limited(runtime: Runtime, limit: GatewayLimitSettings) -> Runtime:
    settings = runtime.settings.model_copy(update={"gateway_limits": {GATEWAY: limit}})
    return replace(runtime, settings=settings)


class Caller:
    """A process whose calls last until the test lets them end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.step = FlowSync(runtime, "worker")
        self.ends: list[asyncio.Future[None]] = []
        self._wishes: set[asyncio.Task[object]] = set()

    @property
    def share(self) -> int:
        return self.runtime.flow.controls.gateway_calls.get(GATEWAY, 0)

    @property
    def rate(self) -> float:
        return self.runtime.flow.controls.gateway_rate.get(GATEWAY, 0.0)

    async def sql(self, statement: str) -> Any:
        async with self.runtime.core.database.connection() as connection:
            return await connection.fetchval(statement)

    def wish(self) -> None:
        async def make() -> Outcome:
            end = asyncio.get_running_loop().create_future()
            self.ends.append(end)
            await end
            return Pending("not_attempted")

        task = asyncio.create_task(
            self.runtime.flow.call(GATEWAY, Priority.NORMAL, Purpose.CHECK, make)
        )
        self._wishes.add(task)
        task.add_done_callback(self._wishes.discard)

    async def end_one(self) -> None:
        if self.ends:
            self.ends.pop(0).set_result(None)
            await asyncio.sleep(0)

    async def end(self) -> None:
        for task in list(self._wishes):
            task.cancel()
        await asyncio.gather(*self._wishes, return_exceptions=True)


class Fleet:
    """Processes in this one, with a database of their own."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.stack = AsyncExitStack()
        self.clock = ManualClock()
        self._urls = (database_url, redis_url)

    async def start(self, limit: GatewayLimitSettings) -> Caller:
        runtime = await self.stack.enter_async_context(
            running_runtime(*self._urls, FakeGateway(), self.clock)
        )
        caller = Caller(limited(runtime, limit))
        self.stack.push_async_callback(caller.end)
        await caller.step.synchronize()
        return caller


@pytest.fixture
async def fleet(new_database: str, redis_url: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(new_database, redis_url)
    async with fleet.stack:
        yield fleet


async def stored_shares(runtime: Runtime) -> Mapping[str, Share]:
    async with runtime.core.database.connection() as connection:
        return (await share_store.list_shares(connection, [GATEWAY]))[GATEWAY].shares


async def in_step(callers: list[Caller]) -> None:
    for caller in callers:
        await caller.step.synchronize()


CALLS = GatewayLimitSettings(concurrency=LIMIT)


async def test_one_process_has_all_of_it(fleet: Fleet) -> None:
    assert (await fleet.start(CALLS)).share == LIMIT


async def test_who_joins_gets_its_part_when_the_others_have_heard(fleet: Fleet) -> None:
    one = await fleet.start(CALLS)
    other = await fleet.start(CALLS)
    assert (one.share, other.share) == (LIMIT, 0)

    for _ in range(2):
        await in_step([one, other])

    assert (one.share, other.share) == (3, 3)


async def test_who_leaves_gives_back_at_once(fleet: Fleet) -> None:
    one, other = await fleet.start(CALLS), await fleet.start(CALLS)
    for _ in range(2):
        await in_step([one, other])

    await one.step.leave()
    await other.step.synchronize()

    assert other.share == LIMIT


async def test_the_share_goes_where_calls_wait(fleet: Fleet) -> None:
    idle, busy = await fleet.start(CALLS), await fleet.start(CALLS)
    for _ in range(20):
        busy.wish()
    await asyncio.sleep(0)
    for _ in range(3):
        await in_step([idle, busy])
    await asyncio.sleep(0)

    assert (idle.share, busy.share) == (1, 5)
    assert len(busy.ends) == 5


async def test_calls_in_flight_keep_others_from_their_share(fleet: Fleet) -> None:
    one = await fleet.start(CALLS)
    for _ in range(LIMIT):
        one.wish()
    await asyncio.sleep(0)
    other = await fleet.start(CALLS)
    other.wish()
    for _ in range(4):
        await in_step([one, other])
    assert (one.share, other.share) == (5, 0)

    await one.end_one()
    await in_step([one, other])

    assert (one.share, other.share) == (5, 1)


async def test_rates_are_shared_by_need(fleet: Fleet) -> None:
    rate = GatewayLimitSettings(calls_per_second=10)
    one, other = await fleet.start(rate), await fleet.start(rate)
    for _ in range(2):
        await in_step([one, other])
    assert (one.rate, other.rate) == pytest.approx((5, 5))

    for _ in range(20):
        one.wish()
    await asyncio.sleep(0)
    for _ in range(3):
        await in_step([one, other])

    assert one.rate > 9
    assert one.rate + other.rate == pytest.approx(10)


async def test_without_a_limit_there_are_no_shares(fleet: Fleet) -> None:
    caller = await fleet.start(GatewayLimitSettings())

    assert caller.runtime.flow.controls.gateway_calls == {}
    assert await stored_shares(caller.runtime) == {}


async def test_all_at_once_never_get_more_than_there_is(fleet: Fleet) -> None:
    """Random needs, all processes in step at the same moment: the versions refuse who is late."""
    callers = [await fleet.start(CALLS) for _ in range(5)]
    numbers = random.Random(7)
    for _ in range(60):
        for caller in callers:
            for _ in range(numbers.randrange(4)):
                caller.wish()
            for _ in range(numbers.randrange(4)):
                await caller.end_one()
        late = numbers.sample(callers, numbers.randint(1, 5))
        await asyncio.gather(*(caller.step.synchronize() for caller in late))

        assert sum(len(caller.ends) for caller in callers) <= LIMIT
        stored = await stored_shares(callers[0].runtime)
        assert sum(share.calls_held for share in stored.values()) <= LIMIT
        assert sum(caller.share for caller in callers) <= LIMIT

    assert sum(caller.share for caller in callers) > 0


async def test_two_who_decide_on_the_same_shares_do_not_both_get_them(fleet: Fleet) -> None:
    """Both have read that nobody holds anything, and are stopped before they say what they take."""
    observer = await fleet.start(GatewayLimitSettings())
    callers = [await fleet.start(GatewayLimitSettings()) for _ in range(2)]
    callers = [Caller(limited(caller.runtime, CALLS)) for caller in callers]

    async def both_wait() -> bool:
        return bool(await observer.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == 2)

    async with observer.runtime.core.database.transaction() as connection:
        await connection.execute("SELECT FROM gateway_breaker FOR UPDATE")
        steps = [asyncio.create_task(caller.step.synchronize()) for caller in callers]
        await eventually(both_wait)
    await asyncio.gather(*steps)

    assert sum(caller.share for caller in callers) == LIMIT
    stored = await stored_shares(observer.runtime)
    assert sum(share.calls_held for share in stored.values()) == LIMIT


async def test_a_share_that_was_not_renewed_in_time_is_used_by_nobody(fleet: Fleet) -> None:
    caller = await fleet.start(CALLS)
    now = asyncio.get_running_loop().time()
    caller.runtime.flow.controls = replace(caller.runtime.flow.controls, shares_end_at=now)

    caller.wish()
    await asyncio.sleep(0)
    assert caller.ends == []

    await caller.step.synchronize()
    await asyncio.sleep(0)
    assert len(caller.ends) == 1


async def test_the_database_refuses_a_share_that_is_not_there(fleet: Fleet) -> None:
    one, other = await fleet.start(CALLS), await fleet.start(CALLS)
    async with other.runtime.core.database.connection() as connection:
        stored = (await share_store.list_shares(connection, [GATEWAY]))[GATEWAY]
        is_saved = await share_store.save_share(
            connection,
            GATEWAY,
            stored.version,
            other.step.process,
            Share(calls=1, calls_held=1),
            calls_limit=LIMIT,
            rate_limit=None,
            lease_seconds=10,
        )

    assert one.share == LIMIT
    assert not is_saved


class Gateway:
    """A server that counts the calls that it serves at the same moment."""

    def __init__(self) -> None:
        self.open = 0
        self.now = 0
        self.most = 0
        self.served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(1)
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.05)
            self.now -= 1
            self.served += 1
            writer.write(b"!")
        writer.close()
        self.open -= 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

            async def is_left() -> bool:
                return self.open == 0

            await eventually(is_left)


@asynccontextmanager
async def worker(database_url: str, redis_url: str, port: int) -> AsyncIterator[Process]:
    """Run a process that calls the gateway as often as it is let."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.flow_worker"),
        *(database_url, redis_url, str(port), str(LIMIT)),
        cwd=REPOSITORY,
        stdout=PIPE,
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline()
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_no_kill_and_no_stop_lets_more_calls_fly_than_there_may(
    new_database: str, redis_url: str
) -> None:
    gateway = Gateway()

    async def serves(more: int) -> None:
        enough = gateway.served + more

        async def has_served() -> bool:
            return gateway.served >= enough

        await eventually(has_served)

    async with (
        gateway.running() as port,
        worker(new_database, redis_url, port) as killed,
        worker(new_database, redis_url, port) as stopped,
    ):
        await serves(50)
        os.kill(killed.pid, signal.SIGKILL)
        await serves(50)
        async with worker(new_database, redis_url, port):
            os.kill(stopped.pid, signal.SIGSTOP)
            await asyncio.sleep(LEASE_SECONDS + 1.5)  # Its share is the other's now.
            await serves(50)
            os.kill(stopped.pid, signal.SIGCONT)
            await serves(100)

    assert gateway.most == LIMIT
