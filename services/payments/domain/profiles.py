"""Which named set of limits is in force: by schedule or by load, and back, without flapping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final

from services.payments.domain.limits import Limits

#: The profile that is in force when no other one is. It has no condition, and without limits of its
#: own it stands for the settings.
NORMAL: Final = "normal"

#: A queue that breathes around a threshold shall not switch with every breath.
MINIMUM_STAY_DEFAULT: Final = timedelta(minutes=5)


class Weekday(StrEnum):
    """A day of the operator's week, in the order of `datetime.weekday`."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


_WEEK: Final = tuple(Weekday)


class Mode(StrEnum):
    """Who decides which profile is in force."""

    AUTOMATIC = "automatic"
    #: An operator chose it, and it stays until an operator says otherwise.
    MANUAL = "manual"


class Cause(StrEnum):
    """Why a profile came into force."""

    SCHEDULE = "schedule"
    LOAD = "load"
    #: No profile has its condition met: the normal one is in force.
    NOTHING = "nothing"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of some weekdays, by the operator's clock on the wall.

    The end is not part of it. An end that is not after the start is one of the next day; the
    weekdays are those of the start.
    """

    days: frozenset[Weekday]
    start: time
    end: time

    def holds(self, local: datetime) -> bool:
        """Tell whether a moment, in the operator's time zone, lies in it."""
        clock, today = local.time(), local.weekday()
        if self.start < self.end:
            return _WEEK[today] in self.days and self.start <= clock < self.end
        began_today = _WEEK[today] in self.days and clock >= self.start
        return began_today or (_WEEK[today - 1] in self.days and clock < self.end)


@dataclass(frozen=True, slots=True)
class LoadCondition:
    """In force from a queue of `above` payments on, until it is `below` or shorter."""

    above: int
    below: int

    def __post_init__(self) -> None:
        if not 0 <= self.below < self.above:
            raise ValueError("below must be less than above, and not negative")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of limits, and when it is in force by itself: in a window, or by load."""

    name: str
    limits: Limits = field(default_factory=Limits)
    rank: int = 0
    windows: tuple[Window, ...] = ()
    load: LoadCondition | None = None
    #: Once in force, it stays so long before one of its rank or below takes its place.
    minimum_stay: timedelta = MINIMUM_STAY_DEFAULT


@dataclass(frozen=True, slots=True)
class InForce:
    """The profile in force and since when."""

    profile: str
    mode: Mode
    since: datetime


@dataclass(frozen=True, slots=True)
class Switch:
    """A profile that shall come into force, and why."""

    profile: str
    cause: Cause


def plan_switch(
    profiles: Mapping[str, Profile],
    in_force: InForce,
    *,
    now: datetime,
    local_now: datetime,
    queue_length: int,
) -> Switch | None:
    """Decide whether another profile shall come into force; None when all stays as it is.

    Of those whose condition is met the highest rank wins. One of a higher rank than the present one
    comes into force at once: a rush does not wait. Down it goes only after the present one's
    minimum stay, which so bounds how often it can go to and fro.

    Args:
        profiles: All of them, by name; the normal one may be missing.
        in_force: What the last switch said.
        now: The present moment.
        local_now: The same moment in the operator's time zone.
        queue_length: Payments that wait to be worked on.
    """
    if in_force.mode is Mode.MANUAL:
        return None
    present = profiles.get(in_force.profile)
    wanted = _wanted(profiles.values(), in_force.profile, local_now, queue_length)
    if wanted.profile == in_force.profile:
        return None
    goes_up = _rank(profiles.get(wanted.profile)) > _rank(present)
    if not goes_up and present is not None and now < in_force.since + present.minimum_stay:
        return None
    return wanted


def _wanted(
    profiles: Iterable[Profile], present: str, local_now: datetime, queue_length: int
) -> Switch:
    met = [
        (profile, cause)
        for profile in profiles
        if (cause := _cause(profile, present, local_now, queue_length)) is not None
    ]
    if not met:
        return Switch(NORMAL, Cause.NOTHING)
    # Of equal ranks the present one stays, else the first by name: never a matter of chance.
    profile, cause = min(
        met, key=lambda each: (-each[0].rank, each[0].name != present, each[0].name)
    )
    return Switch(profile.name, cause)


def _cause(profile: Profile, present: str, local_now: datetime, queue_length: int) -> Cause | None:
    if any(window.holds(local_now) for window in profile.windows):
        return Cause.SCHEDULE
    if profile.load is None:
        return None
    if profile.name == present:
        return Cause.LOAD if queue_length > profile.load.below else None
    return Cause.LOAD if queue_length >= profile.load.above else None


def _rank(profile: Profile | None) -> int:
    """Return a profile's rank; the normal one is below all others."""
    return -1 if profile is None or profile.name == NORMAL else profile.rank


def windows_as_json(windows: Iterable[Window]) -> list[dict[str, Any]]:
    """Write windows as they are stored and shown."""
    return [
        {
            "days": [day for day in _WEEK if day in window.days],
            "from": f"{window.start:%H:%M}",
            "to": f"{window.end:%H:%M}",
        }
        for window in windows
    ]


def windows_from_json(stored: Iterable[Mapping[str, Any]]) -> tuple[Window, ...]:
    """Read what `windows_as_json` wrote."""
    return tuple(
        Window(
            frozenset(Weekday(day) for day in window["days"]),
            time.fromisoformat(window["from"]),
            time.fromisoformat(window["to"]),
        )
        for window in stored
    )
