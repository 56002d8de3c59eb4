"""Large payments go first: above the upper threshold high, from the lower one medium."""

from __future__ import annotations

import pytest

from shared.contracts.priorities import THRESHOLDS, Priority, priority_of


@pytest.mark.parametrize("currency", THRESHOLDS)
def test_both_thresholds_are_exact(currency: str) -> None:
    medium_from, high_above = THRESHOLDS[currency]

    assert priority_of(medium_from - 1, currency) is Priority.NORMAL
    assert priority_of(medium_from, currency) is Priority.MEDIUM
    assert priority_of(high_above, currency) is Priority.MEDIUM
    assert priority_of(high_above + 1, currency) is Priority.HIGH


def test_the_rule_of_the_product_is_in_xaf() -> None:
    assert THRESHOLDS["XAF"] == (5_000, 10_000)


@pytest.mark.parametrize("currency", ["JPY", "", "bdt"])
def test_a_currency_without_thresholds_is_normal(currency: str) -> None:
    assert priority_of(10**15, currency) is Priority.NORMAL
