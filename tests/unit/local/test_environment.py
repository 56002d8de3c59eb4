"""What the local stack takes from its environment, and what it keeps secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.local.environment import (
    SIMULATOR_ACCOUNTS,
    SIMULATOR_PATHS,
    development_key,
    environment_beside,
    gateways_at_simulator,
    leave_note,
    needs_postgres,
    needs_redis,
    redis_url_of,
    remove_note,
    with_key,
    without_password,
)
from deploy.local.errors import LocalStackError
from shared.web.keys import Keyring, describe, parse_keys
from shared.web.routes import Scope

EVERY_DATABASE = {
    f"{service}_DATABASE_URL": "postgresql://db"
    for service in ("WEBHOOK", "PAYMENTS", "ENROLLMENT", "SCHEDULER", "SIMULATOR")
}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, True, id="none given"),
        pytest.param({"DATABASE_URL": "postgresql://db"}, False, id="one for all"),
        pytest.param(EVERY_DATABASE, False, id="one for each"),
        pytest.param({"PAYMENTS_DATABASE_URL": "postgresql://db"}, True, id="one of five"),
        pytest.param({"DATABASE_URL": ""}, True, id="an empty one"),
    ],
)
def test_postgres_is_started_when_a_service_has_no_database(
    environment: dict[str, str],
    expected: bool,  # noqa: FBT001
) -> None:
    assert needs_postgres(environment) is expected


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_URL": "redis://there:1/2"}, "redis://there:1/2"),
        ({"REDIS_HOST": "there"}, "redis://there:6379/0"),
        ({"REDIS_PORT": "7000"}, "redis://127.0.0.1:7000/0"),
    ],
)
def test_a_given_redis_is_used(environment: dict[str, str], url: str) -> None:
    assert not needs_redis(environment)
    assert redis_url_of(environment) == url


def test_redis_is_started_when_none_is_given() -> None:
    assert needs_redis({"REDIS_URL": ""})


def test_the_development_key_stays_the_same_and_private(tmp_path: Path) -> None:
    key = development_key(tmp_path)

    assert development_key(tmp_path) == key
    assert len(key) >= 32
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_data_directory_has_another_key(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    assert development_key(tmp_path / "one") != development_key(tmp_path / "two")


def test_a_key_is_described_as_the_services_read_it() -> None:
    assert with_key({}, "ours") == describe("development", Scope, "ours")


def test_a_key_is_added_to_those_given() -> None:
    given = {"API_KEYS": with_key({}, "theirs").replace("development", "shop")}

    keyring = Keyring(parse_keys(with_key(given, "ours")))

    assert keyring.authorize("Bearer theirs", Scope.READ) == "shop"
    assert [keyring.authorize("Bearer ours", scope) for scope in Scope] == ["development"] * 3


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:se:c@ret@host:5/db", "postgresql://me@host:5/db"),
        ("redis://:secret@host:6379/0", "redis://host:6379/0"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("redis://host:6379/0", "redis://host:6379/0"),
    ],
)
def test_addresses_are_shown_without_passwords(url: str, expected: str) -> None:
    assert without_password(url) == expected


def test_a_command_beside_a_stack_finds_what_it_runs_on(tmp_path: Path) -> None:
    leave_note(tmp_path, {"DATABASE_URL": "postgresql://noted", "REDIS_URL": "redis://noted"})

    environment = environment_beside(tmp_path, {"REDIS_URL": "redis://given", "API_KEYS": ""})

    assert environment == {"DATABASE_URL": "postgresql://noted", "REDIS_URL": "redis://given"}
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_stack_a_database_has_to_be_given(tmp_path: Path) -> None:
    leave_note(tmp_path, {"DATABASE_URL": "postgresql://noted"})
    remove_note(tmp_path)

    with pytest.raises(LocalStackError, match="sluice up"):
        environment_beside(tmp_path, {})
    given = {"DATABASE_URL": "postgresql://given"}
    assert environment_beside(tmp_path, given) == given


def test_the_simulator_plays_every_gateway() -> None:
    variables = gateways_at_simulator("http://127.0.0.1:8080", {"DATABASE_URL": "postgresql://db"})

    assert SIMULATOR_ACCOUNTS.keys() == SIMULATOR_PATHS.keys()
    for gateway, account in SIMULATOR_ACCOUNTS.items():
        assert variables.items() >= account.items()
        assert variables.keys() >= SIMULATOR_PATHS[gateway].keys()
    assert variables["SSLCOMMERZ_BASE_URL"] == "http://127.0.0.1:8080"
    assert variables["X402_RPC_URL"] == "http://127.0.0.1:8080/x402/rpc"


@pytest.mark.parametrize(
    ("variable", "gateway"),
    [(name, gateway) for gateway, account in SIMULATOR_ACCOUNTS.items() for name in account],
)
def test_a_gateway_with_an_account_of_its_own_is_left_alone(variable: str, gateway: str) -> None:
    variables = gateways_at_simulator("http://127.0.0.1:8080", {variable: "real"})

    assert not variables.keys() & SIMULATOR_ACCOUNTS[gateway].keys()
    assert not variables.keys() & SIMULATOR_PATHS[gateway].keys()
    others = [name for name in SIMULATOR_ACCOUNTS if name != gateway]
    assert all(variables.items() >= SIMULATOR_ACCOUNTS[other].items() for other in others)


def test_an_empty_variable_is_no_account() -> None:
    variables = gateways_at_simulator("http://127.0.0.1:8080", {"STRIPE_SECRET_KEY": ""})

    assert variables["STRIPE_SECRET_KEY"] == "sk_test_sluice_demo"
