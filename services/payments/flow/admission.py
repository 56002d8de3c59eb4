"""Admission of calls: near-strict by priority, within every limit that holds at the moment.

A call that may not be made for longer than a turn takes (pause, open breaker) is put off: its
payment waits in PostgreSQL with a reason and a time, never here.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, TypeVar

from services.payments.domain.breaker import HOLD_MAX, RATE_LIMITED, BreakerState
from services.payments.domain.model import Deferred
from services.payments.flow.controls import ALL, BreakerView, Controls
from shared.clock import Clock
from shared.contracts.priorities import Priority

T = TypeVar("T")


class Purpose(StrEnum):
    """What a call does; only what moves money counts to MAX_CONCURRENT_PAYMENTS."""

    CHECK = "check"
    CHARGE = "charge"


#: When a half-open breaker has no probe left for a call: when it is tried again.
PROBE_INTERVAL: Final = timedelta(seconds=2)

#: A gateway that finds our calls too many often asks for a second. Whoever waits for an answer had
#: better wait for that than be sent away and come again.
HOLD_WAITED_OUT_SECONDS: Final = 2.0

#: Calls that may be made at once after a quiet time, as seconds of the rate.
BURST_SECONDS: Final = 1.0

_LEVELS: Final = tuple(Priority)


@dataclass(slots=True)
class Observed:
    """Calls of one gateway since they were last taken, and how many of them it failed."""

    calls: int = 0
    failures: int = 0
    #: The longest wait that the gateway asked for, in seconds.
    retry_after_seconds: float = 0.0


@dataclass(slots=True)
class _Waiter:
    #: Its place in line among all that wait.
    number: int
    gateway: str
    purpose: Purpose
    #: Ends with None when the call may be made, or with why and until when not.
    turn: asyncio.Future[Deferred | None]


@dataclass(slots=True)
class _Bucket:
    """Tokens of one gateway's rate; may be negative for a moment when the rate falls."""

    tokens: float
    filled_at: float


