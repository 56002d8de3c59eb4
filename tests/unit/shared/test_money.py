"""Money is exact: what cannot be written in whole minor units is refused, never rounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError
from shared.money import DECIMAL_PLACES, MINOR_UNITS_MAX, Money

amounts = st.builds(Money, st.integers(0, MINOR_UNITS_MAX), st.sampled_from(sorted(DECIMAL_PLACES)))


@given(amounts)
def test_an_amount_written_and_read_again_is_the_same(money: Money) -> None:
    assert Money.from_decimal_text(money.decimal_text(), money.currency) == money


@given(st.text(), st.sampled_from(sorted(DECIMAL_PLACES)))
def test_any_text_is_read_exactly_or_refused(text: str, currency: str) -> None:
    try:
        money = Money.from_decimal_text(text, currency)
    except InvalidInputError:
        return
    whole, _, fraction = text.partition(".")
    assert money.decimal_text().rstrip("0").rstrip(".") == (
        f"{int(whole)}.{fraction}".rstrip("0").rstrip(".")
    )


@pytest.mark.parametrize(
    ("text", "currency", "minor_units"),
    [
        ("1150.00", "BDT", 115_000),
        ("1150", "BDT", 115_000),
        ("10.5", "USD", 1_050),
        ("10.500", "USD", 1_050),
        ("007.10", "EUR", 710),
        ("5000", "XAF", 5_000),
        ("5000.00", "XAF", 5_000),
        ("1.234", "KWD", 1_234),
        ("0.000001", "USDC", 1),
    ],
)
def test_a_plain_decimal_becomes_minor_units(text: str, currency: str, minor_units: int) -> None:
    assert Money.from_decimal_text(text, currency) == Money(minor_units, currency)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "1.", ".5", " 1.00", "1.00\n", "+1.00", "-1.00", "1,150.00", "1_150"),
        *(
            "1e3",
            "1E999999",
            "1e-999999",
            "NaN",
            "sNaN",
            "Infinity",
            "0x10",
            "\u0661\u0660",
            "10.001",
        ),
        "10.00000000000000000000000000000001",
        "9" * 5_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_plain_decimal_or_would_be_rounded_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Money.from_decimal_text(text, "BDT")


def test_decimals_of_a_currency_without_any_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="more than 0 decimals"):
        Money.from_decimal_text("5000.5", "XAF")


def test_an_unknown_currency_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="'XYZ'"):
        Money(1, "XYZ")
    with pytest.raises(InvalidInputError, match="'XYZ'"):
        Money.from_decimal_text("1.00", "XYZ")


@pytest.mark.parametrize("minor_units", [-1, MINOR_UNITS_MAX + 1])
def test_an_amount_outside_the_range_is_refused(minor_units: int) -> None:
    with pytest.raises(InvalidInputError, match="outside 0 to"):
        Money(minor_units, "BDT")


def test_money_shows_its_decimals_and_currency() -> None:
    assert str(Money(5, "BDT")) == "0.05 BDT"
    assert str(Money(5_000, "XAF")) == "5000 XAF"
