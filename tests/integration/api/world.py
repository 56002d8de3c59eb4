"""The HTTP sides of services, as they are composed for real, before the simulator's gateways."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from deploy.local.ports import free_port
from deploy.local.services import load_service
from services.simulator.app import http_part as simulator_part
from services.simulator.settings import SimulatorSettings
from shared.gateways.registration import GatewayKeys
from shared.gateways.sslcommerz.keys import SslcommerzKeys
from shared.gateways.stripe.keys import StripeKeys
from shared.process import Part
from tests.support.http_api import serving

#: The services that have an API of ours.
SERVICES = ("webhook", "payments", "enrollment", "scheduler")


def gateways_at(url: str) -> dict[str, GatewayKeys]:
    """Return the accounts that the simulator, at `url`, has unless it is told otherwise."""
    accounts = SimulatorSettings(database_url="")
    return {
        "sslcommerz": SslcommerzKeys(
            sslcommerz_base_url=url,
            sslcommerz_store_id=accounts.sslcommerz_store_id,
            sslcommerz_store_password=accounts.sslcommerz_store_password,
        ),
        "stripe": StripeKeys(
            stripe_base_url=f"{url}/stripe",
            stripe_secret_key=accounts.stripe_secret_key,
            stripe_webhook_secret=accounts.stripe_webhook_secret,
        ),
    }


@asynccontextmanager
async def opened_parts(
    names: Sequence[str],
    database_url: str,
    redis_url: str,
    gateways: Mapping[str, GatewayKeys] | None = None,
) -> AsyncIterator[list[Part]]:
    """Open the HTTP sides of services."""
    async with AsyncExitStack() as stack:
        parts = []
        for name in names:
            service = load_service(name)
            values: dict[str, Any] = {"database_url": database_url, "redis_url": redis_url}
            if "gateways" in service.settings.model_fields:
                values["gateways"] = gateways or gateways_at("http://127.0.0.1:9")
            settings = service.settings(**values)
            parts.append(await stack.enter_async_context(service.http_part(settings)))
        yield parts


@asynccontextmanager
async def simulated_gateway(database_url: str) -> AsyncIterator[str]:
    """Run the simulator and return its address."""
    port = free_port()
    # Customers open its pages there, and the client of SSLCommerz believes in no other address.
    settings = SimulatorSettings(database_url=database_url, public_url=f"http://127.0.0.1:{port}")
    async with simulator_part(settings) as part, serving(parts=[part], port=port) as api:
        yield api.url
