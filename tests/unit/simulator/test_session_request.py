"""A session is refused for the first field that is wrong, by name."""

from __future__ import annotations

import pytest

from services.simulator.sslcommerz.session_request import (
    MANDATORY,
    MANDATORY_TO_SHIP,
    OPTIONAL,
    SessionRefusedError,
    read_price,
    read_session_request,
)
from shared.money import Money
from tests.unit.simulator.forms import session_form


def test_a_complete_form_is_read() -> None:
    request = read_session_request(session_form(total_amount="1150.00", value_b="ok"))

    assert request.price == request.charge == Money(1_150_00, "BDT")
    assert request.echoed == ("", "ok", "", "")


def test_another_currency_is_converted() -> None:
    request = read_session_request(session_form(total_amount="10", currency="USD"))

    assert Money(10_00, "USD") == request.price
    assert Money(1_220_00, "BDT") == request.charge


@pytest.mark.parametrize("name", MANDATORY)
@pytest.mark.parametrize("text", ["", "   "], ids=["empty", "blank"])
def test_a_missing_field_is_named(name: str, text: str) -> None:
    with pytest.raises(SessionRefusedError, match=f"'{name}' is missing"):
        read_session_request(session_form(**{name: text}))


@pytest.mark.parametrize("name", MANDATORY_TO_SHIP)
def test_a_missing_field_about_shipping_is_named_if_something_is_shipped(name: str) -> None:
    shipped = dict.fromkeys(MANDATORY_TO_SHIP, "1") | {"shipping_method": "Courier"}
    read_session_request(session_form(**shipped))

    with pytest.raises(SessionRefusedError, match=f"'{name}' is missing"):
        read_session_request(session_form(**shipped | {name: ""}))


@pytest.mark.parametrize(("name", "length_max"), [*MANDATORY.items(), *OPTIONAL.items()])
def test_a_field_that_is_too_long_is_named(name: str, length_max: int) -> None:
    with pytest.raises(SessionRefusedError, match=f"'{name}' must not exceed {length_max}"):
        read_session_request(session_form(**{name: "9" * (length_max + 1)}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("total_amount", "1150.005"),
        ("total_amount", "1,150.00"),
        ("total_amount", "-1150.00"),
        ("total_amount", "1e3"),
        ("total_amount", "NaN"),
        ("total_amount", "\u0661\u0661\u0665\u0660"),
        ("total_amount", "9.99"),
        ("total_amount", "500000.01"),
        ("currency", "XAF"),
        ("product_profile", "sundry"),
        ("shipping_method", "no"),
        ("success_url", "javascript:alert(1)"),
        ("fail_url", "/relative"),
        ("cancel_url", "http://"),
        ("ipn_url", "http://shop.example:99999/"),
        ("tran_id", "line\nbreak"),
        ("product_name", "a\0b"),
    ],
)
def test_a_wrong_value_is_named(name: str, text: str) -> None:
    given = dict.fromkeys(MANDATORY_TO_SHIP, "1") | {name: text}
    with pytest.raises(SessionRefusedError, match=f"'{name}'"):
        read_session_request(session_form(**given))


@pytest.mark.parametrize("amount", ["10.00", "500000.00", "10", "99.5"])
def test_amounts_up_to_the_limits_are_taken(amount: str) -> None:
    request = read_session_request(session_form(total_amount=amount))

    assert request.price == Money.from_decimal_text(amount, "BDT")


def test_an_unreadable_amount_has_no_price() -> None:
    assert read_price({"total_amount": "lots", "currency": "BDT"}) is None
    assert read_price({"total_amount": "10.01", "currency": "BDT"}) == Money(10_01, "BDT")
