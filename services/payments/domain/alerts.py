"""When operators are told that a measurement passed its threshold, and that it is well again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

#: An episode ends when the measurement has been well for so long: one that swings around its
#: threshold is one episode and not many.
CLEARED_AFTER: Final = timedelta(minutes=1)


class Measurement(StrEnum):
    """What is watched, each by one number."""

    #: Messages and payments that wait to be worked at.
    QUEUE_LENGTH = "queue_length"
    #: Calls of gateways that fail, in per cent.
    ERROR_RATE = "error_rate"
    #: Our own time for a payment on average, in seconds.
    PROCESSING_TIME = "processing_time"
    #: Payments that came to rest and succeeded, in per cent.
    SUCCESS_RATE = "success_rate"


#: Of these less is worse.
_FLOORS: Final = frozenset({Measurement.SUCCESS_RATE})


@dataclass(frozen=True, slots=True)
class Reading:
    """A measurement beside its threshold. No value: there was too little to measure."""

    measurement: Measurement
    threshold: float
    value: float | None

    @property
    def is_passed(self) -> bool:
        """Whether the value is beyond the threshold."""
        if self.value is None:
            return False
        return _is_worse(self.measurement, self.value, self.threshold)


@dataclass(frozen=True, slots=True)
class Episode:
    """The time from the raising of an alert to its clearing."""

    id: str
    measurement: Measurement
    threshold: float
    raised_value: float
    worst_value: float
    last_value: float
    raised_at: datetime
    well_since: datetime | None = None
    cleared_at: datetime | None = None


def follow(
    reading: Reading, episode: Episode | None, *, new_id: str, now: datetime
) -> Episode | None:
    """Return the episode after a reading: begun, gone on or cleared; None when there is none.

    Args:
        reading: What was measured just now.
        episode: The open one of this measurement.
        new_id: The id of the episode that this reading may begin.
        now: The present moment.
    """
    value = reading.value
    if episode is None:
        if value is None or not reading.is_passed:
            return None
        return Episode(
            new_id, reading.measurement, reading.threshold, value, value, value, raised_at=now
        )
    if value is not None:
        is_worst = _is_worse(reading.measurement, value, episode.worst_value)
        worst = value if is_worst else episode.worst_value
        episode = replace(episode, last_value=value, worst_value=worst)
    if reading.is_passed:
        return replace(episode, well_since=None)
    well_since = episode.well_since or now
    is_over = now - well_since >= CLEARED_AFTER
    return replace(episode, well_since=well_since, cleared_at=now if is_over else None)


def _is_worse(measurement: Measurement, value: float, other: float) -> bool:
    return value < other if measurement in _FLOORS else value > other
