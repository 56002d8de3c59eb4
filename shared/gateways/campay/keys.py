"""The variables of Campay, and how its two sides are built from them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.clock import Clock
from shared.gateways.campay.client import CampayGateway
from shared.gateways.campay.tokens import HEADER_TEXT
from shared.gateways.campay.webhooks import CampayNotices
from shared.gateways.registration import GatewayKeys, Registration, Surroundings, secrets_of

_NONE: Final = SecretStr("")


class CampayKeys(GatewayKeys):
    """One application of the dashboard."""

    #: Without the `/api` with which every path begins.
    campay_base_url: str = Field(default="https://demo.campay.net", alias="CAMPAY_BASE_URL")
    #: A permanent token; without one, user name and password get tokens.
    campay_token: SecretStr = Field(default=_NONE, alias="CAMPAY_TOKEN")
    campay_username: SecretStr = Field(default=_NONE, alias="CAMPAY_USERNAME")
    campay_password: SecretStr = Field(default=_NONE, alias="CAMPAY_PASSWORD")
    #: Several, separated by commas, are valid during a rotation. Without one all notices are
    #: refused, and payments are found by polling alone.
    campay_webhook_key: SecretStr = Field(default=_NONE, alias="CAMPAY_WEBHOOK_KEY")
    #: How long after the longest call a prompt that is not in the history is taken not to exist.
    campay_visible_after_seconds: float = Field(
        default=900, ge=0, le=86_400, alias="CAMPAY_VISIBLE_AFTER_SECONDS"
    )

    @field_validator("campay_token")
    @classmethod
    def _fits_a_header(cls, secret: SecretStr) -> SecretStr:
        token = secret.get_secret_value()
        if token and HEADER_TEXT.fullmatch(token) is None:
            raise ValueError("characters that no header can carry")
        return secret

    @model_validator(mode="after")
    def _can_call(self) -> CampayKeys:
        has_both = (
            self.campay_username.get_secret_value() and self.campay_password.get_secret_value()
        )
        if not self.campay_token.get_secret_value() and not has_both:
            raise ValueError("CAMPAY_TOKEN is missing, or CAMPAY_USERNAME with CAMPAY_PASSWORD")
        return self

    def credentials(self) -> str | tuple[str, str]:
        """Return the permanent token, or else user name and password."""
        return self.campay_token.get_secret_value() or (
            self.campay_username.get_secret_value(),
            self.campay_password.get_secret_value(),
        )


def _client(keys: CampayKeys, surroundings: Surroundings) -> CampayGateway:
    return CampayGateway(
        surroundings.http_client(keys.campay_base_url),
        base_url=keys.campay_base_url,
        public_url=surroundings.public_url,
        credentials=keys.credentials(),
        timeout_seconds=surroundings.timeout_seconds,
        visible_after=timedelta(seconds=keys.campay_visible_after_seconds),
        clock=surroundings.clock,
    )


def _notices(keys: CampayKeys, clock: Clock) -> CampayNotices:
    return CampayNotices(secrets_of(keys.campay_webhook_key), clock)


REGISTRATION: Final = Registration(
    name="campay",
    capabilities=CampayGateway.capabilities,
    keys=CampayKeys,
    switches=("CAMPAY_TOKEN", "CAMPAY_USERNAME", "CAMPAY_PASSWORD"),
    client=_client,
    notices=_notices,
    notices_by_get=True,
)
