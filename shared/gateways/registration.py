"""How a gateway is made known: its name, its variables, how to build its two sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.clock import Clock
from shared.gateways.http_client import HttpClient
from shared.gateways.interface import Capabilities, NoticeReader, PaymentGateway


@dataclass(frozen=True, slots=True)
class SpendingLimits:
    """What a wallet of our own may pay at most, in minor units; a day is one of UTC."""

    per_payment: int
    per_day: int


class GatewayKeys(BaseSettings):
    """The variables of one gateway.

    Fields are named as their variables, in small letters: pydantic-settings reads a variable of the
    field's name too, and a `base_url` would be anybody's.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def spending_limits(self) -> SpendingLimits:
        """Return what the gateway's wallet may pay; nothing, where there is no wallet of ours."""
        return SpendingLimits(0, 0)


def secrets_of(secret: SecretStr) -> list[str]:
    """Split a secret that may hold several values, separated by commas, for rotation."""
    return [value for value in secret.get_secret_value().split(",") if value]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every client of a gateway needs besides its own variables."""

    #: Where gateways and browsers reach us, without a slash at the end.
    public_url: str
    timeout_seconds: float
    #: Calls to one gateway that one process has in flight at most.
    calls_max: int
    clock: Clock

    def http_client(self, base_url: str) -> HttpClient:
        """Return a client of one origin with our limits."""
        return HttpClient(
            base_url,
            total_timeout_seconds=self.timeout_seconds,
            connections_max=self.calls_max,
        )


K = TypeVar("K", bound=GatewayKeys)


@dataclass(frozen=True, slots=True)
class Registration(Generic[K]):
    """One gateway. The registry holds one of these per folder."""

    name: str
    #: What it can do whatever its variables say; a client may be held to less.
    capabilities: Capabilities
    keys: type[K]
    #: Variables without which the gateway is off; any one of them turns it on, and then all that
    #: `keys` requires must be there.
    switches: tuple[str, ...]
    client: Callable[[K, Surroundings], PaymentGateway]
    #: None for a gateway that sends no notices.
    notices: Callable[[K, Clock], NoticeReader] | None
    #: Whether notices may also come as a GET, their fields in the query string.
    notices_by_get: bool = False

    def is_on(self, environment: Mapping[str, str]) -> bool:
        """Tell whether any of the switches is set."""
        return any(environment.get(name) for name in self.switches)
