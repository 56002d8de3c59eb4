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

    #: Calls that move money, in flight at once in one process.
    max_concurrent_payments: int = Field(default=10, ge=1, alias="MAX_CONCURRENT_PAYMENTS")
    #: Calls that only ask a gateway, in flight at once in one process. They cost it little and us
    #: nothing, and a confirmation is what a customer waits for.
    max_concurrent_checks: int = Field(default=512, ge=1, alias="MAX_CONCURRENT_CHECKS")
    #: Payments that are taken up together.
    payment_batch_size: int = Field(default=50, ge=1, le=1_000, alias="PAYMENT_BATCH_SIZE")
    #: Per cent of the turns that go to the lower priorities while they wait.
    minimum_share: int = Field(default=5, ge=1, le=50, alias="PAYMENT_MINIMUM_SHARE")

    @field_validator("gateways")
    @classmethod
    def _has_a_gateway(cls, gateways: Mapping[str, GatewayKeys]) -> Mapping[str, GatewayKeys]:
        if not gateways:
            raise ValueError(no_gateway_is_on())
        return gateways
