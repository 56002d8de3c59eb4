"""Settings of the simulator."""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr

from shared.settings import ServiceSettings


class SimulatorSettings(ServiceSettings):
    """What the simulator reads from the environment.

    Store id and password have defaults, because they protect nothing: the simulator moves no money.
    """

    database_url: str = Field(
        validation_alias=AliasChoices("SIMULATOR_DATABASE_URL", "DATABASE_URL")
    )
    sslcommerz_store_id: str = Field(default="sluice_demo", alias="SSLCOMMERZ_STORE_ID")
    sslcommerz_store_password: SecretStr = Field(
        default=SecretStr("sluice_demo_password"), alias="SSLCOMMERZ_STORE_PASSWORD"
    )
    #: How long a customer may take. The real gateway's value is not documented.
    session_seconds: int = Field(default=1800, ge=1, alias="SIMULATOR_SESSION_SECONDS")
