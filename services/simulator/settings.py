"""Settings of the simulator."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field, SecretStr

from shared.settings import ServiceSettings


class SimulatorSettings(ServiceSettings):
    """What the simulator reads from the environment: the accounts of one merchant at each gateway.

    The accounts have defaults, because they protect nothing: the simulator moves no money. Where
    a secret of notices is a list for rotation, the simulator signs with its first entry.
    """

    database_url: str = Field(
        validation_alias=AliasChoices("SIMULATOR_DATABASE_URL", "DATABASE_URL")
    )
    #: How long a customer may take. The real gateway's value is not documented.
    session_seconds: int = Field(default=1800, ge=1, alias="SIMULATOR_SESSION_SECONDS")
    #: Where Fapshi, Campay and Stripe send notices, as configured in their dashboards: below it,
    #: `/webhooks/<gateway>`. Without it, `PUBLIC_URL`.
    notice_url: str | None = Field(default=None, alias="SIMULATOR_NOTICE_URL")

    #: How long a link of Fapshi or Campay lives, and how long a phone waits for an answer. The
    #: latter is documented by neither.
    link_seconds: int = Field(default=24 * 3600, ge=1, alias="SIMULATOR_LINK_SECONDS")
    prompt_seconds: int = Field(default=600, ge=1, alias="SIMULATOR_PROMPT_SECONDS")
    #: Reads of one transaction's status that Fapshi answers in a minute; 0 is no limit.
    fapshi_reads_per_minute: int = Field(default=6, ge=0, alias="SIMULATOR_FAPSHI_READS_PER_MINUTE")
    #: Whether Fapshi's support has switched on prompts for the account.
    fapshi_direct_pay: bool = Field(default=True, alias="SIMULATOR_FAPSHI_DIRECT_PAY")
    #: How long a token of Campay lives.
    campay_token_seconds: int = Field(default=3600, ge=1, alias="SIMULATOR_CAMPAY_TOKEN_SECONDS")
    #: Whether Campay answers the same `external_reference` with the same first result; that it
    #: does is documented, but not confirmed.
    campay_is_idempotent: bool = Field(default=True, alias="SIMULATOR_CAMPAY_IS_IDEMPOTENT")
    #: How an application's page has set its callback: as GET, or as POST of JSON or of a form.
    campay_callback: Literal["get", "json", "form"] = Field(
        default="json", alias="SIMULATOR_CAMPAY_CALLBACK"
    )
    #: Whether the application's settings allow withdrawals.
    campay_withdraw: bool = Field(default=True, alias="SIMULATOR_CAMPAY_WITHDRAW")

    sslcommerz_store_id: str = Field(default="sluice_demo", alias="SSLCOMMERZ_STORE_ID")
    sslcommerz_store_password: SecretStr = Field(
        default=SecretStr("sluice_demo_password"), alias="SSLCOMMERZ_STORE_PASSWORD"
    )

    fapshi_api_user: str = Field(default="sluice_demo", alias="FAPSHI_API_USER")
    fapshi_api_key: SecretStr = Field(
        default=SecretStr("FAK_TEST_sluice_demo"), alias="FAPSHI_API_KEY"
    )
    fapshi_webhook_secret: SecretStr = Field(
        default=SecretStr("wh_sluice_demo"), alias="FAPSHI_WEBHOOK_SECRET"
    )

    campay_username: str = Field(default="sluice_demo", alias="CAMPAY_USERNAME")
    campay_password: SecretStr = Field(
        default=SecretStr("sluice_demo_password"), alias="CAMPAY_PASSWORD"
    )
    #: The permanent access token.
    campay_token: SecretStr = Field(
        default=SecretStr("sluice_demo_campay_token"), alias="CAMPAY_TOKEN"
    )
    campay_webhook_key: SecretStr = Field(
        default=SecretStr("sluice-demo-campay-webhook-key-0123456789"), alias="CAMPAY_WEBHOOK_KEY"
    )

    stripe_secret_key: SecretStr = Field(
        default=SecretStr("sk_test_sluice_demo"), alias="STRIPE_SECRET_KEY"
    )
    stripe_webhook_secret: SecretStr = Field(
        default=SecretStr("whsec_sluice_demo"), alias="STRIPE_WEBHOOK_SECRET"
    )

    x402_network: str = Field(default="eip155:84532", alias="X402_NETWORK")


def first_secret(secrets: SecretStr) -> str:
    """Return the entry that is used to sign of a list for rotation, separated by commas."""
    return secrets.get_secret_value().partition(",")[0].strip()
