"""Durations in classes, so that their percentiles can be read from counts.

A class is a quarter of a doubling wide: what is read from it is wrong by less than a fifth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

#: Classes to a doubling.
CLASSES_PER_DOUBLING: Final = 4

#: The last class holds all from about nine hours on.
CLASSES: Final = 101


def class_of(milliseconds: int) -> int:
    """Return the class of a duration; that of 0 and 1 ms is 0."""
    if milliseconds <= 1:
        return 0
    return min(CLASSES - 1, math.ceil(math.log2(milliseconds) * CLASSES_PER_DOUBLING))


def upper_bound(index: int) -> float:
    """Return the longest duration of a class, in milliseconds."""
    return float(2 ** (index / CLASSES_PER_DOUBLING))


def classify(durations: Iterable[int]) -> list[int]:
    """Count durations by class; the classes past the last one used are left out."""
    counts = [0] * CLASSES
    for milliseconds in durations:
        counts[class_of(milliseconds)] += 1
    while counts and counts[-1] == 0:
        counts.pop()
    return counts


def add(counts: list[int], others: Sequence[int]) -> None:
    """Add counts by class to others, in place."""
    counts.extend([0] * (len(others) - len(counts)))
    for index, count in enumerate(others):
        counts[index] += count


def percentile(counts: Sequence[int], share: float) -> float | None:
    """Return the duration in milliseconds that `share` (0 to 1) of the counted do not exceed.

    The upper bound of its class, so never too good; None when nothing was counted.
    """
    total = sum(counts)
    if total == 0:
        return None
    wanted = max(1, math.ceil(total * share))
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return upper_bound(index)
    raise AssertionError("unreachable: all are seen at the end")
