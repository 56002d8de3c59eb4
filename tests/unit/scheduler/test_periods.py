"""Periods follow the anchor: contiguous, never empty, never overlapping, on the same wall clock."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.scheduler.domain.periods import (
    Interval,
    IntervalUnit,
    OutOfTimeError,
    Rhythm,
    boundary,
    period_after,
    period_at,
)

MONTH = Interval(IntervalUnit.MONTH, 1)
DAY = Interval(IntervalUnit.DAY, 1)

#: Half an hour of daylight saving, a skipped day, a skipped date line, saving that pauses for a
#: month, midnights that do not exist, offsets of three quarters of an hour, two hours of saving.
ZONES = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Gaza",
    "Asia/Dhaka",
    "Antarctica/Troll",
    "Africa/Douala",
]

#: Years with odd rules in one of the zones, leap years, and a century that is none.
YEARS = [1900, 1993, 1999, 2000, 2004, 2009, 2011, 2018, 2023, 2024, 2026, 2028, 2100]


@st.composite
def anchors(draw: st.DrawFn) -> datetime:
    year, month = draw(st.sampled_from(YEARS)), draw(st.integers(1, 12))
    day = min(draw(st.integers(1, 31)), calendar.monthrange(year, month)[1])
    moment = draw(st.times())
    return datetime.combine(date(year, month, day), moment, UTC)


intervals = st.builds(Interval, st.sampled_from(IntervalUnit), st.integers(1, 40))
rhythms = st.builds(Rhythm, anchors(), st.sampled_from(ZONES), intervals)

#: The whole of Samoa's missing day, and Kwajalein's.
SAMOA = Rhythm(datetime(2011, 12, 28, 20, tzinfo=UTC), "Pacific/Apia", DAY)
KWAJALEIN = Rhythm(datetime(1993, 8, 19, 12, tzinfo=UTC), "Pacific/Kwajalein", DAY)


@given(rhythms, st.integers(-1, 160))
@example(SAMOA, 0)
@example(KWAJALEIN, 0)
@settings(max_examples=600)
def test_each_period_begins_where_the_one_before_ends(rhythm: Rhythm, number: int) -> None:
    first = period_after(rhythm, number)
    second = period_after(rhythm, first.number)
    assert first.start < first.end == second.start < second.end


@given(rhythms, st.integers(-1, 160))
@example(SAMOA, 0)
@example(KWAJALEIN, 0)
@settings(max_examples=600)
def test_a_moment_lies_in_the_one_period_that_has_it(rhythm: Rhythm, number: int) -> None:
    period = period_after(rhythm, number)
    last = period.end - timedelta(microseconds=1)
    middle = period.start + (period.end - period.start) / 2
    assert {period_at(rhythm, moment) for moment in (period.start, middle, last)} == {period}
    assert period_at(rhythm, period.end).start == period.end


@given(rhythms, st.integers(1, 120))
@settings(max_examples=400)
def test_no_period_is_skipped_that_has_a_length(rhythm: Rhythm, number: int) -> None:
    period = period_after(rhythm, number)
    left_out = range(number + 1, period.number)
    assert all(boundary(rhythm, each) == period.start for each in left_out)


@given(anchors(), st.sampled_from(ZONES), st.integers(1, 40), st.integers(1, 500))
@settings(max_examples=400)
def test_days_keep_the_wall_clock_unless_it_does_not_exist(
    anchor: datetime, zone: str, every: int, number: int
) -> None:
    here = ZoneInfo(zone)
    wanted = anchor.astimezone(here).replace(tzinfo=None) + timedelta(days=every * number)
    found = boundary(Rhythm(anchor, zone, Interval(IntervalUnit.DAY, every)), number)
    local = found.astimezone(here).replace(tzinfo=None)
    if local != wanted:
        before = (found - timedelta(days=2)).astimezone(here).utcoffset()
        after = (found + timedelta(days=2)).astimezone(here).utcoffset()
        assert before is not None
        assert after is not None
        # Clocks went forward over it, and it is as much later as they went.
        assert local - wanted == after - before > timedelta(0)


@given(
    anchors(), st.sampled_from(["UTC", "Africa/Douala"]), st.integers(1, 24), st.integers(1, 300)
)
@settings(max_examples=400)
def test_months_keep_the_day_or_end_on_their_last_one(
    anchor: datetime, zone: str, every: int, number: int
) -> None:
    here = ZoneInfo(zone)
    start = anchor.astimezone(here)
    found = boundary(Rhythm(anchor, zone, Interval(IntervalUnit.MONTH, every)), number)
    local = found.astimezone(here)
    months = (local.year - start.year) * 12 + local.month - start.month
    assert months == every * number
    assert local.day == min(start.day, calendar.monthrange(local.year, local.month)[1])
    offsets = start.utcoffset(), local.utcoffset()
    assert local.time() == start.time() or offsets[0] != offsets[1]


@given(anchors(), st.sampled_from(ZONES), st.integers(1, 100_000), st.integers(0, 10_000))
def test_hours_are_a_length_of_time(anchor: datetime, zone: str, every: int, number: int) -> None:
    rhythm = Rhythm(anchor, zone, Interval(IntervalUnit.HOUR, every))
    try:
        found = boundary(rhythm, number)
    except OutOfTimeError:
        assert every * number > 6_800 * 8_760
    else:
        assert found - anchor == timedelta(hours=every * number)


@pytest.mark.parametrize(
    ("year", "days"),
    [
        (2023, ["2023-02-28", "2023-03-31", "2023-04-30", "2023-05-31"]),
        (2024, ["2024-02-29", "2024-03-31", "2024-04-30", "2024-05-31"]),
        (2100, ["2100-02-28", "2100-03-31", "2100-04-30", "2100-05-31"]),
    ],
)
def test_the_end_of_january_comes_back_after_february(year: int, days: list[str]) -> None:
    rhythm = Rhythm(datetime(year, 1, 31, 9, tzinfo=UTC), "UTC", MONTH)
    assert [boundary(rhythm, number).date().isoformat() for number in range(1, 5)] == days


def test_a_leap_day_comes_back_in_leap_years() -> None:
    rhythm = Rhythm(datetime(2024, 2, 29, tzinfo=UTC), "UTC", Interval(IntervalUnit.YEAR, 1))
    found = [boundary(rhythm, number).date().isoformat() for number in range(5)]
    assert found == ["2024-02-29", "2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]


def test_the_last_day_of_a_month_is_that_of_the_zone_and_not_of_utc() -> None:
    # 1 February 01:00 in Dhaka is 31 January in UTC.
    rhythm = Rhythm(datetime(2026, 1, 31, 19, tzinfo=UTC), "Asia/Dhaka", MONTH)
    local = [boundary(rhythm, number).astimezone(ZoneInfo("Asia/Dhaka")) for number in range(4)]
    assert [(each.month, each.day) for each in local] == [(2, 1), (3, 1), (4, 1), (5, 1)]


def test_a_time_that_does_not_exist_is_as_much_later_as_clocks_go() -> None:
    rhythm = Rhythm(datetime(2026, 3, 27, 1, 30, tzinfo=UTC), "Europe/Paris", DAY)
    paris = ZoneInfo("Europe/Paris")
    local = [boundary(rhythm, number).astimezone(paris).time() for number in range(4)]
    assert local == [time(2, 30), time(2, 30), time(3, 30), time(2, 30)]


def test_of_a_time_that_comes_twice_the_first_is_meant() -> None:
    rhythm = Rhythm(datetime(2026, 10, 24, 0, 30, tzinfo=UTC), "Europe/Paris", DAY)
    found = [boundary(rhythm, number).isoformat() for number in range(3)]
    assert found == [
        "2026-10-24T00:30:00+00:00",
        "2026-10-25T00:30:00+00:00",
        "2026-10-26T01:30:00+00:00",
    ]


def test_an_anchor_that_is_the_second_of_such_times_is_kept() -> None:
    anchor = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert period_after(Rhythm(anchor, "Europe/Paris", DAY), -1).start == anchor


def test_a_day_that_a_zone_left_out_has_no_period() -> None:
    numbers: list[int] = []
    number = -1
    while len(numbers) < 4:
        number = period_after(SAMOA, number).number
        numbers.append(number)
    assert numbers == [0, 1, 3, 4]
    days = [boundary(SAMOA, each).astimezone(ZoneInfo("Pacific/Apia")).day for each in numbers]
    assert days == [28, 29, 31, 1]


def test_no_period_reaches_beyond_the_calendar() -> None:
    rhythm = Rhythm(datetime(2026, 1, 1, tzinfo=UTC), "UTC", Interval(IntervalUnit.YEAR, 100))
    with pytest.raises(OutOfTimeError, match="100 years"):
        boundary(rhythm, 80)
    with pytest.raises(OutOfTimeError, match="after the year 9000"):
        boundary(rhythm, 70)
