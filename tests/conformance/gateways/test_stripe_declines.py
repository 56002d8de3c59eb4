"""Every decline code of Stripe leads to the right next step, and none is told that must not be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.interface import FailureKind
from shared.gateways.stripe.declines import DECLINE_CODES, NOT_FOR_CUSTOMERS, read_decline

#: The page's 50 codes by class, read a second time.
CLASSES = {
    FailureKind.CARD_DECLINED: """
        lost_card stolen_card pickup_card incorrect_number invalid_number invalid_account
        new_account_information_available revocation_of_authorization
        revocation_of_all_authorizations stop_payment_order transaction_not_allowed fraudulent
        merchant_blacklist restricted_card security_violation do_not_try_again card_not_supported
        currency_not_supported service_not_allowed not_permitted""",
    FailureKind.AUTHENTICATION_FAILED: """
        authentication_required authentication_not_handled mobile_device_authentication_required
        expired_card incorrect_cvc invalid_cvc incorrect_zip incorrect_address
        invalid_expiry_month invalid_expiry_year incorrect_pin invalid_pin pin_try_exceeded
        offline_pin_required online_or_offline_pin_required""",
    FailureKind.INSUFFICIENT_FUNDS: """
        insufficient_funds card_velocity_exceeded withdrawal_count_limit_exceeded""",
    FailureKind.UNKNOWN_CODE: """
        generic_decline do_not_honor call_issuer no_action_taken approve_with_id""",
    FailureKind.PROCESSING_ERROR: """
        processing_error issuer_not_available reenter_transaction try_again_later""",
    FailureKind.CONFIGURATION: "invalid_amount duplicate_transaction testmode_decline",
}
KINDS = {code: kind for kind, codes in CLASSES.items() for code in codes.split()}

#: Codes after which Stripe's own retries stop, but for `authentication_required`, where a customer
#: can help, and `highest_risk_level`, which is no decline code.
SMART_RETRIES_STOP = [
    *("incorrect_number", "lost_card", "pickup_card", "stolen_card", "transaction_not_allowed"),
    *("revocation_of_authorization", "revocation_of_all_authorizations"),
]


def declined(**members: Any) -> tuple[FailureKind, str]:
    decline = read_decline({"type": "card_error", "message": "secret"} | members)
    return decline.kind, decline.reason


def test_all_fifty_codes_are_mapped_and_no_other() -> None:
    assert len(KINDS) == 50
    assert dict(DECLINE_CODES) == KINDS


@pytest.mark.parametrize(("code", "kind"), KINDS.items(), ids=KINDS)
def test_a_code_has_the_kind_of_its_class(code: str, kind: FailureKind) -> None:
    assert declined(code="card_declined", decline_code=code)[0] is kind


@pytest.mark.parametrize("code", SMART_RETRIES_STOP)
def test_a_card_that_stripe_would_not_retry_is_not_retried(code: str) -> None:
    assert declined(decline_code=code)[0] is FailureKind.CARD_DECLINED


@pytest.mark.parametrize("code", ["expired_card", "incorrect_cvc", "processing_error"])
def test_test_mode_names_some_declines_in_the_code_only(code: str) -> None:
    assert declined(code=code) == (KINDS[code], code)


def test_the_decline_code_goes_before_the_code() -> None:
    assert declined(code="expired_card", decline_code="insufficient_funds") == (
        FailureKind.INSUFFICIENT_FUNDS,
        "insufficient_funds",
    )


@pytest.mark.parametrize("code", KINDS)
def test_the_issuers_advice_goes_before_every_code(code: str) -> None:
    stop = declined(decline_code=code, advice_code="do_not_try_again")
    details = declined(decline_code=code, advice_code="confirm_card_data")

    assert stop[0] is FailureKind.CARD_DECLINED
    assert details[0] is FailureKind.AUTHENTICATION_FAILED


@pytest.mark.parametrize(("code", "kind"), KINDS.items(), ids=KINDS)
def test_advice_to_try_later_makes_a_retry_possible_and_keeps_its_reason(
    code: str, kind: FailureKind
) -> None:
    advised = declined(decline_code=code, advice_code="try_again_later")[0]

    is_stopped = kind in {FailureKind.CARD_DECLINED, FailureKind.AUTHENTICATION_FAILED}
    assert advised is (FailureKind.UNKNOWN_CODE if is_stopped else kind)


@pytest.mark.parametrize("code", KINDS)
@pytest.mark.parametrize("advice", ["03", "21"])
def test_what_a_card_network_forbids_goes_before_all_else(code: str, advice: str) -> None:
    kind, _ = declined(decline_code=code, network_advice_code=advice, advice_code="try_again_later")

    assert kind is FailureKind.CARD_DECLINED


def test_another_network_advice_leaves_the_code_as_it_is() -> None:
    kind, _ = declined(decline_code="insufficient_funds", network_advice_code="24")

    assert kind is FailureKind.INSUFFICIENT_FUNDS


def test_advice_that_is_not_known_changes_nothing() -> None:
    assert declined(decline_code="lost_card", advice_code="new_advice")[0] is KINDS["lost_card"]


@pytest.mark.parametrize(
    "code", ["lost_card", "stolen_card", "fraudulent", "pickup_card", "merchant_blacklist"]
)
def test_what_would_warn_a_thief_is_shown_as_a_generic_decline(code: str) -> None:
    decline = read_decline({"type": "card_error", "decline_code": code})

    assert (decline.reason, decline.code) == ("generic_decline", code)
    assert code in NOT_FOR_CUSTOMERS


@pytest.mark.parametrize("code", sorted(KINDS.keys() - NOT_FOR_CUSTOMERS))
def test_every_other_code_is_shown_as_it_is(code: str) -> None:
    assert declined(decline_code=code)[1] == code


OTHERS = {
    "a code not known yet": ({"decline_code": "brand_new"}, FailureKind.UNKNOWN_CODE, "brand_new"),
    "no code at all": ({}, FailureKind.UNKNOWN_CODE, "declined"),
    "only the general code": (
        {"code": "card_declined"},
        FailureKind.UNKNOWN_CODE,
        "card_declined",
    ),
    "a failed authentication": (
        {"type": "invalid_request_error", "code": "payment_intent_authentication_failure"},
        FailureKind.AUTHENTICATION_FAILED,
        "payment_intent_authentication_failure",
    ),
    "too many tries with a card": (
        {"code": "card_decline_rate_limit_exceeded"},
        FailureKind.RATE_LIMIT_EXCEEDED,
        "card_decline_rate_limit_exceeded",
    ),
    "our mistake": (
        {"type": "invalid_request_error", "code": "amount_too_small"},
        FailureKind.CONFIGURATION,
        "amount_too_small",
    ),
    "Stripe's own": ({"type": "api_error"}, FailureKind.PROCESSING_ERROR, "declined"),
}


@pytest.mark.parametrize(("members", "kind", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_decline_code_has_a_kind_too(
    members: dict[str, Any], kind: FailureKind, reason: str
) -> None:
    assert declined(**members) == (kind, reason)


values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2)
members = st.sampled_from(["type", "code", "decline_code", "advice_code", "message", "param"])


@given(st.dictionaries(members, values | st.sampled_from(sorted(KINDS))))
def test_an_arbitrary_error_has_a_kind_and_a_harmless_reason(error: dict[str, Any]) -> None:
    decline = read_decline(error)

    assert isinstance(decline.kind, FailureKind)
    assert decline.reason not in NOT_FOR_CUSTOMERS
    assert 0 < len(decline.reason) <= 80
    assert decline.reason.isascii()
    assert not set(decline.reason) & set(" @\0\n")
