"""Percentiles are read from counts: never too good, and wrong by less than a fifth."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import durations

#: Below where the last class begins.
MILLISECONDS = st.integers(0, durations.THRESHOLDS[-1] - 1)


@given(MILLISECONDS)
def test_a_duration_lies_within_its_class(milliseconds: int) -> None:
    index = durations.class_of(milliseconds)

    assert milliseconds <= durations.longest(index)
    assert index == 0 or milliseconds > durations.longest(index - 1)


@given(MILLISECONDS)
def test_a_class_is_a_fifth_wide(milliseconds: int) -> None:
    longest = durations.longest(durations.class_of(milliseconds))

    assert longest <= max(1, milliseconds) * 2**0.25


@given(st.integers(durations.THRESHOLDS[-1], 2**31 - 1))
def test_what_took_longer_than_all_classes_is_in_the_last(milliseconds: int) -> None:
    index = durations.class_of(milliseconds)

    assert index == len(durations.THRESHOLDS)
    assert math.isinf(durations.longest(index))
    assert durations.percentile({index: 1}, 0.5) == durations.THRESHOLDS[-1]


@given(st.lists(MILLISECONDS, min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_that_of_the_sorted_durations(taken: list[int], share: float) -> None:
    exact = sorted(taken)[max(1, math.ceil(len(taken) * share)) - 1]

    found = durations.percentile(Counter(map(durations.class_of, taken)), share)

    assert found is not None
    assert exact <= found <= max(1, exact) * 2**0.25


def test_of_nothing_there_is_no_percentile() -> None:
    assert durations.percentile({}, 0.5) is None
