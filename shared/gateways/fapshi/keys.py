"""The variables of Fapshi, and how its two sides are built from them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.clock import Clock
from shared.gateways.fapshi.client import FapshiGateway
from shared.gateways.fapshi.webhooks import FapshiNotices
from shared.gateways.registration import GatewayKeys, Registration, Surroundings, secrets_of

_LIVE_HOST: Final = "live.fapshi.com"
_SANDBOX_HOST: Final = "sandbox.fapshi.com"
_SANDBOX_KEY: Final = "FAK_TEST_"

#: What can stand in a header.
_HEADER_TEXT: Final = re.compile(r"[\x21-\x7e]+")


class FapshiKeys(GatewayKeys):
    """One service of the dashboard."""

    fapshi_base_url: str = Field(default=f"https://{_SANDBOX_HOST}", alias="FAPSHI_BASE_URL")
    fapshi_api_user: SecretStr = Field(alias="FAPSHI_API_USER")
    fapshi_api_key: SecretStr = Field(alias="FAPSHI_API_KEY")
    #: Several, separated by commas, are valid during a rotation. Without one all notices are
    #: refused, and payments are found by polling alone.
    fapshi_webhook_secret: SecretStr = Field(default=SecretStr(""), alias="FAPSHI_WEBHOOK_SECRET")
    #: How long after the longest call a transaction that is not listed is taken not to exist.
    fapshi_visible_after_seconds: float = Field(
        default=60, ge=0, le=86_400, alias="FAPSHI_VISIBLE_AFTER_SECONDS"
    )

    @field_validator("fapshi_api_user", "fapshi_api_key")
    @classmethod
    def _fits_a_header(cls, secret: SecretStr) -> SecretStr:
        if _HEADER_TEXT.fullmatch(secret.get_secret_value()) is None:
            raise ValueError("empty, or characters that no header can carry")
        return secret

    @model_validator(mode="after")
    def _belongs_to_its_host(self) -> FapshiKeys:
        host = urlsplit(self.fapshi_base_url).hostname
        is_sandbox_key = self.fapshi_api_key.get_secret_value().startswith(_SANDBOX_KEY)
        if (host == _LIVE_HOST and is_sandbox_key) or (
            host == _SANDBOX_HOST and not is_sandbox_key
        ):
            raise ValueError(
                f"FAPSHI_API_KEY and FAPSHI_BASE_URL are of different worlds: keys of the sandbox"
                f" begin with {_SANDBOX_KEY}"
            )
        return self


def _client(keys: FapshiKeys, surroundings: Surroundings) -> FapshiGateway:
    return FapshiGateway(
        surroundings.http_client(keys.fapshi_base_url),
        base_url=keys.fapshi_base_url,
        public_url=surroundings.public_url,
        api_user=keys.fapshi_api_user.get_secret_value(),
        api_key=keys.fapshi_api_key.get_secret_value(),
        certain_after=timedelta(
            seconds=surroundings.timeout_seconds + keys.fapshi_visible_after_seconds
        ),
        clock=surroundings.clock,
    )


def _notices(keys: FapshiKeys, _clock: Clock) -> FapshiNotices:
    return FapshiNotices(secrets_of(keys.fapshi_webhook_secret))


REGISTRATION: Final = Registration(
    name="fapshi",
    capabilities=FapshiGateway.capabilities,
    keys=FapshiKeys,
    switches=("FAPSHI_API_USER", "FAPSHI_API_KEY"),
    client=_client,
    notices=_notices,
)
