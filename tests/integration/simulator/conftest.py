"""An empty database and a running simulator for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.world import (
    Merchant,
    Simulator,
    running_merchant,
    running_simulator,
)
from tests.support.reused_database import new_database, reused_database

__all__ = ["merchant", "new_database", "reused_database", "settings", "simulator"]


@pytest.fixture
def settings(new_database: str) -> SimulatorSettings:
    return SimulatorSettings(database_url=new_database, public_url="http://gateway.example/")


@pytest.fixture
async def merchant() -> AsyncIterator[Merchant]:
    async with running_merchant() as merchant:
        yield merchant


@pytest.fixture
async def simulator(settings: SimulatorSettings, merchant: Merchant) -> AsyncIterator[Simulator]:
    async with running_simulator(settings, merchant) as simulator:
        yield simulator
