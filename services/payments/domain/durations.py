"""Durations in classes, so that their percentiles can be read from counts.

A class is a quarter of a doubling wide: what is read from it is wrong by less than a fifth.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

#: Classes to a doubling, and up to about nine hours; the last one holds all that took longer.
_CLASSES_PER_DOUBLING: Final = 4
_DOUBLINGS: Final = 25

#: The shortest duration of each class but the first, in whole milliseconds. Some of the lowest are
#: equal: their classes stay empty. PostgreSQL's `width_bucket` reads them in the same way.
THRESHOLDS: Final = tuple(
    math.floor(2 ** (index / _CLASSES_PER_DOUBLING)) + 1
    for index in range(_CLASSES_PER_DOUBLING * _DOUBLINGS)
)


def class_of(milliseconds: int) -> int:
    """Return the class of a duration."""
    return bisect_right(THRESHOLDS, milliseconds)


def longest(index: int) -> float:
    """Return the longest duration of a class, in milliseconds; infinite for the last one."""
    return float(THRESHOLDS[index] - 1) if index < len(THRESHOLDS) else math.inf


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the duration in milliseconds that `share` (0 to 1) of the counted do not exceed.

    The longest of its class, so never too short; None when nothing was counted. Of what took longer
    than the classes reach, the bound of the last but one is all that is known.
    """
    total = sum(counts.values())
    if total == 0:
        return None
    wanted = max(1, math.ceil(total * share))
    seen = 0
    for index in sorted(counts):
        seen += counts[index]
        if seen >= wanted:
            return min(longest(index), float(THRESHOLDS[-1]))
    raise AssertionError("unreachable: all are seen at the end")
