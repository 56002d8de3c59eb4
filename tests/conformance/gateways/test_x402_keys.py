"""The variables of x402 are checked at start, and none of them is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from shared.gateways.registration import Surroundings
from shared.gateways.x402.building import gateway_of
from shared.gateways.x402.client import SpendingRules
from shared.gateways.x402.keys import REGISTRATION, X402Keys
from shared.gateways.x402.signer import LocalSigner
from shared.settings import SettingsError
from tests.support.clocks import ManualClock
from tests.support.modules import REPOSITORY
from tests.support.x402 import NONCE_KEY, PAYER, PRIVATE_KEY, RECIPIENT

SURROUNDINGS = Surroundings("https://pay.example", 1, 8, ManualClock())
RPC_URL = "https://chain.example/v3/rpc-secret"
TOKEN = "bearer-secret"

COMPLETE: dict[str, Any] = {
    "X402_FACILITATOR_URL": "https://facilitator.example/x402",
    "X402_FACILITATOR_TOKEN": TOKEN,
    "X402_NETWORK": "eip155:84532",
    "X402_PRIVATE_KEY": PRIVATE_KEY,
    "X402_NONCE_KEY": NONCE_KEY,
    "X402_RPC_URL": RPC_URL,
}
SECRETS = (PRIVATE_KEY, NONCE_KEY, TOKEN, "rpc-secret")


def keys(**changes: Any) -> X402Keys:
    values = COMPLETE | changes
    return X402Keys(**{name: value for name, value in values.items() if value is not None})


def assert_no_secret(shown: str) -> None:
    assert not [secret for secret in SECRETS if secret in shown]


def test_limits_are_safe_unless_they_are_raised() -> None:
    limits = keys()

    assert (limits.x402_max_per_payment, limits.x402_max_per_day) == (50_000_000, 1_000_000_000)


def test_no_variable_is_shown() -> None:
    settings = keys()
    gateway = REGISTRATION.client(settings, SURROUNDINGS)
    rules = SpendingRules(LocalSigner(PRIVATE_KEY), NONCE_KEY.encode(), frozenset(), 1, None)

    assert_no_secret(f"{settings!r} {settings} {gateway!r} {vars(gateway)} {rules} {[rules]}")


@pytest.mark.parametrize("prefix", ["", "0x"])
def test_a_key_is_read_from_a_mounted_file(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "key"
    file.write_text(f"{prefix}{PRIVATE_KEY}\n")

    settings = keys(X402_PRIVATE_KEY=None, X402_PRIVATE_KEY_FILE=file)

    assert settings.private_key() == f"{prefix}{PRIVATE_KEY}"
    assert repr(gateway_of(settings, SURROUNDINGS)._signer) == f"LocalSigner({PAYER})"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("X402_PRIVATE_KEY_FILE", "X402_KEYS_SINCE", "X402_RPC_URL", "X402_MAX_PER_DAY"):
        monkeypatch.setenv(name, "")

    settings = keys(X402_RPC_URL=None)

    assert settings == keys(X402_RPC_URL=None, X402_KEYS_SINCE=None)
    assert settings.private_key() == PRIVATE_KEY


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no facilitator": ({"X402_FACILITATOR_URL": None}, "X402_FACILITATOR_URL"),
    "a facilitator without http": ({"X402_FACILITATOR_URL": "x402.org"}, "X402_FACILITATOR_URL"),
    "a facilitator with a line end": (
        {"X402_FACILITATOR_URL": "https://a.example/\r\nX: y"},
        "X402_FACILITATOR_URL",
    ),
    "no network": ({"X402_NETWORK": None}, "X402_NETWORK"),
    "an unknown network": ({"X402_NETWORK": "eip155:5"}, "X402_NETWORK"),
    "a network's old name": ({"X402_NETWORK": "base"}, "X402_NETWORK"),
    "no key": ({"X402_PRIVATE_KEY": None}, "X402_PRIVATE_KEY"),
    "two keys": ({"X402_PRIVATE_KEY_FILE": "/run/secrets/key"}, "X402_PRIVATE_KEY_FILE"),
    "no nonce key": ({"X402_NONCE_KEY": None}, "X402_NONCE_KEY"),
    "a short nonce key": ({"X402_NONCE_KEY": "short-secret"}, "X402_NONCE_KEY"),
    "a token with a line end": ({"X402_FACILITATOR_TOKEN": f"{TOKEN}\n"}, "X402_FACILITATOR_TOKEN"),
    "a token beyond ASCII": ({"X402_FACILITATOR_TOKEN": f"{TOKEN}é"}, "X402_FACILITATOR_TOKEN"),
    "no address of a node": ({"X402_RPC_URL": "rpc-secret"}, "X402_RPC_URL"),
    "a node with a space": ({"X402_RPC_URL": f"{RPC_URL} HTTP/1.1"}, "X402_RPC_URL"),
    "no payment allowed": ({"X402_MAX_PER_PAYMENT": 0}, "X402_MAX_PER_PAYMENT"),
    "a limit in dollars": ({"X402_MAX_PER_DAY": "1000.50"}, "X402_MAX_PER_DAY"),
    "a change without a zone": ({"X402_KEYS_SINCE": "2026-01-05T12:00:00"}, "X402_KEYS_SINCE"),
}


@pytest.mark.parametrize(("changes", "variable"), WRONG.values(), ids=WRONG)
def test_a_wrong_variable_is_named_and_not_shown(changes: dict[str, Any], variable: str) -> None:
    with pytest.raises(ValidationError, match=variable) as raised:
        keys(**changes)

    assert_no_secret(f"{raised.value} {raised.value!r}")
    assert "short-secret" not in str(raised.value)


WRONG_KEYS: dict[str, tuple[dict[str, Any], str]] = {
    "no key in hexadecimal": ({"X402_PRIVATE_KEY": f"{PRIVATE_KEY}1"}, "X402_PRIVATE_KEY: "),
    "zero": ({"X402_PRIVATE_KEY": "00" * 32}, "X402_PRIVATE_KEY: "),
    "recipients with a wrong checksum": (
        {"X402_RECIPIENTS": f"{RECIPIENT},{RECIPIENT.replace('A', 'a', 1)}"},
        "X402_RECIPIENTS: entry 2 ",
    ),
}


@pytest.mark.parametrize(("changes", "message"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_what_only_the_client_can_check_is_named_and_not_shown(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        gateway_of(keys(**changes), SURROUNDINGS)

    assert_no_secret(str(raised.value))
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"not a key", PRIVATE_KEY.encode() * 20]
)
def test_a_key_file_that_holds_no_key_is_named_and_not_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(SettingsError, match="X402_PRIVATE_KEY_FILE: ") as raised:
        gateway_of(keys(X402_PRIVATE_KEY=None, X402_PRIVATE_KEY_FILE=file), SURROUNDINGS)

    assert_no_secret(str(raised.value))


def test_x402_is_on_with_a_wallet_and_sends_no_notices() -> None:
    assert REGISTRATION.is_on({"X402_PRIVATE_KEY_FILE": "/run/secrets/key"})
    assert not REGISTRATION.is_on({"X402_FACILITATOR_URL": "https://facilitator.example"})
    assert REGISTRATION.notices is None


def test_who_does_not_pay_with_x402_does_not_load_its_cryptography() -> None:
    program = (
        "import sys; import shared.gateways.x402.keys; "
        "print([name for name in sys.modules if name in {'eth_account', 'eth_utils'}])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_the_limits_are_handed_to_the_payments_service() -> None:
    limits = keys(X402_MAX_PER_PAYMENT="7", X402_MAX_PER_DAY="8").spending_limits()

    assert (limits.per_payment, limits.per_day) == (7, 8)


def test_the_limit_per_payment_is_what_the_client_declares() -> None:
    gateway = gateway_of(keys(X402_MAX_PER_PAYMENT=7), SURROUNDINGS)

    assert gateway.capabilities.limits["USDC"].maximum == 7
    assert SecretStr(PRIVATE_KEY) == keys().x402_private_key
