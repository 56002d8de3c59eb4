"""A database and a running simulator for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from deploy.local.postgres_server import PostgresServer
from services.simulator.app import MIGRATIONS, SERVICE
from services.simulator.settings import SimulatorSettings
from shared.migrations import migrate
from tests.integration.simulator.world import (
    Merchant,
    Simulator,
    running_merchant,
    running_simulator,
)


@pytest.fixture
async def settings(postgres: PostgresServer) -> SimulatorSettings:
    name = f"test_{uuid.uuid4().hex}"
    postgres.create_database(name)
    settings = SimulatorSettings(
        database_url=postgres.url(name), public_url="http://gateway.example/"
    )
    await migrate(settings.database_url, SERVICE, MIGRATIONS)
    return settings


@pytest.fixture
async def merchant() -> AsyncIterator[Merchant]:
    async with running_merchant() as merchant:
        yield merchant


@pytest.fixture
async def simulator(settings: SimulatorSettings, merchant: Merchant) -> AsyncIterator[Simulator]:
    async with running_simulator(settings, merchant) as simulator:
        yield simulator
