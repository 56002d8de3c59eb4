"""Which gateways are on: said by the environment, whole or not at all, and checked at start."""

from __future__ import annotations

import os

import pytest

from services.payments.settings import PaymentsSettings
from services.webhook.settings import WebhookSettings
from shared.clock import system_clock
from shared.gateways.registry import REGISTRY, clients, notice_readers
from shared.settings import SettingsError, load

SECRET = "do-not-print-me"

SSLCOMMERZ = {"SSLCOMMERZ_STORE_ID": "demo_store01", "SSLCOMMERZ_STORE_PASSWORD": SECRET}
FAPSHI = {"FAPSHI_API_USER": SECRET, "FAPSHI_API_KEY": f"FAK_TEST_{SECRET}"}
STRIPE = {"STRIPE_SECRET_KEY": "sk_test_0123456789", "STRIPE_WEBHOOK_SECRET": f"whsec_{SECRET}"}
CAMPAY = {"CAMPAY_TOKEN": SECRET}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Give the test an environment in which no gateway is on."""
    prefixes = tuple(f"{name.upper()}_" for name in REGISTRY)
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", "postgresql://sluice@db/sluice")
    return monkeypatch


def given(environment: pytest.MonkeyPatch, *variables: dict[str, str]) -> None:
    for each in variables:
        for name, value in each.items():
            environment.setenv(name, value)


async def test_a_gateway_is_on_when_its_variables_are_set_and_off_when_none_is(
    environment: pytest.MonkeyPatch,
) -> None:
    given(environment, FAPSHI, CAMPAY)
    settings = load(PaymentsSettings)

    gateways = clients(settings, system_clock)

    assert {name: gateway.name for name, gateway in gateways.items()} == {
        "fapshi": "fapshi",
        "campay": "campay",
    }
    assert notice_readers(settings, system_clock).keys() == {"fapshi", "campay"}
    for gateway in gateways.values():
        await gateway.close()


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        (SSLCOMMERZ, "SSLCOMMERZ_STORE_ID"),
        (SSLCOMMERZ, "SSLCOMMERZ_STORE_PASSWORD"),
        (FAPSHI, "FAPSHI_API_USER"),
        (FAPSHI, "FAPSHI_API_KEY"),
        (STRIPE, "STRIPE_WEBHOOK_SECRET"),
    ],
)
@pytest.mark.parametrize("settings", [PaymentsSettings, WebhookSettings])
def test_half_a_gateway_stops_the_start_and_the_missing_variable_is_named(
    environment: pytest.MonkeyPatch,
    variables: dict[str, str],
    missing: str,
    settings: type[PaymentsSettings],
) -> None:
    given(environment, CAMPAY, {n: value for n, value in variables.items() if n != missing})

    with pytest.raises(SettingsError, match=missing) as caught:
        load(settings)

    assert SECRET not in str(caught.value)


def test_payments_without_any_gateway_are_told_which_variables_would_do(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("SSLCOMMERZ_STORE_ID", "")  # Empty counts as not set.

    with pytest.raises(SettingsError, match="SSLCOMMERZ_STORE_ID") as caught:
        load(PaymentsSettings)

    assert all(name in str(caught.value) for name in REGISTRY)
    assert load(WebhookSettings).gateways == {}, "customers still come back"


@pytest.mark.parametrize("name", REGISTRY)
def test_a_field_is_named_as_its_variable_so_that_no_other_variable_is_read(name: str) -> None:
    fields = REGISTRY[name].keys.model_fields

    assert {each: field.alias for each, field in fields.items()} == {
        each: each.upper() for each in fields
    }
    assert all(each.startswith(f"{name}_") for each in fields)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_registration_is_known_by_its_own_name_and_switched_by_variables_it_reads(
    name: str,
) -> None:
    registration = REGISTRY[name]

    assert registration.name == name
    assert registration.switches
    assert {
        switch.lower() for switch in registration.switches
    } <= registration.keys.model_fields.keys()
