"""When a gateway is not called for a while: decided for the whole fleet, from what it saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final


class BreakerState(StrEnum):
    """Whether a gateway is called at all."""

    CLOSED = "closed"
    #: It failed too often: nobody calls it.
    OPEN = "open"
    #: A few calls find out whether it works again.
    HALF_OPEN = "half_open"


class BreakerForce(StrEnum):
    """What an operator makes of a breaker, whatever the calls say."""

    OPEN = "open"
    CLOSED = "closed"


#: Longest wait that a gateway's `Retry-After` gets. A gateway that means more than this is down,
#: and that is the breaker's business.
HOLD_MAX: Final = timedelta(hours=1)

#: Reasons of states, beside those that operators give.
TOO_MANY_FAILURES: Final = "too_many_failures"
PROBES_FAILED: Final = "probes_failed"
PROBES_SUCCEEDED: Final = "probes_succeeded"
WAIT_IS_OVER: Final = "wait_is_over"
RATE_LIMITED: Final = "rate_limited"
NO_LONGER_FORCED: Final = "no_longer_forced"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How sensitive breakers are.

    The defaults: an outage under load is noticed within about 15 s, half a window, and a gateway
    that is called less than ten times in half a minute is not worth a breaker, since every payment
    that it fails comes back ever more rarely anyway.
    """

    window: timedelta = timedelta(seconds=30)
    #: Fewer calls in the window say nothing.
    calls_min: int = 10
    open_for: timedelta = timedelta(seconds=60)
    #: Probes that the whole fleet may make before it is decided, or until they are given up.
    probes: int = 5
    #: Probes that were handed out and not heard of are replaced then. Longer than a call takes.
    probes_lost_after: timedelta = timedelta(seconds=20)
    #: A worker that has had no use for its probes for so long gives them back, for others.
    probes_unused_after: timedelta = timedelta(seconds=3)


@dataclass(frozen=True, slots=True)
class CallCounts:
    """Calls of one gateway by the whole fleet, and how many of them it failed."""

    calls: int = 0
    failures: int = 0

    def plus(self, others: CallCounts) -> CallCounts:
        """Return these calls and others together."""
        return CallCounts(self.calls + others.calls, self.failures + others.failures)


@dataclass(frozen=True, slots=True)
class Breaker:
    """The breaker of one gateway, as the fleet shares it.

    `version` grows with every change, so that of two processes that decide at once one is refused.
    """

    gateway: str
    state: BreakerState = BreakerState.CLOSED
    #: When it came into this state; None at the very beginning.
    since: datetime | None = None
    #: When it is open and not forced: when probes begin.
    until: datetime | None = None
    reason: str | None = None
    force: BreakerForce | None = None
    #: Counts up with every round of probes that is handed out.
    probe_round: int = 0
    probes_began_at: datetime | None = None
    #: Probes of this round that workers got.
    probes_handed_out: int = 0
    #: Results of the probes since it became half open.
    probes: CallCounts = CallCounts()
    #: The gateway asked us to come back then.
    held_until: datetime | None = None
    version: int = 0


def advanced(breaker: Breaker, seen: CallCounts, policy: BreakerPolicy, now: datetime) -> Breaker:
    """Return the breaker as it should be now; the same object when nothing changes.

    Args:
        breaker: As last stored.
        seen: Calls within the window. Those before the present state say nothing about it and are
            not among them.
        policy: How sensitive it is.
        now: The present moment.
    """
    if breaker.force is not None:
        return breaker
    match breaker.state:
        case BreakerState.CLOSED:
            if seen.calls >= policy.calls_min and seen.failures * 2 > seen.calls:
                return _opened(breaker, TOO_MANY_FAILURES, policy, now)
        case BreakerState.OPEN:
            if breaker.until is not None and now >= breaker.until:
                return _half_opened(breaker, WAIT_IS_OVER, now)
        case BreakerState.HALF_OPEN:
            return _judge_probes(breaker, policy, now)
    return breaker


