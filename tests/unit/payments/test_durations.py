"""Percentiles are read from counts: never too good, and wrong by less than a fifth."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain import durations

#: Up to where a duration has a class of its own kind.
MILLISECONDS = st.integers(0, 2**25)


@given(MILLISECONDS)
def test_a_duration_lies_within_its_class(milliseconds: int) -> None:
    index = durations.class_of(milliseconds)

    assert milliseconds <= math.ceil(durations.upper_bound(index))
    assert index == 0 or milliseconds > durations.upper_bound(index - 1) * 0.999


@given(st.integers(2**25, 2**31 - 1))
def test_what_took_longer_than_all_classes_is_in_the_last(milliseconds: int) -> None:
    assert durations.class_of(milliseconds) == durations.CLASSES - 1


@given(st.lists(MILLISECONDS, min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_that_of_the_sorted_durations(taken: list[int], share: float) -> None:
    exact = sorted(taken)[max(1, math.ceil(len(taken) * share)) - 1]

    found = durations.percentile(durations.classify(taken), share)

    assert found is not None
    assert exact <= math.ceil(found)
    assert found <= max(1, exact) * 2 ** (1 / durations.CLASSES_PER_DOUBLING) * 1.001


@given(st.lists(MILLISECONDS), st.lists(MILLISECONDS))
def test_counts_of_two_times_add_up_to_those_of_both(first: list[int], second: list[int]) -> None:
    counts = durations.classify(first)

    durations.add(counts, durations.classify(second))

    assert counts == durations.classify(first + second)


def test_of_nothing_there_is_no_percentile() -> None:
    assert durations.percentile([], 0.5) is None
    assert durations.classify([]) == []
