"""What an installation changes about retries, and how it learns of its mistakes."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from services.payments.domain.retry_policy import Failure, RetryAfter, RetryPolicy
from services.payments.flow.retry_planning import policy_of
from services.payments.settings import PaymentsSettings
from shared.gateways.interface import FailureKind
from shared.settings import SettingsError, load

PLUGIN = '''
"""A plug-in of an installation."""
from datetime import timedelta
from services.payments.domain.retry_policy import Decision, Failure, RetryAfter

NUMBER = 5

def decide(failure: Failure, planned: Decision) -> Decision:
    if failure.currency == "XAF":
        return RetryAfter(timedelta(hours=6))
    return planned
'''


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Give the test an environment with a gateway, and modules of an installation."""
    (tmp_path / "our_rules.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "our_mistake.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("our_rules", "our_mistake"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://sluice@db/sluice")
    monkeypatch.setenv("SSLCOMMERZ_STORE_ID", "demo_store01")
    monkeypatch.setenv("SSLCOMMERZ_STORE_PASSWORD", "secret")
    return monkeypatch


def policy(environment: pytest.MonkeyPatch, **variables: str) -> RetryPolicy:
    for name, value in variables.items():
        environment.setenv(name, value)
    return policy_of(load(PaymentsSettings))


def failure(kind: FailureKind, **changes: object) -> Failure:
    values: dict[str, object] = {
        "payment_id": "pay_1",
        "gateway": "fapshi",
        "method": "prompt",
        "kind": kind,
        "code": "code",
        "amount": 1_000,
        "currency": "EUR",
        "failures_of_kind": 1,
        "tries": 1,
    }
    return Failure(**{**values, **changes})  # type: ignore[arg-type]


def test_without_settings_the_table_holds(environment: pytest.MonkeyPatch) -> None:
    assert policy(environment) == RetryPolicy()


def test_rows_are_replaced_one_by_one(environment: pytest.MonkeyPatch) -> None:
    changed = policy(
        environment, RETRY_POLICY='{"insufficient_funds": ["PT12H", 86400], "unknown_code": []}'
    )

    assert changed.delays[FailureKind.INSUFFICIENT_FUNDS] == (
        timedelta(hours=12),
        timedelta(days=1),
    )
    assert changed.delays[FailureKind.UNKNOWN_CODE] == ()
    assert changed.delays[FailureKind.NETWORK_ERROR] == RetryPolicy().delays["network_error"]  # type: ignore[index]


@pytest.mark.parametrize("delay", ["7", "PT7S", "7.0"])
def test_prompts_have_their_own_number_and_wait(
    environment: pytest.MonkeyPatch, delay: str
) -> None:
    changed = policy(environment, PAYMENT_RETRY_ATTEMPTS="2", PAYMENT_RETRY_DELAY=delay)

    assert changed.prompt_delays == (timedelta(seconds=7), timedelta(seconds=14))


def test_a_plug_in_is_found_by_its_name(environment: pytest.MonkeyPatch) -> None:
    changed = policy(environment, RETRY_PLUGIN="our_rules:decide")

    broken = FailureKind.UNKNOWN_CODE
    assert changed.decide(failure(broken, currency="XAF"), jitter=0) == RetryAfter(
        timedelta(hours=6)
    )
    assert changed.decide(failure(broken), jitter=0) == RetryAfter(timedelta(minutes=5))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RETRY_POLICY", "{"),
        ("RETRY_POLICY", "[]"),
        ("RETRY_POLICY", '{"no_such_kind": []}'),
        ("RETRY_POLICY", '{"unknown_code": 5}'),
        ("RETRY_POLICY", '{"unknown_code": ["soon"]}'),
        ("RETRY_POLICY", '{"unknown_code": [-1]}'),
        ("RETRY_POLICY", '{"unknown_code": ["P31D"]}'),
        ("RETRY_POLICY", f'{{"unknown_code": {[1] * 21}}}'),
        ("RETRY_PLUGIN", "our_rules"),
        ("RETRY_PLUGIN", "our_rules:"),
        ("RETRY_PLUGIN", "our_rules:missing"),
        ("RETRY_PLUGIN", "our_rules:NUMBER"),
        ("RETRY_PLUGIN", "no_such_module:decide"),
        ("RETRY_PLUGIN", "our_mistake:decide"),
        ("RETRY_MAX_ATTEMPTS", "0"),
        ("PAYMENT_RETRY_ATTEMPTS", "-1"),
        ("PAYMENT_RETRY_DELAY", "-1"),
        ("PAYMENT_RETRY_DELAY", "soon"),
        ("PAYMENT_RETRY_DELAY", "nan"),
        ("PAYMENT_RETRY_DELAY", "inf"),
        ("RETRY_LOCK_TIMEOUT", "1"),
        ("RETRY_PROCESSING_INTERVAL", "0"),
        ("RETRY_WAITING_MAX", "-1"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError, match=name):
        policy(environment, **{name: value})
