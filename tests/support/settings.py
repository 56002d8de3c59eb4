"""Settings for tests, made without the environment."""

from __future__ import annotations

from pydantic import SecretStr

from shared.gateways.registration import GatewayKeys
from shared.gateways.sslcommerz.keys import SslcommerzKeys
from shared.settings import ServiceSettings

STORE_ID = "demo_store01"
STORE_PASSWORD = "demo_pass@ssl"


def service_settings(redis_url: str) -> ServiceSettings:
    """Return the settings that every service shares."""
    return ServiceSettings(redis_url=redis_url)


def gateways_of_tests() -> dict[str, GatewayKeys]:
    """Return the variables of the one gateway that is on unless a test says otherwise."""
    keys = SslcommerzKeys(
        sslcommerz_store_id=STORE_ID, sslcommerz_store_password=SecretStr(STORE_PASSWORD)
    )
    return {"sslcommerz": keys}
