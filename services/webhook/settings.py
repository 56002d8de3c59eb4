"""What the webhook service reads from the environment."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from shared.gateways.registry import GatewaySettings


class WebhookSettings(GatewaySettings):
    """Settings of both processes of the webhook service."""

    database_url: str = Field(
        validation_alias=AliasChoices("WEBHOOK_DATABASE_URL", "DATABASE_URL"), repr=False
    )
