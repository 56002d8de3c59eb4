"""Who may call a gateway now, who waits, and who is put off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.breaker import BreakerState
from services.payments.domain.model import Deferred
from services.payments.flow.admission import PROBE_INTERVAL, Flow, Purpose
from services.payments.flow.controls import BreakerView, Controls
from shared.contracts.priorities import Priority
from tests.support.clocks import ManualClock
from tests.support.payments import NOW

HIGH, MEDIUM, NORMAL = Priority.HIGH, Priority.MEDIUM, Priority.NORMAL
CHECK, CHARGE = Purpose.CHECK, Purpose.CHARGE


class Gateway:
    """A gateway whose calls end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self._ends: list[asyncio.Future[None]] = []

    def call(self, name: Any) -> Callable[[], Awaitable[Any]]:
        async def make() -> Any:
            end = asyncio.get_running_loop().create_future()
            self.begun.append(name)
            self._ends.append(end)
            await end
            return name

        return make

    async def end(self, count: int = 1) -> None:
        for _ in range(count):
            self._ends.pop(0).set_result(None)
            await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def flow_of(controls: Controls, *, minimum_share: int = 5) -> Flow:
    return Flow(ManualClock(NOW), controls, minimum_share=minimum_share, judge=lambda _: (False, 0))


def ask(
    flow: Flow,
    gateway: Gateway,
    name: Any,
    *,
    of: str = "stripe",
    priority: Priority = NORMAL,
    purpose: Purpose = CHECK,
) -> asyncio.Task[Any]:
    return asyncio.create_task(flow.call(of, priority, purpose, gateway.call(name)))


async def test_calls_that_move_money_are_limited_together_and_those_that_ask_are_not() -> None:
    flow, gateway = flow_of(Controls(charges=2)), Gateway()
    charges = [ask(flow, gateway, n, of=of, purpose=CHARGE) for n, of in enumerate("abc")]
    await settled()
    assert gateway.begun == [0, 1]
    check = ask(flow, gateway, "check", of="c")
    await settled()
    assert gateway.begun == [0, 1, "check"]
    await gateway.end(4)
    assert [await charge for charge in charges] == [0, 1, 2]
    assert await check == "check"


async def test_a_gateway_s_own_limit_holds_up_only_its_own_calls() -> None:
    flow, gateway = flow_of(Controls(gateway_calls={"stripe": 1})), Gateway()
    calls = [ask(flow, gateway, n) for n in range(3)]
    calls += [ask(flow, gateway, n, of="campay") for n in (10, 11)]
    await settled()
    assert gateway.begun == [0, 10, 11]
    assert flow.demand("stripe") == (1, 2)
    assert flow.demand("campay") == (2, 0)
    await gateway.end(5)
    assert gateway.begun == [0, 10, 11, 1, 2]
    assert flow.demand("stripe") == (0, 0)
    await asyncio.gather(*calls)


async def test_turns_go_to_the_most_urgent_and_a_minimum_share_to_the_others() -> None:
    flow, gateway = flow_of(Controls(gateway_calls={"stripe": 1}), minimum_share=10), Gateway()
    calls = [ask(flow, gateway, "first")]
    for level in (NORMAL, MEDIUM, HIGH):
        calls += [ask(flow, gateway, level, priority=level) for _ in range(60)]
    await settled()
    await gateway.end(61)
    counts = Counter(gateway.begun[1:61])
    assert counts == {HIGH: 54, MEDIUM: 3, NORMAL: 3}
    assert gateway.begun[1:10] == [HIGH] * 9

    await gateway.end(120)
    assert Counter(gateway.begun[1:]) == {HIGH: 60, MEDIUM: 60, NORMAL: 60}
    await asyncio.gather(*calls)


async def test_within_a_priority_the_first_to_come_goes_first_whatever_its_gateway() -> None:
    flow, gateway = flow_of(Controls(charges=1)), Gateway()
    calls = [
        ask(flow, gateway, n, of=of, purpose=CHARGE)
        for n, of in enumerate(("a", "b", "b", "a", "c"))
    ]
    await settled()
    await gateway.end(5)
    assert gateway.begun == [0, 1, 2, 3, 4]
    await asyncio.gather(*calls)


