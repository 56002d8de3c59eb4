"""The simulator forgets nothing when it or PostgreSQL is restarted."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from deploy.local.postgres_server import PostgresServer
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.world import (
    QUERY_PATH,
    SESSION_PATH,
    Merchant,
    eventually,
    running_simulator,
)
from tests.unit.simulator.forms import session_form


async def test_a_notice_that_was_due_during_a_restart_is_sent_after_it(
    settings: SimulatorSettings, merchant: Merchant
) -> None:
    async with running_simulator(settings, merchant) as first:
        script = {"operation": "notice", "behaviour": "late", "delaySeconds": 600}
        await first.control("POST", "script", script)
        paid = await first.paid()
        await first.execute("UPDATE notice SET leased_until = now() + interval '1 s'")
        await first.execute("UPDATE notice SET due_at = now()")

    async with running_simulator(settings, merchant) as second:
        await second.sent_notices(paid["reference"])

    assert [notice["tran_id"] for notice in merchant.notices] == [paid["reference"]]


async def test_a_script_outlives_a_restart(settings: SimulatorSettings, merchant: Merchant) -> None:
    async with running_simulator(settings, merchant) as first:
        await first.control("POST", "script", {"operation": "query", "behaviour": "error"})

    async with running_simulator(settings, merchant) as second:
        assert await second.status_of(QUERY_PATH, tran_id="INV-1") == 500


async def test_while_postgres_is_away_calls_answer_503_and_afterwards_all_goes_on(
    postgres: PostgresServer, settings: SimulatorSettings, merchant: Merchant
) -> None:
    async with running_simulator(settings, merchant) as simulator:
        opened = await simulator.open()
        await asyncio.to_thread(postgres.stop)
        try:
            form = session_form()
            address = simulator.url + SESSION_PATH
            async with simulator.client.post(address, data=form) as response:
                assert response.status == 503
                assert "Retry-After" in response.headers
            async with simulator.client.get(simulator.url + "/readyz") as response:
                assert response.status == 503
        finally:
            await asyncio.to_thread(postgres.start)

        async def answers_again() -> bool:
            return await simulator.status_of(QUERY_PATH, tran_id="INV-1") == 200

        await eventually(answers_again)
        await simulator.pay(opened["tran_id"])
        await simulator.sent_notices(opened["tran_id"])

    assert len(merchant.notices) == 1


async def test_a_stop_ends_a_call_that_was_made_to_hang(
    settings: SimulatorSettings, merchant: Merchant
) -> None:
    async with aiohttp.ClientSession() as client:
        async with asyncio.timeout(10), running_simulator(settings, merchant) as simulator:
            script = {"operation": "query", "behaviour": "timeout", "delaySeconds": 600}
            await simulator.control("POST", "script", script)
            hanging = asyncio.create_task(client.get(simulator.url + QUERY_PATH))

            async def hangs() -> bool:
                return await simulator.execute("SELECT times_left = 0 FROM script") is True

            await eventually(hangs)
        with pytest.raises(aiohttp.ClientConnectionError):
            await hanging
