"""Large payments go first: above the upper threshold high, from the lower one medium."""

from __future__ import annotations

import pytest

from shared.contracts.priorities import (
    THRESHOLDS,
    Priority,
    Thresholds,
    priority_of,
    read_thresholds,
)


@pytest.mark.parametrize("currency", THRESHOLDS)
def test_both_thresholds_are_exact(currency: str) -> None:
    medium_from, high_above = THRESHOLDS[currency].medium_from, THRESHOLDS[currency].high_above

    assert priority_of(medium_from - 1, currency) is Priority.NORMAL
    assert priority_of(medium_from, currency) is Priority.MEDIUM
    assert priority_of(high_above, currency) is Priority.MEDIUM
    assert priority_of(high_above + 1, currency) is Priority.HIGH


def test_the_rule_of_the_product_is_in_xaf() -> None:
    assert THRESHOLDS["XAF"] == Thresholds(5_000, 10_000)


@pytest.mark.parametrize("currency", ["JPY", "", "bdt"])
def test_a_currency_without_thresholds_is_normal(currency: str) -> None:
    assert priority_of(10**15, currency) is Priority.NORMAL


def test_thresholds_are_read_as_they_are_written() -> None:
    assert read_thresholds("XAF=1:2, EUR=800:800") == {
        "XAF": Thresholds(1, 2),
        "EUR": Thresholds(800, 800),
    }
    assert priority_of(3, "XAF", read_thresholds("XAF=1:2")) is Priority.HIGH


@pytest.mark.parametrize("text", ["XAF", "XAF=5", "XAF=a:b", "xaf=1:2", "XAF=1:2,", "XAF=3:2"])
def test_what_says_no_thresholds_is_refused_with_the_entry(text: str) -> None:
    with pytest.raises(ValueError, match="'"):
        read_thresholds(text)
