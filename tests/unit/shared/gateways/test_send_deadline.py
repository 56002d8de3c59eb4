"""Nothing leaves for a gateway after the time within which it may be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.gateways import send_deadline
from shared.gateways.http_client import HttpCallError, HttpClient
from shared.gateways.send_deadline import is_too_late, send_within
from tests.support.scripted_server import ScriptedServer, answer, scripted_server


class Clocks:
    """Stands in for the module `time`, and moves when it is told to."""

    def __init__(self) -> None:
        self.since_boot = self.of_day = 1_000.0

    def monotonic(self) -> float:
        return self.since_boot

    def time(self) -> float:
        return self.of_day


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(send_deadline, "time", clocks)
    return clocks


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


def test_without_a_deadline_it_is_never_too_late(clocks: Clocks) -> None:
    clocks.since_boot += 1e9

    assert not is_too_late()


@pytest.mark.parametrize("clock", ["since_boot", "of_day"])
def test_it_is_too_late_by_either_clock(clocks: Clocks, clock: str) -> None:
    """One stands still while a machine sleeps, the other may be set back."""
    with send_within(30):
        setattr(clocks, clock, 1_029.9)
        assert not is_too_late()
        setattr(clocks, clock, 1_030.0)
        assert is_too_late()
    assert not is_too_late()


def test_of_two_deadlines_the_earlier_one_holds(clocks: Clocks) -> None:
    with send_within(30):
        clocks.since_boot += 20
        with send_within(30):
            clocks.since_boot += 11
            assert is_too_late()
        with send_within(1):
            assert is_too_late()


async def test_a_deadline_is_that_of_its_task_and_of_the_calls_it_makes(clocks: Clocks) -> None:
    with send_within(5):
        clocks.since_boot += 6
        inner = await asyncio.create_task(later())
    assert inner
    assert not await asyncio.create_task(later())


async def later() -> bool:
    return is_too_late()


@pytest.mark.usefixtures("clocks")
async def test_a_call_in_time_is_sent(server: ScriptedServer) -> None:
    client = HttpClient(server.url)
    server.then(answer(b"taken"))
    with send_within(30):
        assert (await client.post("/charge", b"{}", {})).body == b"taken"
    client.close()


async def test_a_late_call_is_not_sent_and_leaves_nothing_behind(
    server: ScriptedServer, clocks: Clocks
) -> None:
    client = HttpClient(server.url)
    server.then(answer(b"taken"))
    with send_within(30):
        clocks.since_boot += 31
        with pytest.raises(HttpCallError) as caught:
            await client.post("/charge", b"{}", {})

    assert caught.value.reason == "not_sent_in_time"
    assert server.requests == []
    assert (await client.get("/")).body == b"taken"
    client.close()
