"""Test clocks: times that a person moves, and whose subscriptions follow.

What a clock shows is a ceiling. All that is due until then happens, each subscription in its own
order and at its own time (`as_of`), which stands still while a charge is at the gateway.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

from services.scheduler.domain.commands import NotNowError, cancel
from services.scheduler.domain.model import OVER, Move, Plan, Subscription
from services.scheduler.domain.steps import moved

#: No clock goes beyond: a period that begins then may last for some centuries more.
LAST_MOMENT: Final = datetime(8_000, 1, 1, tzinfo=UTC)

#: No clock begins before: calendars and zones are guesses then.
FIRST_MOMENT: Final = datetime(1_900, 1, 1, tzinfo=UTC)


class VirtualClock(NamedTuple):
    """A test clock."""

    id: str
    name: str
    #: What it shows, or while it runs what it showed at `runs_since`.
    now: datetime
    #: In real time; None while it stands.
    runs_since: datetime | None
    #: Something of it may be due or at a gateway.
    is_advancing: bool
    created_at: datetime
    removed_at: datetime | None

    def moment(self, real_now: datetime) -> datetime:
        """Return what it shows."""
        if self.runs_since is None:
            return self.now
        return min(LAST_MOMENT, self.now + max(real_now - self.runs_since, _NO_TIME))


_NO_TIME: Final = FIRST_MOMENT - FIRST_MOMENT


def is_in_flight(s: Subscription) -> bool:
    """Tell whether an answer about a charge is awaited, so that its time stands still.

    A retry that waits for its time is no such charge.
    """
    return s.charging is not None and s.retry_at is None


def moment_of_command(s: Subscription, clock: VirtualClock, real_now: datetime) -> datetime:
    """Return what time it is for a subscription on a clock when a person acts on it.

    Raises:
        NotNowError: it has not come to what its clock shows.
    """
    assert s.as_of is not None, "it is on a clock"
    if is_in_flight(s):
        return s.as_of
    moment = clock.moment(real_now)
    if s.due_at is not None and s.due_at <= moment:
        problem = f"the subscription is still on its way to the time of clock {clock.id}: wait"
        raise NotNowError("clock_is_advancing", problem)
    return max(s.as_of, moment)


def moment_when_due(s: Subscription) -> datetime:
    """Return when what is due happens to a subscription on a clock. Its time never goes back."""
    assert s.due_at is not None, "it is due"
    assert s.as_of is not None, "it is on a clock"
    return max(s.due_at, s.as_of)


def attached(
    s: Subscription, plan: Plan, clock: VirtualClock, last: datetime, real_now: datetime
) -> Move | None:
    """Put a subscription on a clock, from the last thing on that happened to it (at `last`).

    None when it is there, or over: nothing happens to it any more.

    Raises:
        NotNowError: it is on another clock, its charge is not resolved, or the clock shows an
            earlier time than its own.
    """
    if s.clock_id == clock.id or s.state in OVER:
        return None
    if s.clock_id is not None:
        raise NotNowError("is_on_another_clock", f"subscription {s.id} is on clock {s.clock_id}")
    if s.charging is not None:
        problem = f"payment {s.charging} of subscription {s.id} is not resolved"
        raise NotNowError("charge_unresolved", problem)
    if last > clock.moment(real_now):
        problem = f"subscription {s.id} has come to {last:%Y-%m-%dT%H:%M:%SZ}, beyond the clock"
        raise NotNowError("clock_is_behind", problem)
    return moved(s, s._replace(clock_id=clock.id), plan, last, "attached_to_test_clock")


def left_without_clock(s: Subscription, plan: Plan) -> Move | None:
    """Cancel a subscription whose clock is removed; None when it is over."""
    if s.state in OVER:
        return None
    assert s.as_of is not None, "it is on a clock"
    return cancel(s, plan, s.as_of, at_period_end=False)
