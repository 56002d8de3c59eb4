"""The variables of Stripe, and how its two sides are built from them."""

from __future__ import annotations

import re
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.clock import Clock
from shared.gateways.interface import PaymentGateway
from shared.gateways.registration import GatewayKeys, Registration, Surroundings, secrets_of
from shared.gateways.stripe.capabilities import CAPABILITIES
from shared.gateways.stripe.webhooks import StripeNotices

#: Secret keys and restricted keys say in their names which of the two worlds they open.
_SECRET_KEY: Final = re.compile(r"(?:sk|rk)_(?P<world>live|test)_[A-Za-z0-9_]{4,255}")

_WEBHOOK_SECRET: Final = re.compile(r"whsec_[!-+\--~]{1,255}")


class StripeKeys(GatewayKeys):
    """One account, live or test."""

    stripe_base_url: str = Field(default="https://api.stripe.com", alias="STRIPE_BASE_URL")
    stripe_secret_key: SecretStr = Field(alias="STRIPE_SECRET_KEY")
    #: Several, separated by commas, are valid during a rotation.
    stripe_webhook_secret: SecretStr = Field(alias="STRIPE_WEBHOOK_SECRET")
    #: Stripe's library reads it by itself; it is here to be refused.
    stripe_log: str = Field(default="", alias="STRIPE_LOG", repr=False)

    @property
    def is_live(self) -> bool:
        """Whether the key moves real money."""
        found = _SECRET_KEY.fullmatch(self.stripe_secret_key.get_secret_value())
        return found is not None and found["world"] == "live"

    @field_validator("stripe_base_url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise ValueError("must be http(s)://host[:port][/path]")
        return url.rstrip("/")

    @field_validator("stripe_secret_key")
    @classmethod
    def _is_a_secret_key(cls, key: SecretStr) -> SecretStr:
        if _SECRET_KEY.fullmatch(key.get_secret_value()) is None:
            raise ValueError("must begin with sk_live_, sk_test_, rk_live_ or rk_test_")
        return key

    @field_validator("stripe_webhook_secret")
    @classmethod
    def _are_webhook_secrets(cls, secret: SecretStr) -> SecretStr:
        values = secrets_of(secret)
        # The whole text is the key, so that a space beside a comma would refuse every notice.
        if not values or not all(_WEBHOOK_SECRET.fullmatch(value) for value in values):
            raise ValueError("must be whsec_… secrets, separated by commas, without spaces")
        return secret

    @field_validator("stripe_log")
    @classmethod
    def _is_not_set(cls, level: str) -> str:
        if level:
            raise ValueError("must not be set: the library would print bodies with secrets in them")
        return level

    @model_validator(mode="after")
    def _live_means_encrypted(self) -> Self:
        if self.is_live and not self.stripe_base_url.startswith("https://"):
            raise ValueError("STRIPE_BASE_URL must be https with a live key")
        return self


def _client(keys: StripeKeys, surroundings: Surroundings) -> PaymentGateway:
    # Half a second and 30 MB that a process without Stripe, and the webhook service, need not pay.
    from shared.gateways.stripe.client import StripeGateway  # noqa: PLC0415

    return StripeGateway(
        surroundings,
        base_url=keys.stripe_base_url,
        secret_key=keys.stripe_secret_key.get_secret_value(),
        is_live=keys.is_live,
    )


def _notices(keys: StripeKeys, clock: Clock) -> StripeNotices:
    return StripeNotices(secrets_of(keys.stripe_webhook_secret), is_live=keys.is_live, clock=clock)


REGISTRATION: Final = Registration(
    name="stripe",
    capabilities=CAPABILITIES,
    keys=StripeKeys,
    switches=("STRIPE_SECRET_KEY",),
    client=_client,
    notices=_notices,
)
