"""What the payments service reads from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pydantic import AliasChoices, Field, field_validator

from shared.gateways.registration import GatewayKeys
from shared.gateways.registry import GatewaySettings, no_gateway_is_on


class PaymentsSettings(GatewaySettings):
    """Settings of both processes of the payments service."""

    database_url: str = Field(
        validation_alias=AliasChoices("PAYMENTS_DATABASE_URL", "DATABASE_URL"), repr=False
    )
    #: A customer who has not paid by then is not expected to; a later success still counts.
    payment_expires_after: timedelta = Field(
        default=timedelta(hours=24), gt=timedelta(0), alias="PAYMENT_EXPIRES_AFTER"
    )
    #: First look at a payment after its creation, in case its notice is lost.
    first_check_after: timedelta = Field(
        default=timedelta(seconds=30), gt=timedelta(0), alias="PAYMENT_FIRST_CHECK_AFTER"
    )

    @field_validator("gateways")
    @classmethod
    def _has_a_gateway(cls, gateways: Mapping[str, GatewayKeys]) -> Mapping[str, GatewayKeys]:
        if not gateways:
            raise ValueError(no_gateway_is_on())
        return gateways