def forced(breaker: Breaker, wanted: BreakerForce | None, reason: str, now: datetime) -> Breaker:
    """Return the breaker as an operator wants it; None lets it decide for itself again.

    After a forced opening it begins with probes: what became of the gateway is not known.
    A hold that the gateway asked for ends when the breaker is forced closed.
    """
    match wanted:
        case BreakerForce.OPEN:
            return _entered(breaker, BreakerState.OPEN, reason, now, force=wanted)
        case BreakerForce.CLOSED:
            closed = _entered(breaker, BreakerState.CLOSED, reason, now, force=wanted)
            return replace(closed, held_until=None)
        case None:
            if breaker.force is None:
                return breaker
            free = replace(breaker, force=None)
            if breaker.force is BreakerForce.OPEN:
                return _half_opened(free, NO_LONGER_FORCED, now)
            return _entered(free, BreakerState.CLOSED, NO_LONGER_FORCED, now)


def held(breaker: Breaker, seconds: float, now: datetime) -> Breaker:
    """Return the breaker with the wait that a gateway asked for; a longer one stays."""
    if breaker.force is BreakerForce.CLOSED:
        return breaker
    until = now + min(timedelta(seconds=seconds), HOLD_MAX)
    if breaker.held_until is not None and breaker.held_until >= until:
        return breaker
    return replace(breaker, held_until=until)


def hand_out_probes(
    breaker: Breaker, policy: BreakerPolicy, *, workers: int, now: datetime
) -> tuple[Breaker, int]:
    """Return the breaker after a worker without any asked for probes, and how many it got.

    Late in a round nothing is handed out, so that no probe of it is made in the next one.

    Args:
        breaker: Any; only a half-open one has probes.
        policy: How many there are in all.
        workers: Workers alive, the one that asks included.
        now: The present moment.
    """
    if breaker.state is not BreakerState.HALF_OPEN or breaker.probes_began_at is None:
        return breaker, 0
    if now >= breaker.probes_began_at + policy.probes_lost_after / 2:
        return breaker, 0
    each = -(-policy.probes // max(workers, 1))
    handed = max(0, min(each, policy.probes - breaker.probes_handed_out))
    if handed == 0:
        return breaker, 0
    return replace(breaker, probes_handed_out=breaker.probes_handed_out + handed), handed


def take_back_probes(breaker: Breaker, probes: int) -> Breaker:
    """Return the breaker after a worker gave back probes of this round: it has nothing to call."""
    return replace(breaker, probes_handed_out=max(0, breaker.probes_handed_out - probes))


def probed(breaker: Breaker, results: CallCounts) -> Breaker:
    """Return the breaker with results of probes; they count only while it is half open."""
    if breaker.state is not BreakerState.HALF_OPEN or not results.calls:
        return breaker
    return replace(breaker, probes=breaker.probes.plus(results))


def _judge_probes(breaker: Breaker, policy: BreakerPolicy, now: datetime) -> Breaker:
    """Close or open as soon as the majority of the probes is certain."""
    succeeded = breaker.probes.calls - breaker.probes.failures
    if breaker.probes.failures * 2 > policy.probes:
        return _opened(breaker, PROBES_FAILED, policy, now)
    if succeeded * 2 > policy.probes:
        return _entered(breaker, BreakerState.CLOSED, PROBES_SUCCEEDED, now)
    began_at = breaker.probes_began_at
    if began_at is not None and now >= began_at + policy.probes_lost_after:
        # Whoever had them is dead, or had nothing to call about.
        return _with_new_round(breaker, now)
    return breaker


def _opened(breaker: Breaker, reason: str, policy: BreakerPolicy, now: datetime) -> Breaker:
    return replace(_entered(breaker, BreakerState.OPEN, reason, now), until=now + policy.open_for)


def _half_opened(breaker: Breaker, reason: str, now: datetime) -> Breaker:
    return _with_new_round(_entered(breaker, BreakerState.HALF_OPEN, reason, now), now)


def _with_new_round(breaker: Breaker, now: datetime) -> Breaker:
    return replace(
        breaker, probe_round=breaker.probe_round + 1, probes_began_at=now, probes_handed_out=0
    )


def _entered(
    breaker: Breaker,
    state: BreakerState,
    reason: str,
    now: datetime,
    *,
    force: BreakerForce | None = None,
) -> Breaker:
    return replace(
        breaker,
        state=state,
        since=now,
        until=None,
        reason=reason,
        force=force,
        probes_began_at=None,
        probes_handed_out=0,
        probes=CallCounts(),
    )