async def test_a_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    flow = flow_of(Controls(gateway_rate={"stripe": 20.0}))
    at: list[float] = []

    async def call() -> None:
        at.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(flow.call("stripe", NORMAL, CHECK, call) for _ in range(40)))

    assert at[19] - at[0] < 0.5
    assert at[39] - at[0] >= 0.9


@pytest.mark.parametrize("target", ["all", "gateway:stripe", "priority:normal"])
async def test_a_pause_puts_off_who_comes_and_who_waits_and_lets_finish_who_is_at_it(
    target: str,
) -> None:
    flow, gateway = flow_of(Controls(gateway_calls={"stripe": 1})), Gateway()
    running, waiting = (ask(flow, gateway, n) for n in range(2))
    await settled()
    flow.controls = Controls(gateway_calls={"stripe": 1}, paused={target: "maintenance"})
    assert await waiting == Deferred(f"paused:{target}", NOW)
    assert await ask(flow, gateway, 2) == Deferred(f"paused:{target}", NOW)
    assert flow.claimable(["stripe"], NORMAL, 50) == {}
    await gateway.end()
    assert await running == 0

    flow.controls = Controls()
    resumed = ask(flow, gateway, 3)
    await settled()
    await gateway.end()
    assert await resumed == 3
    assert gateway.begun == [0, 3]


async def test_a_pause_of_one_gateway_or_priority_leaves_the_others_alone() -> None:
    paused = {"gateway:stripe": "x", "priority:high": "y"}
    flow, gateway = flow_of(Controls(paused=paused)), Gateway()
    call = ask(flow, gateway, 1, of="campay")
    await settled()
    await gateway.end()
    assert await call == 1
    assert flow.deferral("campay", HIGH) == Deferred("paused:priority:high", NOW)
    assert flow.claimable(["stripe", "campay"], NORMAL, 50) == {"campay": 50}


async def test_while_a_breaker_is_open_calls_are_put_off_until_its_probes() -> None:
    until = NOW + timedelta(seconds=60)
    flow, gateway = flow_of(Controls()), Gateway()
    flow.controls = Controls(breakers={"stripe": BreakerView(BreakerState.OPEN, until=until)})
    assert await ask(flow, gateway, 1) == Deferred("breaker_open", until)
    assert gateway.begun == []


async def test_a_half_open_breaker_lets_exactly_its_probes_through() -> None:
    flow, gateway = flow_of(Controls()), Gateway()
    flow.controls = Controls(breakers={"stripe": BreakerView(BreakerState.HALF_OPEN, probes=2)})
    assert flow.claimable(["stripe"], NORMAL, 50) == {"stripe": 2}
    calls = [ask(flow, gateway, n) for n in range(4)]
    await settled()
    await gateway.end(2)
    put_off = Deferred("breaker_half_open", NOW + PROBE_INTERVAL)
    assert await asyncio.gather(*calls) == [0, 1, put_off, put_off]
    assert flow.claimable(["stripe"], NORMAL, 50) == {}


async def test_a_call_that_is_given_up_while_it_waits_takes_no_turn() -> None:
    flow, gateway = flow_of(Controls(gateway_calls={"stripe": 1})), Gateway()
    running, given_up, last = (ask(flow, gateway, n) for n in range(3))
    await settled()
    given_up.cancel()
    await settled()
    await gateway.end(2)
    assert gateway.begun == [0, 2]
    assert [await running, await last] == [0, 2]
    assert given_up.cancelled()
    assert flow.demand("stripe") == (0, 0)


async def test_a_turn_that_comes_together_with_the_end_of_its_task_is_passed_on() -> None:
    flow, gateway = flow_of(Controls(gateway_calls={"stripe": 1})), Gateway()
    running, given_up, last = (ask(flow, gateway, n) for n in range(3))
    await settled()
    gateway._ends.pop(0).set_result(None)
    await asyncio.sleep(0)  # The turn is given; its task has not run yet.
    given_up.cancel()
    await settled()
    assert gateway.begun[-1] == 2
    await gateway.end()
    assert [await running, await last] == [0, 2]
    assert flow.demand("stripe") == (0, 0)


async def test_a_call_that_raises_gives_its_turn_back() -> None:
    flow, gateway = flow_of(Controls(gateway_calls={"stripe": 1})), Gateway()

    async def fail() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await flow.call("stripe", NORMAL, CHECK, fail)
    after = ask(flow, gateway, 1)
    await settled()
    await gateway.end()
    assert await after == 1
