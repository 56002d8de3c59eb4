"""The variables of SSLCommerz, and how its two sides are built from them."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SecretStr, field_validator

from shared.clock import Clock
from shared.gateways.registration import GatewayKeys, Registration, Surroundings, secrets_of
from shared.gateways.sslcommerz.client import SslcommerzGateway
from shared.gateways.sslcommerz.webhooks import SslcommerzNotices


class SslcommerzKeys(GatewayKeys):
    """One store."""

    sslcommerz_base_url: str = Field(
        default="https://sandbox.sslcommerz.com", alias="SSLCOMMERZ_BASE_URL"
    )
    sslcommerz_store_id: str = Field(alias="SSLCOMMERZ_STORE_ID", min_length=1, max_length=30)
    #: Several, separated by commas, are valid for notices during a rotation; the first one calls.
    sslcommerz_store_password: SecretStr = Field(alias="SSLCOMMERZ_STORE_PASSWORD", min_length=1)

    @field_validator("sslcommerz_store_password")
    @classmethod
    def _holds_a_value(cls, secret: SecretStr) -> SecretStr:
        if not secrets_of(secret):
            raise ValueError("no value between the commas")
        return secret


def _client(keys: SslcommerzKeys, surroundings: Surroundings) -> SslcommerzGateway:
    return SslcommerzGateway(
        surroundings.http_client(keys.sslcommerz_base_url),
        base_url=keys.sslcommerz_base_url,
        store_id=keys.sslcommerz_store_id,
        password=secrets_of(keys.sslcommerz_store_password)[0],
        public_url=surroundings.public_url,
    )


def _notices(keys: SslcommerzKeys, _clock: Clock) -> SslcommerzNotices:
    return SslcommerzNotices(keys.sslcommerz_store_id, secrets_of(keys.sslcommerz_store_password))


REGISTRATION: Final = Registration(
    name="sslcommerz",
    capabilities=SslcommerzGateway.capabilities,
    keys=SslcommerzKeys,
    switches=("SSLCOMMERZ_STORE_ID", "SSLCOMMERZ_STORE_PASSWORD"),
    client=_client,
    notices=_notices,
)
