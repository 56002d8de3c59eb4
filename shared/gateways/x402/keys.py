"""The variables of x402, and how its client is built from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import AwareDatetime, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from shared.gateways.registration import (
    GatewayKeys,
    Registration,
    SpendingLimits,
    Surroundings,
)
from shared.gateways.x402.capabilities import CAPABILITIES
from shared.gateways.x402.networks import NETWORKS
from shared.money import MINOR_UNITS_MAX

if TYPE_CHECKING:
    from shared.gateways.x402.client import X402Gateway

#: A mounted key file holds 64 digits and perhaps an end of line.
_KEY_FILE_BYTES_MAX: Final = 1_000


class X402Keys(GatewayKeys):
    """One wallet, one network, one facilitator."""

    # An empty variable counts as not set, as it does for the switches.
    model_config = SettingsConfigDict(hide_input_in_errors=True, env_ignore_empty=True)

    x402_facilitator_url: str = Field(alias="X402_FACILITATOR_URL", pattern=r"^https?://[!-~]+$")
    #: For facilitators that ask for a bearer token.
    x402_facilitator_token: SecretStr = Field(default=SecretStr(""), alias="X402_FACILITATOR_TOKEN")
    x402_network: str = Field(alias="X402_NETWORK")
    #: The wallet's key in hexadecimal, or a file that holds it: one of the two.
    x402_private_key: SecretStr = Field(default=SecretStr(""), alias="X402_PRIVATE_KEY")
    x402_private_key_file: Path | None = Field(default=None, alias="X402_PRIVATE_KEY_FILE")
    #: Keys the nonces. Like the wallet it may change only while no payment is open.
    x402_nonce_key: SecretStr = Field(alias="X402_NONCE_KEY", min_length=16)
    #: A node of the chain; its address may hold the provider's key.
    x402_rpc_url: SecretStr = Field(default=SecretStr(""), alias="X402_RPC_URL")
    #: In minor units of USDC: 50 and 1,000 USDC unless told otherwise. The client keeps the first,
    #: the payments service, which has the sum of a day, the second.
    x402_max_per_payment: int = Field(
        default=50_000_000, ge=1, le=MINOR_UNITS_MAX, alias="X402_MAX_PER_PAYMENT"
    )
    x402_max_per_day: int = Field(
        default=1_000_000_000, ge=1, le=MINOR_UNITS_MAX, alias="X402_MAX_PER_DAY"
    )
    #: Addresses separated by commas; empty allows any.
    x402_recipients: str = Field(default="", alias="X402_RECIPIENTS")
    #: When wallet, nonce key or network were last changed.
    x402_keys_since: AwareDatetime | None = Field(default=None, alias="X402_KEYS_SINCE")

    @field_validator("x402_network")
    @classmethod
    def _is_known(cls, network: str) -> str:
        if network not in NETWORKS:
            raise ValueError(f"it is not one of {', '.join(NETWORKS)}")
        return network

    @field_validator("x402_facilitator_token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr) -> SecretStr:
        text = token.get_secret_value()
        if not text.isascii() or not text.isprintable():
            raise ValueError("it has characters that no header may have")
        return token

    @field_validator("x402_rpc_url")
    @classmethod
    def _is_url(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        is_plain = text.isascii() and text.isprintable() and " " not in text
        if text and not (is_plain and text.startswith(("http://", "https://"))):
            raise ValueError("it is no http(s) address")
        return url

    @model_validator(mode="after")
    def _has_one_key(self) -> X402Keys:
        has_text = bool(self.x402_private_key.get_secret_value())
        if has_text == (self.x402_private_key_file is not None):
            raise ValueError("set either X402_PRIVATE_KEY or X402_PRIVATE_KEY_FILE")
        return self

    def spending_limits(self) -> SpendingLimits:
        """Return what the wallet may pay."""
        return SpendingLimits(self.x402_max_per_payment, self.x402_max_per_day)

    def private_key(self) -> str:
        """Return the wallet's key from where it is kept.

        Raises:
            ValueError: the file cannot be read.
        """
        if self.x402_private_key_file is None:
            return self.x402_private_key.get_secret_value()
        try:
            with self.x402_private_key_file.open("rb") as file:
                return file.read(_KEY_FILE_BYTES_MAX).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(type(error).__name__) from None


def _client(keys: X402Keys, surroundings: Surroundings) -> X402Gateway:
    # Loads cryptography, which takes half a second and 10 MB: only who pays with x402 needs it.
    from shared.gateways.x402.building import gateway_of  # noqa: PLC0415

    return gateway_of(keys, surroundings)


REGISTRATION: Final = Registration(
    name="x402",
    capabilities=CAPABILITIES,
    keys=X402Keys,
    switches=("X402_PRIVATE_KEY", "X402_PRIVATE_KEY_FILE"),
    client=_client,
    notices=None,
)