class Flow:
    """Admits the calls of one process. Lives on one event loop.

    Args:
        clock: Business time, for when a call that is put off is due.
        controls: What holds at first.
        minimum_share: Per cent of the turns, between 1 and 50, that go to the lower priorities
            while they wait.
        judge: What an answer says of its gateway: whether the call failed, and the wait in seconds
            that the gateway asked for.
    """

    def __init__(
        self,
        clock: Clock,
        controls: Controls,
        *,
        minimum_share: int,
        judge: Callable[[object], tuple[bool, float]],
    ) -> None:
        self._clock = clock
        self._controls = controls
        self._judge = judge
        self._turns_per_lower = 100 // minimum_share
        self._turns_since_lower = 0
        self._turns_of_lower: dict[Priority, int] = dict.fromkeys(_LEVELS, 0)
        self._charges = 0
        self._in_flight_of: dict[str, int] = {}
        #: By what decides whether they have a turn, each line in order of arrival.
        self._lines: dict[Priority, dict[tuple[str, Purpose], deque[_Waiter]]] = {
            level: {} for level in _LEVELS
        }
        self._numbers = itertools.count()
        self._waiting = 0
        self._waiting_of: dict[str, int] = {}
        self._observed: dict[str, Observed] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._probes_left: dict[str, int] = {}
        self._refill: asyncio.TimerHandle | None = None
        self._adopt(controls)

    @property
    def controls(self) -> Controls:
        """What holds at the moment. To set it admits or puts off whoever waits."""
        return self._controls

    @controls.setter
    def controls(self, controls: Controls) -> None:
        self._adopt(controls)
        self._put_off()
        self._admit()

    async def call(
        self,
        gateway: str,
        priority: Priority,
        purpose: Purpose,
        make: Callable[[], Awaitable[T]],
    ) -> T | Deferred:
        """Make a call when its turn comes, or return why and until when it is put off.

        What `make` returns is judged; what it raises passes through, and blames no gateway.
        """
        while True:
            deferral = self.deferral(gateway, priority) if self._is_restricted else None
            if deferral is None:
                if not self._waiting and self._has_turn(gateway, purpose):
                    self._take_turn(gateway, purpose)
                    break
                deferral = await self._wait(gateway, priority, purpose)
                if deferral is None:
                    break
            seconds = self._seconds_of_hold(deferral)
            if seconds is None:
                return deferral
            await asyncio.sleep(seconds)
        try:
            outcome = await make()
            self._observe(gateway, outcome)
        finally:
            self._leave(gateway, purpose)
        return outcome

    def deferral(self, gateway: str, priority: Priority) -> Deferred | None:
        """Return why a gateway is not called for such a payment, and until when; else None."""
        controls, now = self._controls, self._clock()
        for target in (ALL, f"gateway:{gateway}", f"priority:{priority}"):
            if target in controls.paused:
                # Due at once: nobody takes it up before the pause ends.
                return Deferred(f"paused:{target}", now)
        breaker = controls.breakers.get(gateway)
        if breaker is None or breaker.state is BreakerState.CLOSED:
            return None
        if breaker.state is BreakerState.OPEN:
            until = max(now, breaker.until or now)
            # What the gateway asked for ends by itself; an open breaker ends with probes.
            is_over = breaker.reason == RATE_LIMITED and until == now
            return None if is_over else Deferred(breaker.reason or "breaker_open", until)
        if self._has_probe(gateway):
            return None
        return Deferred("breaker_half_open", now + PROBE_INTERVAL)

    def claimable(self, gateways: Iterable[str], priority: Priority, most: int) -> dict[str, int]:
        """Return how many due payments of each gateway may be taken up now; at most `most` each."""
        found = {}
        for gateway in gateways:
            if self.deferral(gateway, priority) is None:
                breaker = self._controls.breakers.get(gateway)
                is_probing = breaker is not None and breaker.state is BreakerState.HALF_OPEN
                found[gateway] = min(most, self._probes_left[gateway]) if is_probing else most
        return found

    def probes_left(self, gateway: str) -> int:
        """Return how many probes of a gateway this process may still make."""
        return self._probes_left.get(gateway, 0)

    def give_back_probes(self, gateway: str) -> int:
        """Give up the probes of a gateway that were not made, and return how many they were."""
        unmade, self._probes_left[gateway] = self.probes_left(gateway), 0
        return unmade

    def demand(self, gateway: str) -> tuple[int, int]:
        """Return the calls of a gateway that are in flight, and those that wait."""
        return self._in_flight_of.get(gateway, 0), self._waiting_of.get(gateway, 0)

    def take_observations(self) -> Mapping[str, Observed]:
        """Return what was seen of each gateway since the last time."""
        taken, self._observed = self._observed, {}
        return taken

    def _seconds_of_hold(self, deferral: Deferred) -> float | None:
        """Return how long to wait when a gateway wants a moment only; None when it is longer."""
        seconds = (deferral.until - self._clock()).total_seconds()
        is_brief = deferral.reason == RATE_LIMITED and 0 < seconds <= HOLD_WAITED_OUT_SECONDS
        return seconds if is_brief else None

    def _observe(self, gateway: str, outcome: object) -> None:
        has_failed, retry_after_seconds = self._judge(outcome)
        observed = self._observed.get(gateway)
        if observed is None:
            observed = self._observed[gateway] = Observed()
        observed.calls += 1
        observed.failures += has_failed
        if retry_after_seconds > 0:
            observed.retry_after_seconds = max(observed.retry_after_seconds, retry_after_seconds)
            self._hold(gateway, retry_after_seconds)

    def _hold(self, gateway: str, seconds: float) -> None:
        """Leave a gateway alone that just asked for it; the other processes hear of it soon."""
        breakers = self._controls.breakers
        view = breakers.get(gateway)
        if view is not None and (view.is_forced or view.state is not BreakerState.CLOSED):
            return
        until = self._clock() + min(timedelta(seconds=seconds), HOLD_MAX)
        held = BreakerView(BreakerState.OPEN, until, reason=RATE_LIMITED)
        self.controls = replace(self._controls, breakers={**breakers, gateway: held})

    def _adopt(self, controls: Controls) -> None:
        before, self._controls = self._controls, controls
        self._is_restricted = bool(controls.paused) or any(
            breaker.state is not BreakerState.CLOSED for breaker in controls.breakers.values()
        )
        self._has_limits = bool(controls.gateway_calls or controls.gateway_rate)
        for gateway, breaker in controls.breakers.items():
            if breaker is not before.breakers.get(gateway) or gateway not in self._probes_left:
                self._probes_left[gateway] = breaker.probes
        for gateway in self._buckets.keys() - controls.gateway_rate.keys():
            del self._buckets[gateway]

    def _has_turn(self, gateway: str, purpose: Purpose) -> bool:
        controls, in_flight = self._controls, self._in_flight_of.get(gateway, 0)
        if in_flight >= controls.calls:
            return False
        if purpose is Purpose.CHARGE and self._charges >= controls.charges:
            return False
        return not self._has_limits or self._is_within_share(gateway, in_flight)

    def _is_within_share(self, gateway: str, in_flight: int) -> bool:
        share = self._controls.gateway_calls.get(gateway)
        if share is not None and (in_flight >= share or not self._has_own_shares()):
            return False
        return self._has_token(gateway)

    def _has_own_shares(self) -> bool:
        end = self._controls.shares_end_at
        return end is None or asyncio.get_running_loop().time() < end

    def _has_probe(self, gateway: str) -> bool:
        return self.probes_left(gateway) > 0 and self._has_own_shares()

    def _take_turn(self, gateway: str, purpose: Purpose) -> None:
        self._charges += purpose is Purpose.CHARGE
        self._in_flight_of[gateway] = self._in_flight_of.get(gateway, 0) + 1
        if (bucket := self._buckets.get(gateway)) is not None:
            bucket.tokens -= 1
        if self._is_restricted and _is_half_open(self._controls.breakers.get(gateway)):
            self._probes_left[gateway] -= 1

    def _leave(self, gateway: str, purpose: Purpose) -> None:
        self._charges -= purpose is Purpose.CHARGE
        self._in_flight_of[gateway] -= 1
        if self._waiting:
            # What only asked has freed one turn of one gateway, and so can admit one at most.
            self._admit(1 if purpose is Purpose.CHECK else None)

    async def _wait(self, gateway: str, priority: Priority, purpose: Purpose) -> Deferred | None:
        turn: asyncio.Future[Deferred | None] = asyncio.get_running_loop().create_future()
        line = self._lines[priority].setdefault((gateway, purpose), deque())
        line.append(_Waiter(next(self._numbers), gateway, purpose, turn))
        self._waiting += 1
        self._waiting_of[gateway] = self._waiting_of.get(gateway, 0) + 1
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result() is None:
                self._leave(gateway, purpose)  # It was given a turn, and goes without using it.
            raise

    def _admit(self, most: int | None = None) -> None:
        """Give turns to those who wait, to `most` at the most, while somebody of them has one."""
        while most != 0 and self._waiting and (chosen := self._next()) is not None:
            priority, waiter = chosen
            self._pop(priority, waiter)
            if waiter.turn.done():
                continue  # Its task was cancelled.
            most = None if most is None else most - 1
            deferral = self.deferral(waiter.gateway, priority) if self._is_restricted else None
            if deferral is None:
                self._take_turn(waiter.gateway, waiter.purpose)
            waiter.turn.set_result(deferral)
        if self._waiting and self._buckets:
            self._plan_refill()

    def _next(self) -> tuple[Priority, _Waiter] | None:
        """Choose by priority; every so often one of the lower ones goes first."""
        levels = [level for level in _LEVELS if self._lines[level]]
        first = levels[0]
        if len(levels) > 1 and self._turns_since_lower >= self._turns_per_lower - 1:
            # In turn, so that none of them is starved by the other.
            lower = sorted(levels[1:], key=self._turns_of_lower.__getitem__)
            levels = [*lower, first]
        for level in levels:
            chosen: _Waiter | None = None
            for (gateway, purpose), line in self._lines[level].items():
                head = line[0]
                is_earlier = chosen is None or head.number < chosen.number
                if is_earlier and self._has_turn(gateway, purpose):
                    chosen = head
            if chosen is not None:
                self._count_turn(level, is_first=level is first)
                return level, chosen
        return None

    def _count_turn(self, level: Priority, *, is_first: bool) -> None:
        if is_first:
            self._turns_since_lower += 1
        else:
            self._turns_since_lower = 0
            self._turns_of_lower[level] += 1

    def _pop(self, priority: Priority, waiter: _Waiter) -> None:
        lines = self._lines[priority]
        line = lines[waiter.gateway, waiter.purpose]
        line.popleft()
        if not line:
            del lines[waiter.gateway, waiter.purpose]
        self._waiting -= 1
        self._waiting_of[waiter.gateway] -= 1

    def _put_off(self) -> None:
        """Send those away whose gateway or priority may not be served now."""
        if not self._is_restricted:
            return
        for priority, lines in self._lines.items():
            for (gateway, _), line in list(lines.items()):
                deferral = self.deferral(gateway, priority)
                while deferral is not None and line:
                    waiter = line[0]
                    self._pop(priority, waiter)
                    if not waiter.turn.done():
                        waiter.turn.set_result(deferral)

    def _has_token(self, gateway: str) -> bool:
        rate = self._controls.gateway_rate.get(gateway)
        if rate is None:
            return True
        if rate <= 0:
            return False
        now = asyncio.get_running_loop().time()
        most = max(1.0, rate * BURST_SECONDS)
        bucket = self._buckets.setdefault(gateway, _Bucket(most, now))
        bucket.tokens = min(most, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        return bucket.tokens >= 1 and self._has_own_shares()

    def _plan_refill(self) -> None:
        """Look again when the first bucket that somebody waits for holds a token."""
        waits = [
            (1 - bucket.tokens) / rate
            for gateway, bucket in self._buckets.items()
            if self._waiting_of.get(gateway)
            and (rate := self._controls.gateway_rate.get(gateway, 0.0)) > 0
            and bucket.tokens < 1
        ]
        if not waits:
            return
        if self._refill is not None:
            self._refill.cancel()
        self._refill = asyncio.get_running_loop().call_later(max(0.001, min(waits)), self._admit)


def _is_half_open(breaker: BreakerView | None) -> bool:
    return breaker is not None and breaker.state is BreakerState.HALF_OPEN
