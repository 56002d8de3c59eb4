"""The gateways we know, one line each, and how to build those that are switched on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from shared.clock import Clock
from shared.contracts.priorities import THRESHOLDS, Thresholds, read_thresholds
from shared.gateways.campay.keys import REGISTRATION as CAMPAY
from shared.gateways.fapshi.keys import REGISTRATION as FAPSHI
from shared.gateways.interface import NoticeReader, PaymentGateway
from shared.gateways.registration import GatewayKeys, Registration, Surroundings
from shared.gateways.sslcommerz.keys import REGISTRATION as SSLCOMMERZ
from shared.gateways.stripe.keys import REGISTRATION as STRIPE
from shared.gateways.x402.keys import REGISTRATION as X402
from shared.settings import ServiceSettings

REGISTRY: Final[Mapping[str, Registration[Any]]] = MappingProxyType(
    {
        SSLCOMMERZ.name: SSLCOMMERZ,
        FAPSHI.name: FAPSHI,
        CAMPAY.name: CAMPAY,
        STRIPE.name: STRIPE,
        X402.name: X402,
    }
)


def keys_in_environment() -> dict[str, GatewayKeys]:
    """Read the variables of every gateway of which any switch is set.

    Raises:
        ValidationError: one is switched on and lacks another variable, or has a wrong one.
    """
    return {
        name: registration.keys()
        for name, registration in REGISTRY.items()
        if registration.is_on(os.environ)
    }


def no_gateway_is_on() -> str:
    """Say which variables would switch a gateway on."""
    choices = "; ".join(
        f"{name}: {', '.join(registration.switches)}" for name, registration in REGISTRY.items()
    )
    return f"no gateway is on; set the variables of at least one ({choices})"


class GatewaySettings(ServiceSettings):
    """What the services that speak to gateways read on top of the rest."""

    #: The variables of each gateway that is on. They are read from the environment, not from one
    #: variable of this name.
    gateways: Annotated[Mapping[str, GatewayKeys], NoDecode] = Field(
        default_factory=keys_in_environment, validate_default=True, repr=False
    )
    #: Where the levels of urgency begin; a currency that is named replaces the one built in.
    priority_thresholds: Annotated[Mapping[str, Thresholds], NoDecode] = Field(
        default_factory=lambda: THRESHOLDS, alias="PAYMENT_PRIORITY_THRESHOLDS"
    )
    gateway_timeout_seconds: float = Field(default=15, gt=0, alias="GATEWAY_TIMEOUT_SECONDS")

    #: Calls to one gateway that one process has in flight at most.
    gateway_calls_max: int = Field(default=256, ge=1, le=1_000, alias="GATEWAY_CALLS_MAX")

    @field_validator("priority_thresholds", mode="before")
    @classmethod
    def _read_thresholds(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return {**THRESHOLDS, **(read_thresholds(value) if value else {})}


def clients(settings: GatewaySettings, clock: Clock) -> dict[str, PaymentGateway]:
    """Build the clients of the gateways that are on; whoever asks closes them."""
    surroundings = Surroundings(
        public_url=settings.public_url.rstrip("/"),
        timeout_seconds=settings.gateway_timeout_seconds,
        calls_max=settings.gateway_calls_max,
        clock=clock,
    )
    return {
        name: REGISTRY[name].client(keys, surroundings) for name, keys in settings.gateways.items()
    }


def notice_readers(settings: GatewaySettings, clock: Clock) -> dict[str, NoticeReader]:
    """Build the readers of the gateways that are on and send notices."""
    return {
        name: make(keys, clock)
        for name, keys in settings.gateways.items()
        if (make := REGISTRY[name].notices) is not None
    }
