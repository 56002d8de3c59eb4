"""All processes share one breaker per gateway: it opens for all, and few probes close it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from services.payments.domain.breaker import BreakerForce, BreakerState
from services.payments.domain.model import Deferred
from services.payments.flow.admission import Purpose
from services.payments.handlers.breakers import force_breaker
from services.payments.handlers.flow_sync import FlowSync
from services.payments.runtime import Runtime
from services.payments.store import flow as flow_store
from services.payments.store.flow import ProcessKind, Transition
from shared.clock import system_clock
from shared.contracts.priorities import Priority
from shared.errors import DatabaseUnavailableError
from shared.gateways.interface import Declined, FailureKind, Outcome, Pending, Unknown
from shared.web.operator_actions import Instruction
from tests.integration.payments.world import running_runtime
from tests.support.clocks import START, ManualClock
from tests.support.fake_gateway import FakeGateway

GATEWAY = "sslcommerz"

WORKS = Pending("not_attempted")
FAILS = Unknown("timeout")
DECLINES = Declined("no funds", FailureKind.INSUFFICIENT_FUNDS, is_final=True)


class Process:
    """One process that calls the gateway when it is let, and counts its calls."""

    def __init__(self, runtime: Runtime, kind: ProcessKind) -> None:
        self.runtime = runtime
        self.flow = runtime.flow
        self.step = FlowSync(runtime, kind)
        self.calls = 0

    async def call(self, answer: Outcome, times: int = 1) -> list[Outcome | Deferred]:
        async def make() -> Outcome:
            self.calls += 1
            return answer

        return list(
            await asyncio.gather(
                *(
                    self.flow.call(GATEWAY, Priority.NORMAL, Purpose.CHECK, make)
                    for _ in range(times)
                )
            )
        )

    async def hears(self) -> BreakerState:
        await self.step.synchronize()
        return self.flow.controls.breakers[GATEWAY].state

    def deferral(self) -> Deferred | None:
        return self.flow.deferral(GATEWAY, Priority.NORMAL)


class Fleet:
    """Processes that share a database and a clock."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self.clock = ManualClock()
        self.stack = AsyncExitStack()
        self._urls = (database_url, redis_url)

    async def start(self, kind: ProcessKind = "worker") -> Process:
        runtime = await self.stack.enter_async_context(
            running_runtime(*self._urls, FakeGateway(), self.clock)
        )
        process = Process(runtime, kind)
        await process.step.synchronize()
        return process

    async def history(self, process: Process) -> list[Transition]:
        async with process.runtime.core.database.connection() as connection:
            return (await flow_store.list_transitions(connection, GATEWAY, 100))[::-1]


