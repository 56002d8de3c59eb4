"""Every way in which a gateway says no has a kind, which decides when to try again."""

from __future__ import annotations

import pytest

from shared.gateways.campay.transaction import refused
from shared.gateways.interface import FailureKind
from shared.gateways.json_calls import JsonAnswer
from shared.gateways.mobile_money import kind_in
from shared.gateways.x402.reasons import REFUSALS

WORDS = {
    "INSUFFICIENT_FUNDS": FailureKind.INSUFFICIENT_FUNDS,
    "Low balance or payee limit reached": FailureKind.INSUFFICIENT_FUNDS,
    "Daily limit exceeded": FailureKind.INSUFFICIENT_FUNDS,
    "Cancelled by the customer": FailureKind.CANCELLED,
    "rejected by payer": FailureKind.CANCELLED,
    "Request expired": FailureKind.EXPIRED,
    "No response from the customer": FailureKind.EXPIRED,
    "Wrong PIN": FailureKind.AUTHENTICATION_FAILED,
    "invalid pin, try again": FailureKind.AUTHENTICATION_FAILED,
    "phone number is not right": FailureKind.AUTHENTICATION_FAILED,
    "Account barred": FailureKind.CARD_DECLINED,
    "Operator not supported": FailureKind.CARD_DECLINED,
    "Subscriber is not registered": FailureKind.CARD_DECLINED,
    "Service temporarily unavailable": FailureKind.SERVICE_UNAVAILABLE,
    "SERVICE_UNAVAILABLE": FailureKind.SERVICE_UNAVAILABLE,
    "Network error": FailureKind.NETWORK_ERROR,
    "INTERNAL_ERROR": FailureKind.PROCESSING_ERROR,
    "A technical problem occurred": FailureKind.PROCESSING_ERROR,
    "Too many requests": FailureKind.RATE_LIMIT_EXCEEDED,
    "FAILED": FailureKind.UNKNOWN_CODE,
    "": FailureKind.UNKNOWN_CODE,
}


@pytest.mark.parametrize(("words", "kind"), WORDS.items(), ids=WORDS)
def test_the_words_of_a_mobile_money_gateway_tell_the_kind(words: str, kind: FailureKind) -> None:
    assert kind_in(words) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    {
        "ER101": FailureKind.AUTHENTICATION_FAILED,
        "ER102": FailureKind.CARD_DECLINED,
        "ER201": FailureKind.CONFIGURATION,
        "ER301": FailureKind.INSUFFICIENT_FUNDS,
    }.items(),
)
def test_each_code_of_campay_has_its_kind(code: str, kind: FailureKind) -> None:
    body = f'{{"error_code": "{code}", "message": "no"}}'.encode()

    outcome = refused(JsonAnswer(400, body, {"error_code": code, "message": "no"}, None))

    assert outcome is not None
    assert (outcome.kind, outcome.is_final) == (kind, True)


def test_what_a_facilitator_refuses_is_retried_only_where_another_try_can_help() -> None:
    """Funds come and windows begin anew; what we built or configured wrongly stays wrong."""
    assert set(REFUSALS.values()) == {
        FailureKind.INSUFFICIENT_FUNDS,
        FailureKind.PROCESSING_ERROR,
        FailureKind.CONFIGURATION,
    }
