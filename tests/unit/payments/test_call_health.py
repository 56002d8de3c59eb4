"""Only an outage counts against a gateway; a rate limit holds calls back."""

from __future__ import annotations

import pytest

from services.payments.domain.call_health import HOLD_SECONDS_DEFAULT, judge
from shared.gateways.interface import (
    ActionRequired,
    Declined,
    FailureKind,
    Paid,
    Pending,
    Refunded,
    RefundFailed,
    Unknown,
)
from shared.money import Money

WORKS = (False, 0.0)
FAILED = (True, 0.0)


@pytest.mark.parametrize(
    "outcome",
    [
        Paid("att_1", Money(1_000, "BDT"), "val_1", "bank_1"),
        Declined("insufficient_funds", FailureKind.INSUFFICIENT_FUNDS, is_final=True),
        Declined("operator is down", FailureKind.SERVICE_UNAVAILABLE),
        Declined("card_decline_rate_limit_exceeded", FailureKind.RATE_LIMIT_EXCEEDED),
        Pending("not_attempted"),
        ActionRequired("open_page", "https://gateway.example/1"),
        Refunded("re_1"),
        RefundFailed("not_supported"),
        Unknown("reference_differs"),
        Unknown("http_404"),
        Unknown("http_401"),
        Unknown("not_supported"),
        Unknown("no_free_connection"),
        Unknown("gateway_is_off"),
        None,
    ],
    ids=str,
)
def test_a_gateway_that_answers_works(outcome: object) -> None:
    assert judge(outcome) == WORKS


@pytest.mark.parametrize(
    "reason",
    [
        *("timeout", "connect_timeout", "connect_failed", "connection_reset", "tls_error"),
        *("answer_cut_short", "not_http", "not_json", "http_408", "http_500", "http_503"),
        "http_502; chain: not_found",
    ],
)
def test_an_outage_is_a_failure(reason: str) -> None:
    assert judge(Unknown(reason)) == FAILED


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (Unknown("http_429", 30.0), 30.0),
        (Unknown("rate_limited", 0.0), 0.0),
        (Unknown("http_429"), HOLD_SECONDS_DEFAULT),
        (
            Declined(
                "rate_limited", FailureKind.RATE_LIMIT_EXCEEDED, is_final=True,
                retry_after_seconds=7.0,
            ),
            7.0,
        ),
        (Declined("rate_limited", FailureKind.RATE_LIMIT_EXCEEDED), HOLD_SECONDS_DEFAULT),
    ],
)  # fmt: skip
def test_a_rate_limit_holds_calls_back_and_is_no_failure(outcome: object, seconds: float) -> None:
    assert judge(outcome) == (False, seconds)