@pytest.fixture
async def fleet(new_database: str, redis_url: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(new_database, redis_url)
    async with fleet.stack:
        yield fleet


async def opened(process: Process) -> None:
    await process.call(FAILS, 10)
    assert await process.hears() is BreakerState.OPEN


async def test_what_one_process_sees_keeps_all_from_calling(fleet: Fleet) -> None:
    one, other = await fleet.start(), await fleet.start("http")
    await opened(one)

    assert await other.hears() is BreakerState.OPEN
    expected = Deferred("too_many_failures", START + timedelta(seconds=60))
    assert await other.call(WORKS) == await one.call(WORKS) == [expected]
    assert (one.calls, other.calls) == (10, 0)


async def test_failures_of_all_processes_count_together(fleet: Fleet) -> None:
    processes = [await fleet.start() for _ in range(3)]
    for process in processes:
        await process.call(FAILS, 3)
        assert await process.hears() is BreakerState.CLOSED

    await processes[0].call(FAILS)

    assert [await process.hears() for process in processes] == [BreakerState.OPEN] * 3


async def test_calls_slide_out_of_the_window(fleet: Fleet) -> None:
    process = await fleet.start()
    await process.call(FAILS, 9)
    await process.hears()

    fleet.clock.advance(31)
    await process.call(FAILS, 9)

    assert await process.hears() is BreakerState.CLOSED


async def test_a_gateway_that_declines_works(fleet: Fleet) -> None:
    process = await fleet.start()
    await process.call(DECLINES, 200)

    assert await process.hears() is BreakerState.CLOSED


async def test_few_probes_are_made_by_the_whole_fleet(fleet: Fleet) -> None:
    processes = [await fleet.start() for _ in range(4)] + [await fleet.start("http")]
    await opened(processes[0])
    made = sum(process.calls for process in processes)

    fleet.clock.advance(60)
    for _ in range(5):
        for process in processes:
            assert await process.hears() is BreakerState.HALF_OPEN
        await asyncio.gather(*(_hang(process) for process in processes))

    assert sum(process.calls for process in processes) - made == 5
    assert processes[-1].calls == 0


async def _hang(process: Process) -> None:
    """Let twenty payments wish for a call; what is admitted is not over before the test."""

    async def make() -> Outcome:
        process.calls += 1
        await asyncio.sleep(3_600)
        return WORKS

    async def wish() -> None:
        await process.flow.call(GATEWAY, Priority.NORMAL, Purpose.CHECK, make)

    tasks = [asyncio.create_task(wish()) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_worker_without_use_for_its_probes_leaves_them_to_others(fleet: Fleet) -> None:
    idle, busy = await fleet.start(), await fleet.start()
    await opened(idle)
    fleet.clock.advance(60)
    await idle.hears()
    await busy.hears()
    await busy.call(WORKS, 3)
    made = idle.calls + busy.calls
    assert await busy.hears() is BreakerState.HALF_OPEN

    fleet.clock.advance(4)
    await idle.hears()
    assert isinstance((await idle.call(WORKS))[0], Deferred)
    await busy.hears()
    await busy.call(WORKS, 9)

    assert idle.calls + busy.calls - made == 3
    assert await busy.hears() is BreakerState.CLOSED


async def test_what_is_old_is_forgotten(fleet: Fleet) -> None:
    one, gone = await fleet.start(), await fleet.start()
    await gone.call(WORKS)
    await gone.hears()
    async with one.runtime.core.database.connection() as connection:
        aged = "UPDATE flow_process SET leased_until = now() - interval '2 h' WHERE id = $1"
        await connection.execute(aged, gone.step.process)
        await flow_store.forget_old(connection, fleet.clock())
        assert await connection.fetchval("SELECT count(*) FROM gateway_calls") == 1
        await flow_store.forget_old(connection, fleet.clock.advance(1))

        assert await connection.fetchval("SELECT count(*) FROM gateway_calls") == 0
        assert await connection.fetchval("SELECT id FROM flow_process") == one.step.process


async def test_probes_that_succeed_close_it_for_all(fleet: Fleet) -> None:
    one, other = await fleet.start(), await fleet.start()
    await opened(one)
    fleet.clock.advance(60)
    assert await one.hears() is await other.hears() is BreakerState.HALF_OPEN

    await one.call(WORKS, 3)

    assert await one.hears() is await other.hears() is BreakerState.CLOSED
    assert await other.call(WORKS) == [WORKS]


async def test_probes_that_fail_open_it_again_for_its_time(fleet: Fleet) -> None:
    one, other = await fleet.start(), await fleet.start()
    await opened(one)
    fleet.clock.advance(60)
    await one.hears()
    await other.hears()

    await one.call(FAILS, 3)
    await one.hears()

    assert await other.hears() is BreakerState.OPEN
    assert other.deferral() == Deferred("probes_failed", START + timedelta(seconds=120))


async def test_it_may_flap_and_its_history_tells(fleet: Fleet) -> None:
    process = await fleet.start()
    for _ in range(3):
        await opened(process)
        fleet.clock.advance(60)
        assert await process.hears() is BreakerState.HALF_OPEN
        await process.call(WORKS, 3)
        assert await process.hears() is BreakerState.CLOSED
        fleet.clock.advance(1)

    told = await fleet.history(process)
    assert [each.state for each in told] == ["open", "half_open", "closed"] * 3
    assert [each.reason for each in told[:3]] == [
        *("too_many_failures", "wait_is_over", "probes_succeeded"),
    ]
    assert (told[0].seen.calls, told[0].seen.failures) == (10, 10)


async def test_calls_before_it_closed_do_not_open_it_again(fleet: Fleet) -> None:
    process = await fleet.start()
    await opened(process)
    fleet.clock.advance(20)
    async with process.runtime.core.database.transaction() as connection:
        await connection.execute("UPDATE gateway_breaker SET until = $1", fleet.clock())
    await process.hears()
    await process.call(WORKS, 3)
    assert await process.hears() is BreakerState.CLOSED

    fleet.clock.advance(1)
    await process.call(FAILS)

    assert await process.hears() is BreakerState.CLOSED


async def test_many_who_decide_at_once_decide_once(fleet: Fleet) -> None:
    processes = [await fleet.start() for _ in range(6)]
    await processes[0].call(FAILS, 10)
    for rounds in range(1, 11):
        states = await asyncio.gather(*(process.hears() for process in processes))
        assert BreakerState.OPEN in states
        fleet.clock.advance(60)
        await asyncio.gather(*(process.hears() for process in processes))
        for process in processes:
            await process.call(FAILS, 5)
        assert len(await fleet.history(processes[0])) == 2 * rounds


async def test_a_gateway_that_asks_for_a_pause_gets_it_from_all(fleet: Fleet) -> None:
    one, other = await fleet.start(), await fleet.start()
    await one.call(Unknown("http_429", 30.0))
    await one.hears()
    await other.hears()

    assert other.deferral() == Deferred("rate_limited", START + timedelta(seconds=30))
    assert await fleet.history(one) == []
    fleet.clock.advance(30)
    assert await other.hears() is BreakerState.CLOSED
    assert await other.call(WORKS) == [WORKS]


async def test_who_is_asked_to_wait_waits_at_once(fleet: Fleet) -> None:
    process = await fleet.start()
    await process.call(Unknown("http_429", 30.0))

    expected = Deferred("rate_limited", START + timedelta(seconds=30))
    assert await process.call(WORKS) == [expected]


async def test_a_moment_is_waited_out(new_database: str, redis_url: str) -> None:
    async with running_runtime(new_database, redis_url, FakeGateway(), system_clock) as runtime:
        process = Process(runtime, "worker")
        await process.call(Unknown("http_429", 1.0))
        await process.hears()
        loop = asyncio.get_running_loop()
        asked_at = loop.time()

        assert await process.call(WORKS) == [WORKS]
        assert loop.time() - asked_at > 0.8


async def test_an_operator_need_not_wait_for_a_gateway(fleet: Fleet) -> None:
    process = await fleet.start()
    by_hand = Instruction("act_1", "ops", "their clock is wrong")
    await force_breaker(process.runtime, by_hand, GATEWAY, BreakerForce.CLOSED)
    await process.hears()
    await process.call(Unknown("http_429", 30.0))

    assert await process.call(WORKS) == [WORKS]
    await process.hears()
    assert await process.call(WORKS) == [WORKS]


async def test_what_was_heard_last_holds_while_postgresql_is_away(fleet: Fleet) -> None:
    one, other = await fleet.start(), await fleet.start()
    await opened(one)
    await other.hears()
    await other.runtime.core.database.close()

    with pytest.raises(DatabaseUnavailableError):
        await other.step.synchronize()

    assert other.deferral() == Deferred("too_many_failures", START + timedelta(seconds=60))


async def test_what_was_seen_is_told_when_postgresql_is_back(fleet: Fleet) -> None:
    process = await fleet.start()
    await process.call(FAILS, 10)
    await process.runtime.core.database.close()
    with pytest.raises(DatabaseUnavailableError):
        await process.step.synchronize()
    await process.runtime.core.database.open()

    assert await process.hears() is BreakerState.OPEN


async def test_an_operator_opens_and_closes_it(fleet: Fleet) -> None:
    process = await fleet.start()
    by_hand = Instruction("act_1", "ops", "they move their servers")
    await force_breaker(process.runtime, by_hand, GATEWAY, BreakerForce.OPEN)

    assert await process.hears() is BreakerState.OPEN
    fleet.clock.advance(3_600)
    assert await process.hears() is BreakerState.OPEN

    by_hand = Instruction("act_2", "ops", "they say that all is well")
    await force_breaker(process.runtime, by_hand, GATEWAY, BreakerForce.CLOSED)
    await process.hears()
    await process.call(FAILS, 50)
    assert await process.hears() is BreakerState.CLOSED
    told = await fleet.history(process)
    assert [(each.state, each.force, each.actor) for each in told] == [
        ("open", "open", "ops"),
        ("closed", "closed", "ops"),
    ]
