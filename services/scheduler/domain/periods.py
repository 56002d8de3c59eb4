"""Periods of a subscription, computed from its anchor and never by adding to the last date.

Minutes and hours are lengths of time. Days, weeks, months and years are dates of the calendar in
the subscription's time zone: the wall clock says the same on each of them, and a month that is too
short for the anchor's day ends on its last one.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo


class IntervalUnit(StrEnum):
    """What an interval is counted in."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


#: Lengths of time, the same everywhere and always.
_SECONDS: Final = {IntervalUnit.MINUTE: 60, IntervalUnit.HOUR: 3_600}
_DAYS: Final = {IntervalUnit.DAY: 1, IntervalUnit.WEEK: 7}
_MONTHS: Final = {IntervalUnit.MONTH: 1, IntervalUnit.YEAR: 12}

#: Days that every month has.
SHORTEST_MONTH: Final = 28

#: Mean length of a month in seconds, to guess a number from.
_MONTH_SECONDS: Final = 2_629_746

#: No period reaches beyond: dates end with the year 9999, and zones move them by a day.
LAST_MOMENT: Final = datetime(9_000, 1, 1, tzinfo=UTC)


class OutOfTimeError(ValueError):
    """A period would reach beyond the year 9000."""


class Interval(NamedTuple):
    """A number of units, at least one."""

    unit: IntervalUnit
    every: int

    def __str__(self) -> str:
        return f"{self.every} {self.unit}" + ("" if self.every == 1 else "s")


class Rhythm(NamedTuple):
    """When periods begin: period 0 at the anchor (UTC), the others an interval apart."""

    anchor: datetime
    zone: str
    interval: Interval


class Period(NamedTuple):
    """A period, from its start up to but not including its end. Never empty."""

    number: int
    start: datetime
    end: datetime


def boundary(rhythm: Rhythm, number: int) -> datetime:
    """Return when a period begins, in UTC; `number` counts from the anchor and may be negative.

    A time that the zone leaves out, when clocks go forward, is as much later as they go. Of one
    that comes twice the first is meant.

    Raises:
        OutOfTimeError: that is beyond the year 9000.
    """
    anchor, zone_name, (unit, every) = rhythm
    if number == 0:
        return anchor  # Also when it is the second of a time that comes twice.
    steps = number * every
    try:
        if unit in _SECONDS:
            found = anchor + timedelta(seconds=steps * _SECONDS[unit])
        else:
            zone = ZoneInfo(zone_name)
            local = anchor.astimezone(zone)
            if unit in _DAYS:
                date = local.replace(tzinfo=None) + timedelta(days=steps * _DAYS[unit])
                local = date.replace(tzinfo=zone, fold=0)
            else:
                local = _months_later(local, steps * _MONTHS[unit])
            found = local.astimezone(UTC)
    except (OverflowError, ValueError) as error:
        raise OutOfTimeError(f"period {number} of every {rhythm.interval} has no date") from error
    if found > LAST_MOMENT:
        raise OutOfTimeError(f"period {number} of every {rhythm.interval} is after the year 9000")
    return found


def _months_later(local: datetime, months: int) -> datetime:
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = local.day
    if day > SHORTEST_MONTH:
        day = min(day, calendar.monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day, fold=0)


def period_after(rhythm: Rhythm, number: int) -> Period:
    """Return the first period after `number` that has a length.

    Zones have left out whole days (Samoa, 30 December 2011): a daily period of such a day would
    begin and end at once. There is none then, and nothing is billed for it.

    Raises:
        OutOfTimeError: it is beyond the year 9000.
    """
    number += 1
    start, end = boundary(rhythm, number), boundary(rhythm, number + 1)
    while end <= start:
        number += 1
        end = boundary(rhythm, number + 1)
    return Period(number, start, end)


def period_at(rhythm: Rhythm, moment: datetime) -> Period:
    """Return the period that a moment lies in; before the anchor it has a negative number.

    Raises:
        OutOfTimeError: it is beyond the year 9000.
    """
    number = _guess(rhythm, moment)
    while boundary(rhythm, number) > moment:
        number -= 1
    while boundary(rhythm, number + 1) <= moment:
        number += 1
    # A period without length at the same moment comes before the one that lasts.
    return Period(number, boundary(rhythm, number), boundary(rhythm, number + 1))


def _guess(rhythm: Rhythm, moment: datetime) -> int:
    unit, every = rhythm.interval
    seconds = (moment - rhythm.anchor).total_seconds()
    if unit in _SECONDS:
        length = _SECONDS[unit]
    elif unit in _DAYS:
        length = _DAYS[unit] * 86_400
    else:
        length = _MONTHS[unit] * _MONTH_SECONDS
    return int(seconds // (length * every))
