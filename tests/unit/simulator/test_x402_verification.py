"""What makes a payment valid, checked with the vectors of the protocol reference."""

from __future__ import annotations

from typing import Any

import pytest

from services.simulator.x402.payment import NotReadableError, read_payment
from services.simulator.x402.reasons import Reason
from services.simulator.x402.verification import message_of, objection_to
from tests.unit.simulator.x402_payments import (
    PAY_TO,
    PAYER,
    authorization,
    request_v1,
    request_v2,
    requirements,
    sign,
)

#: Within the window of the vectors.
NOW = 1_767_614_400

SEPOLIA_SIGNATURE = (
    "0x69ad505da349e76bb30e9101aa6753bd4ef4dbdfa806686c376755618ccc698156cfbaab7c6f3e6c60cfd64bec"
    "42655b74e5119ca682a77182ed2e3a456377f91b"
)
BASE_SIGNATURE = (
    "0xd22d4a48869d2d3ad0bb30edcca55ec64962ad91e31b0aca64321971e0b691d077b682457184d4865f79974de2"
    "21c9109cb1f5be5b1be440e2a049f7b01b1f0a1c"
)
BASE_USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"


def objection(request: dict[str, Any], now: int = NOW) -> Reason | None:
    return objection_to(read_payment(request), now)


def test_the_vector_of_base_sepolia_is_valid() -> None:
    payment = read_payment(request_v2(signature=SEPOLIA_SIGNATURE))

    message = message_of(payment)
    assert objection_to(payment, NOW) is None
    assert message.header.hex() == (
        "71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818"
    )
    assert message.body.hex() == "3dfe10ec4d3f7563789c6b964c29accc7de55df2484f69f0c690288714398d84"


def test_the_vector_of_base_is_valid() -> None:
    wanted = requirements(
        network="eip155:8453",
        amount="19990000",
        asset=BASE_USDC,
        extra={"name": "USD Coin", "version": "2"},
    )
    signed = authorization(value="19990000")
    payment = read_payment(request_v2(signed, signature=BASE_SIGNATURE, wanted=wanted))

    message = message_of(payment)
    assert objection_to(payment, NOW) is None
    assert message.header.hex() == (
        "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f"
    )
    assert message.body.hex() == "bff8be208d97a164ab48d6c8ec11e9d4e7f9e87bd0418b3f31ebe223d4bfb8aa"


def test_the_vector_of_version_1_is_valid() -> None:
    assert objection(request_v1()) is None


def test_version_1_wants_at_least_the_amount_and_version_2_exactly() -> None:
    more = authorization(value="10001")

    assert objection(request_v1(more)) is None
    assert objection(request_v2(more)) is Reason.VALUE_MISMATCH
    assert objection(request_v1(authorization(value="9999"))) is Reason.VALUE


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (1_767_614_694, None),
        (1_767_614_695, Reason.VALID_BEFORE),
        (1_767_614_100, None),
        (1_767_614_099, Reason.VALID_AFTER),
    ],
)
def test_the_window_ends_six_seconds_early(now: int, expected: Reason | None) -> None:
    signed = authorization(validAfter="1767614100")

    assert objection(request_v2(signed), now) is expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"scheme": "upto"}, Reason.UNSUPPORTED_SCHEME),
        ({"network": "eip155:5"}, Reason.INVALID_NETWORK),
        ({"asset": BASE_USDC}, Reason.NOT_A_CONTRACT),
        ({"extra": {"version": "2"}}, Reason.MISSING_DOMAIN),
        ({"extra": None}, Reason.MISSING_DOMAIN),
        ({"payTo": PAYER}, Reason.RECIPIENT_MISMATCH),
        ({"amount": "9999"}, Reason.VALUE_MISMATCH),
        ({"extra": {"name": "USD Coin", "version": "2"}}, Reason.SIGNATURE),
    ],
)
def test_a_payment_must_be_what_the_seller_wants(wanted: dict[str, Any], expected: Reason) -> None:
    assert objection(request_v2(wanted=requirements(**wanted))) is expected


def test_the_buyer_must_mean_the_sellers_network() -> None:
    request = request_v2()
    request["paymentPayload"]["accepted"] = requirements(network="eip155:8453")

    assert objection(request) is Reason.NETWORK_MISMATCH


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"name": "USD Coin", "version": "2"}, Reason.NAME_MISMATCH),
        ({"name": "USDC", "version": "1"}, Reason.VERSION_MISMATCH),
    ],
)
def test_a_signature_for_a_domain_that_is_not_the_tokens_is_found_out(
    domain: dict[str, str], expected: Reason
) -> None:
    signed = authorization()
    request = request_v2(
        signed, signature=sign(signed, domain=domain), wanted=requirements(extra=domain)
    )

    assert objection(request) is expected


@pytest.mark.parametrize(
    "signature",
    [
        "0x",
        SEPOLIA_SIGNATURE[:-2],
        SEPOLIA_SIGNATURE[:-2] + "1c",
        SEPOLIA_SIGNATURE[:-2] + "05",
        "0x" + "00" * 65,
        "0x" + "ff" * 65,
        BASE_SIGNATURE,
    ],
)
def test_a_signature_that_is_not_the_payers_is_refused(signature: str) -> None:
    assert objection(request_v2(signature=signature)) is Reason.SIGNATURE


@pytest.mark.parametrize(
    "change",
    [
        {"from": PAY_TO},
        {"validBefore": "1767614701"},
        {"nonce": "0x" + "5c" * 32},
    ],
)
def test_every_part_of_an_authorization_is_signed(change: dict[str, str]) -> None:
    request = request_v2(authorization(**change), signature=SEPOLIA_SIGNATURE)

    assert objection(request) is Reason.SIGNATURE


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        ([], Reason.INVALID_PAYLOAD),
        ({"x402Version": 3}, Reason.INVALID_VERSION),
        ({"x402Version": True}, Reason.INVALID_VERSION),
        ({"x402Version": 2}, Reason.INVALID_PAYLOAD),
        ({**request_v2(), "paymentRequirements": {}}, Reason.INVALID_REQUIREMENTS),
        ({**request_v1(), "x402Version": 2}, Reason.INVALID_VERSION),
        (request_v2(authorization(), signature="69ad"), Reason.INVALID_PAYLOAD),
        ({**request_v2(), "paymentPayload": None}, Reason.INVALID_PAYLOAD),
    ],
)
def test_what_cannot_be_read_is_no_payment(request_body: Any, expected: Reason) -> None:
    with pytest.raises(NotReadableError) as refused:
        read_payment(request_body)

    assert refused.value.reason is expected


@pytest.mark.parametrize("value", ["1.0", "-1", "0x10", "", "1e3", "\N{FULLWIDTH DIGIT NINE}"])
def test_numbers_are_plain_digits(value: str) -> None:
    request = request_v2()
    request["paymentPayload"]["payload"]["authorization"] = authorization(value=value)

    with pytest.raises(NotReadableError) as refused:
        read_payment(request)

    assert refused.value.reason is Reason.INVALID_PAYLOAD
