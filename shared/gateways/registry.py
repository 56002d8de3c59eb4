"""The gateways we know: name, settings, how to build their two sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pydantic import Field, SecretStr, field_validator

from shared.gateways.http_client import HttpClient
from shared.gateways.interface import NoticeReader, PaymentGateway
from shared.gateways.sslcommerz.client import SslcommerzGateway
from shared.gateways.sslcommerz.webhooks import SslcommerzNotices
from shared.settings import ServiceSettings


class GatewaySettings(ServiceSettings):
    """What the services that speak to gateways read on top of the rest."""

    sslcommerz_base_url: str = Field(
        default="https://sandbox.sslcommerz.com", alias="SSLCOMMERZ_BASE_URL"
    )
    sslcommerz_store_id: str = Field(alias="SSLCOMMERZ_STORE_ID", min_length=1, max_length=30)
    #: Several, separated by commas, are valid for notices during a rotation; the first one calls.
    sslcommerz_store_password: SecretStr = Field(alias="SSLCOMMERZ_STORE_PASSWORD", min_length=1)
    gateway_timeout_seconds: float = Field(default=15, gt=0, alias="GATEWAY_TIMEOUT_SECONDS")

    #: Calls to one gateway that one process has in flight at most.
    gateway_calls_max: int = Field(default=256, ge=1, le=1_000, alias="GATEWAY_CALLS_MAX")

    @field_validator("sslcommerz_store_password")
    @classmethod
    def _holds_a_value(cls, secret: SecretStr) -> SecretStr:
        if not secrets_of(secret):
            raise ValueError("no value between the commas")
        return secret


def secrets_of(secret: SecretStr) -> list[str]:
    """Split a secret that may hold several values for rotation."""
    return [value for value in secret.get_secret_value().split(",") if value]


def _sslcommerz(settings: GatewaySettings) -> tuple[PaymentGateway, HttpClient]:
    client = HttpClient(
        settings.sslcommerz_base_url,
        total_timeout_seconds=settings.gateway_timeout_seconds,
        connections_max=settings.gateway_calls_max,
    )
    gateway = SslcommerzGateway(
        client,
        base_url=settings.sslcommerz_base_url,
        store_id=settings.sslcommerz_store_id,
        password=secrets_of(settings.sslcommerz_store_password)[0],
        public_url=settings.public_url,
    )
    return gateway, client


def _sslcommerz_notices(settings: GatewaySettings) -> NoticeReader:
    return SslcommerzNotices(
        settings.sslcommerz_store_id, secrets_of(settings.sslcommerz_store_password)
    )


#: How payments calls a gateway.
CLIENTS: Final[Mapping[str, Callable[[GatewaySettings], tuple[PaymentGateway, HttpClient]]]] = (
    MappingProxyType({"sslcommerz": _sslcommerz})
)

#: How webhook reads a gateway's notices.
NOTICE_READERS: Final[Mapping[str, Callable[[GatewaySettings], NoticeReader]]] = MappingProxyType(
    {"sslcommerz": _sslcommerz_notices}
)
