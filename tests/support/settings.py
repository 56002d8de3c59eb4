"""Settings for tests, made without the environment."""

from __future__ import annotations

from shared.settings import ServiceSettings

STORE_ID = "demo_store01"
STORE_PASSWORD = "demo_pass@ssl"


def service_settings(redis_url: str) -> ServiceSettings:
    """Return the settings that every service shares."""
    return ServiceSettings(redis_url=redis_url)
