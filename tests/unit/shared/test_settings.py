"""A wrong environment is named by its variables; no value of it is ever repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.payments.settings import PaymentsSettings
from services.webhook.settings import WebhookSettings
from shared.gateways.sslcommerz.keys import SslcommerzKeys
from shared.settings import ServiceSettings, SettingsError, load

SECRET = "do-not-print-me"

ENVIRONMENT = {
    "DATABASE_URL": f"postgresql://sluice:{SECRET}@db/sluice",
    "SSLCOMMERZ_STORE_ID": "demo_store01",
    "SSLCOMMERZ_STORE_PASSWORD": SECRET,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give the test an environment of its own with everything that is needed."""
    for name in ("DATABASE_URL", "WEBHOOK_DATABASE_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize("name", ["SSLCOMMERZ_STORE_ID", "SSLCOMMERZ_STORE_PASSWORD"])
def test_a_missing_variable_is_named(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)

    with pytest.raises(SettingsError, match=name):
        load(WebhookSettings)


def test_a_missing_database_is_named_by_a_variable_that_would_do(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.delenv("DATABASE_URL")

    with pytest.raises(SettingsError, match="DATABASE_URL"):
        load(WebhookSettings)


@pytest.mark.parametrize(
    "name",
    [
        *("REDIS_PORT", "API_RATE_LIMIT_PER_SECOND", "OTEL_TRACES_SAMPLER_ARG"),
        *("GATEWAY_TIMEOUT_SECONDS", "PAYMENT_EXPIRES_AFTER", "GATEWAY_CALLS_MAX"),
        "SSLCOMMERZ_STORE_ID",
    ],
)
def test_a_wrong_value_is_named_by_its_variable_and_not_repeated(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    wrong = f"{SECRET}-{'x' * 40}"
    environment.setenv(name, wrong)

    with pytest.raises(SettingsError, match=name) as caught:
        load(PaymentsSettings)

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.usefixtures("environment")
def test_settings_do_not_show_their_secrets() -> None:
    settings = load(WebhookSettings)
    keys = settings.gateways["sslcommerz"]

    assert isinstance(keys, SslcommerzKeys)
    assert keys.sslcommerz_store_password.get_secret_value() == SECRET
    assert SECRET not in repr(keys)
    assert SECRET not in repr(settings)


def test_a_services_own_database_goes_before_the_shared_one(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("WEBHOOK_DATABASE_URL", "postgresql://own/db")

    assert load(WebhookSettings).database_url == "postgresql://own/db"


def test_redis_is_found_by_its_url_or_by_host_and_port(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("REDIS_HOST", "cache")
    environment.setenv("REDIS_PORT", "6380")
    assert load(ServiceSettings).redis_address() == "redis://cache:6380/0"

    environment.setenv("REDIS_URL", "rediss://other/1")
    assert load(ServiceSettings).redis_address() == "rediss://other/1"


def test_keys_of_a_mounted_file_are_added_to_those_given(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("second:read:00")
    environment.setenv("API_KEYS", "first:read:00")
    environment.setenv("API_KEYS_FILE", str(file))

    assert load(ServiceSettings).api_keys_text().split() == ["first:read:00", "second:read:00"]


def test_a_missing_key_file_is_named_by_its_variable(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("API_KEYS_FILE", "/nowhere/keys")

    with pytest.raises(SettingsError, match="API_KEYS_FILE"):
        load(ServiceSettings).api_keys_text()
