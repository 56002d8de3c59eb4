"""Limits and breakers are configured by variables, and a wrong one is named."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from services.payments.domain.limits import GatewayLimit, Limits
from services.payments.flow.configured import breaker_policy_of, in_force, limits_of
from services.payments.settings import PaymentsSettings
from services.payments.store.controls import StoredControls
from shared.contracts.priorities import THRESHOLDS, Priority, Thresholds
from tests.support.settings import gateways_of_tests


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> PaymentsSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return PaymentsSettings(database_url="postgresql:///none", gateways=gateways_of_tests())


def test_limits_of_gateways_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"stripe": {"concurrency": 80, "callsPerSecond": 50.5}, "fapshi": {"concurrency": 3}}'
    limits = limits_of(settings(monkeypatch, GATEWAY_LIMITS=text))

    assert limits.gateways == {"stripe": GatewayLimit(80, 50.5), "fapshi": GatewayLimit(3)}
    assert (limits.max_concurrent_payments, limits.batch_size) == (10, 50)


def test_without_a_variable_no_gateway_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_of(settings(monkeypatch)).gateways == {}


def test_an_operator_goes_before_the_profile_and_this_before_the_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = '{"stripe": {"concurrency": 80, "callsPerSecond": 50}}'
    stored = StoredControls(
        paused={},
        override=Limits(gateways={"stripe": GatewayLimit(concurrency=1)}),
        profile_name="night",
        profile=Limits(batch_size=7, gateways={"stripe": GatewayLimit(5, 5)}),
    )

    limits = in_force(settings(monkeypatch, GATEWAY_LIMITS=text), stored)

    assert limits == Limits(10, 7, {"stripe": GatewayLimit(1, 5)})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"paypal": {"concurrency": 1}}', "no gateway is called paypal"),
        ('{"stripe": {"concurrency": 0}}', "stripe.concurrency"),
        ('{"stripe": {"callsPerSecond": 0}}', "stripe.callsPerSecond"),
        ('{"stripe": {"callsPerSecond": NaN}}', "must be JSON"),
        ('{"stripe": {"calls": 1}}', "stripe.calls"),
        ('["stripe"]', "GATEWAY_LIMITS"),
        ("many", "must be JSON, like"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(monkeypatch, GATEWAY_LIMITS=text)


def test_breakers_are_as_sensitive_as_they_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = breaker_policy_of(
        settings(
            monkeypatch,
            BREAKER_WINDOW="10",
            BREAKER_MINIMUM_CALLS="4",
            BREAKER_OPEN_FOR="PT2M",
            BREAKER_PROBES="3",
            GATEWAY_TIMEOUT_SECONDS="30",
        )
    )

    assert (policy.window, policy.open_for) == (timedelta(seconds=10), timedelta(minutes=2))
    assert (policy.calls_min, policy.probes) == (4, 3)
    assert policy.probes_lost_after > timedelta(seconds=30)


def test_a_worker_takes_every_priority_unless_it_is_told_which(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings(monkeypatch).payments_priorities == frozenset(Priority)
    assert settings(monkeypatch, PAYMENTS_PRIORITIES="").payments_priorities == frozenset(Priority)
    some = settings(monkeypatch, PAYMENTS_PRIORITIES="high, normal")
    assert some.payments_priorities == {Priority.HIGH, Priority.NORMAL}


def test_thresholds_of_a_currency_replace_those_that_are_built_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = settings(monkeypatch, PAYMENT_PRIORITY_THRESHOLDS="XAF=1:2,NGN=10:20")

    assert given.priority_thresholds["XAF"] == Thresholds(1, 2)
    assert given.priority_thresholds["NGN"] == Thresholds(10, 20)
    assert given.priority_thresholds["EUR"] == THRESHOLDS["EUR"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PAYMENTS_PRIORITIES", "urgent"),
        ("PAYMENTS_PRIORITIES", "high,,normal"),
        ("PAYMENT_PRIORITY_THRESHOLDS", "XAF=5"),
        ("PAYMENT_PRIORITY_THRESHOLDS", "XAF=20:10"),
        ("PAYMENT_MINIMUM_SHARE", "0"),
        ("PAYMENT_MINIMUM_SHARE", "51"),
        ("MAX_CONCURRENT_PAYMENTS", "0"),
        ("PAYMENT_BATCH_SIZE", "0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    with pytest.raises(ValidationError, match=variable):
        settings(monkeypatch, **{variable: value})
