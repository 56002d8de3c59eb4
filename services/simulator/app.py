"""The simulator's process: its routes, and the tasks that let it do things by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from services.simulator import notices
from services.simulator.campay.gateway import CampaySimulator
from services.simulator.control import control_routes
from services.simulator.core import Core
from services.simulator.fapshi.gateway import FapshiSimulator
from services.simulator.gateway import GatewaySimulator
from services.simulator.settings import SimulatorSettings
from services.simulator.sslcommerz.gateway import SslcommerzSimulator
from services.simulator.stripe.gateway import StripeSimulator
from services.simulator.x402.gateway import X402Simulator
from shared.clock import system_clock
from shared.database import Database
from shared.migrations import Component
from shared.partitions import PartitionedTable
from shared.process import Part

SERVICE: Final = "simulator"

MIGRATIONS: Final = (Component(SERVICE, Path(__file__).resolve().parent / "migrations"),)

PARTITIONED_TABLES: Final[tuple[PartitionedTable, ...]] = ()


def build_gateways(core: Core, settings: SimulatorSettings) -> Sequence[GatewaySimulator]:
    """Return every gateway there is."""
    return (
        SslcommerzSimulator(core, settings),
        FapshiSimulator(core, settings),
        CampaySimulator(core, settings),
        StripeSimulator(core, settings),
        X402Simulator(core, settings),
    )


@asynccontextmanager
async def http_part(settings: SimulatorSettings) -> AsyncIterator[Part]:
    """Open the simulator.

    Raises:
        DatabaseUnavailableError: PostgreSQL does not answer.
    """
    database = Database(settings.database_url, SERVICE)
    await database.open()
    core = Core(
        database=database,
        clock=system_clock,
        public_url=settings.public_url.rstrip("/"),
        notice_url=(settings.notice_url or settings.public_url).rstrip("/"),
    )
    gateways = build_gateways(core, settings)
    customers = notices.Customers(core, {gateway.name: gateway for gateway in gateways})
    try:
        async with notices.open_client() as client:
            yield Part(
                name=SERVICE,
                routes=[
                    *control_routes(core, gateways),
                    *(route for gateway in gateways for route in gateway.routes()),
                ],
                tasks=(
                    notices.Sender(core, client).run,
                    customers.run,
                    partial(notices.end_sessions, core, gateways),
                ),
                ping_database=database.ping,
            )
    finally:
        await database.close()
