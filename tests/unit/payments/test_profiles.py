"""A profile comes into force by schedule or by load, goes again, and does not flap in between."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.profiles import (
    NORMAL,
    Cause,
    InForce,
    LoadCondition,
    Mode,
    Profile,
    Switch,
    Weekday,
    Window,
    plan_switch,
    windows_as_json,
    windows_from_json,
)

DHAKA = ZoneInfo("Asia/Dhaka")
WORKDAYS = frozenset(Weekday) - {Weekday.SATURDAY, Weekday.SUNDAY}
MORNING = Window(WORKDAYS, time(7), time(9, 30))

RUSH = Profile("rush-hours", rank=10, windows=(MORNING,), minimum_stay=timedelta(minutes=10))
FLASH = Profile(
    "flash-sale", rank=20, load=LoadCondition(1_000, 200), minimum_stay=timedelta(minutes=5)
)
PROFILES = {profile.name: profile for profile in (RUSH, FLASH)}

#: A Monday, outside every window.
MONDAY_NOON = datetime(2026, 1, 5, 12, tzinfo=DHAKA)


def at(
    local: datetime,
    *,
    queue_length: int = 0,
    present: str = NORMAL,
    stayed: timedelta = timedelta(days=1),
    mode: Mode = Mode.AUTOMATIC,
    profiles: dict[str, Profile] | None = None,
) -> Switch | None:
    now = local.astimezone(UTC)
    return plan_switch(
        PROFILES if profiles is None else profiles,
        InForce(present, mode, now - stayed),
        now=now,
        local_now=local,
        queue_length=queue_length,
    )


def monday(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 1, 5, hour, minute, second, tzinfo=DHAKA)


@pytest.mark.parametrize(
    ("local", "holds"),
    [
        pytest.param(monday(6, 59, 59), False, id="a second before"),
        pytest.param(monday(7), True, id="at the start"),
        pytest.param(monday(9, 29, 59), True, id="in the last second"),
        pytest.param(monday(9, 30), False, id="at the end"),
        pytest.param(monday(8) + timedelta(days=5), False, id="on a Saturday"),
    ],
)
def test_a_window_holds_from_its_start_to_its_end_on_its_days(
    *, local: datetime, holds: bool
) -> None:
    assert MORNING.holds(local) is holds


@pytest.mark.parametrize(
    ("local", "holds"),
    [
        pytest.param(datetime(2026, 1, 9, 21, 59, tzinfo=UTC), False, id="Friday before it"),
        pytest.param(datetime(2026, 1, 9, 22, 0, tzinfo=UTC), True, id="Friday night"),
        pytest.param(datetime(2026, 1, 10, 1, 59, tzinfo=UTC), True, id="Saturday before two"),
        pytest.param(datetime(2026, 1, 10, 2, 0, tzinfo=UTC), False, id="Saturday at two"),
        pytest.param(datetime(2026, 1, 10, 23, 0, tzinfo=UTC), False, id="Saturday night"),
        pytest.param(datetime(2026, 1, 9, 1, 0, tzinfo=UTC), False, id="Friday before two"),
    ],
)
def test_a_window_may_run_past_midnight(*, local: datetime, holds: bool) -> None:
    assert Window(frozenset({Weekday.FRIDAY}), time(22), time(2)).holds(local) is holds


def test_a_window_that_ends_when_it_starts_is_a_whole_day() -> None:
    window = Window(frozenset({Weekday.MONDAY}), time(6), time(6))

    assert window.holds(monday(6))
    assert window.holds(monday(5, 59) + timedelta(days=1))
    assert not window.holds(monday(6) + timedelta(days=1))


def test_the_schedule_follows_the_wall_clock_over_a_change_of_the_time() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    window = Window(frozenset(Weekday), time(7), time(8))
    # 06:30 UTC is 07:30 in winter and 08:30 in summer.
    winter, summer = (datetime(2026, 3, day, 6, 30, tzinfo=UTC) for day in (28, 29))

    assert window.holds(winter.astimezone(berlin))
    assert not window.holds(summer.astimezone(berlin))


def test_a_rush_begins_and_ends_by_the_clock() -> None:
    assert at(monday(7)) == Switch("rush-hours", Cause.SCHEDULE)
    assert at(monday(8), present="rush-hours") is None
    assert at(monday(9, 30), present="rush-hours") == Switch(NORMAL, Cause.NOTHING)


def test_a_flash_sale_begins_at_one_length_and_ends_at_a_shorter_one() -> None:
    assert at(MONDAY_NOON, queue_length=999) is None
    assert at(MONDAY_NOON, queue_length=1_000) == Switch("flash-sale", Cause.LOAD)
    assert at(MONDAY_NOON, queue_length=201, present="flash-sale") is None
    assert at(MONDAY_NOON, queue_length=200, present="flash-sale") == Switch(NORMAL, Cause.NOTHING)


def test_it_goes_up_at_once_and_down_after_the_minimum_stay() -> None:
    just_now = timedelta(seconds=1)

    assert at(monday(8), queue_length=5_000, present="rush-hours", stayed=just_now) == Switch(
        "flash-sale", Cause.LOAD
    )
    assert at(monday(8), present="flash-sale", stayed=timedelta(seconds=299)) is None
    assert at(monday(8), present="flash-sale", stayed=timedelta(seconds=300)) == Switch(
        "rush-hours", Cause.SCHEDULE
    )


def test_what_an_operator_chose_stays() -> None:
    assert at(monday(8), queue_length=9_999, mode=Mode.MANUAL) is None


def test_of_equal_ranks_the_present_one_stays() -> None:
    twins = {
        name: Profile(name, rank=5, windows=(MORNING,), minimum_stay=timedelta())
        for name in ("aaa", "bbb")
    }

    assert at(monday(8), profiles=twins) == Switch("aaa", Cause.SCHEDULE)
    assert at(monday(8), profiles=twins, present="bbb") is None


def test_a_profile_that_is_gone_is_left_at_once() -> None:
    assert at(MONDAY_NOON, present="deleted", stayed=timedelta()) == Switch(NORMAL, Cause.NOTHING)


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=200))
def test_however_the_queue_jumps_it_switches_twice_in_a_minimum_stay_at_most(
    lengths: list[int],
) -> None:
    now, in_force = MONDAY_NOON, InForce(NORMAL, Mode.AUTOMATIC, MONDAY_NOON)
    switches = []
    for length in lengths:
        now += timedelta(seconds=5)
        switch = plan_switch(PROFILES, in_force, now=now, local_now=now, queue_length=length)
        if switch is not None:
            switches.append((now, switch.profile))
            in_force = InForce(switch.profile, Mode.AUTOMATIC, now)
            settled = plan_switch(PROFILES, in_force, now=now, local_now=now, queue_length=length)
            assert settled is None, "nothing changed meanwhile"

    downs = [moment for moment, name in switches if name == NORMAL]
    assert all(later - sooner >= FLASH.minimum_stay for sooner, later in pairwise(downs))
    assert [name for _, name in switches] == (["flash-sale", NORMAL] * 100)[: len(switches)]


def test_windows_are_read_back_as_they_were_stored() -> None:
    windows = (MORNING, Window(frozenset({Weekday.SUNDAY}), time(22), time(2)))

    assert windows_from_json(windows_as_json(windows)) == windows
    assert windows_as_json(windows)[1] == {"days": ["sun"], "from": "22:00", "to": "02:00"}


@pytest.mark.parametrize(("above", "below"), [(10, 10), (10, 11), (10, -1)])
def test_a_load_condition_without_hysteresis_is_refused(above: int, below: int) -> None:
    with pytest.raises(ValueError, match="below"):
        LoadCondition(above, below)
