"""The breakers of gateways: agreed on by all processes, forced by operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.breaker import (
    RATE_LIMITED,
    Breaker,
    BreakerForce,
    BreakerPolicy,
    BreakerState,
    CallCounts,
    advanced,
    forced,
    hand_out_probes,
    held,
    probed,
    take_back_probes,
)
from services.payments.flow.admission import Flow
from services.payments.flow.configured import breaker_policy_of
from services.payments.flow.controls import BreakerView
from services.payments.runtime import Runtime
from services.payments.store import flow as flow_store
from services.payments.store.flow import SeenBreaker
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError
from shared.web.operator_actions import Instruction, find_action, record_action

log = structlog.get_logger()

#: Times that a breaker is decided anew because another process was faster.
_ROUNDS_MAX: Final = 5

#: What the gauge of states shows.
_STATE_NUMBERS: Final = {
    BreakerState.CLOSED: 0,
    BreakerState.HALF_OPEN: 1,
    BreakerState.OPEN: 2,
}


@dataclass(slots=True)
class News:
    """What a process learnt about a gateway and the breaker has not heard yet."""

    probes: CallCounts = field(default_factory=CallCounts)
    #: The wait that the gateway asked for, in seconds; 0 for none.
    hold_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Probes:
    """The probes that this process got last."""

    round: int
    got_at: datetime
    view: BreakerView


class Breakers:
    """This process's view of all breakers.

    Args:
        policy: How sensitive they are.
        flow: What makes the calls, and probes among them.
        makes_probes: Whether this process takes up payments that wait, and so can make probes.
    """

    def __init__(self, policy: BreakerPolicy, flow: Flow, *, makes_probes: bool) -> None:
        self._policy = policy
        self._flow = flow
        self._makes_probes = makes_probes
        self._probes: dict[str, _Probes] = {}
        #: Rounds in which this process had no use for probes, by gateway.
        self._useless_rounds: dict[str, int] = {}
        self._last_views: Mapping[str, BreakerView] = {}

    async def agree(
        self,
        connection: Connection,
        gateways: list[str],
        news: Mapping[str, News],
        now: datetime,
    ) -> Mapping[str, BreakerView]:
        """Bring breakers up to date and return what this process may do about each.

        Args:
            connection: Without a transaction: each breaker is decided by itself.
            gateways: Whose breakers.
            news: What this process learnt since the last time.
            now: Business time.
        """
        begin = now - self._policy.window
        found = await flow_store.list_breakers(connection, gateways, begin)
        workers = 1
        if any(each.breaker.state is not BreakerState.CLOSED for each in found.values()):
            workers = await flow_store.count_workers(connection)
        views = {}
        for gateway, stored in found.items():
            told = news.get(gateway, News())
            breaker, handed = await self._agree_on_one(connection, stored, told, workers, now)
            views[gateway] = self._view(breaker, handed, now)
            metrics.BREAKER_STATE.labels(gateway).set(_STATE_NUMBERS[breaker.state])
        self._last_views = views
        return views

    async def _agree_on_one(
        self, connection: Connection, stored: SeenBreaker, told: News, workers: int, now: datetime
    ) -> tuple[Breaker, int]:
        """Return a breaker as all processes see it, and the probes that this one got."""
        gateway, begin = stored.breaker.gateway, now - self._policy.window
        unused = self._give_back(stored.breaker, now)
        for _ in range(_ROUNDS_MAX):
            breaker, handed = self._decide(stored, told, workers, now)
            if unused and self._useless_rounds[gateway] == breaker.probe_round:
                breaker = take_back_probes(breaker, unused)
            if breaker == stored.breaker or await self._save(connection, stored, breaker, now):
                return breaker, handed
            stored = (await flow_store.list_breakers(connection, [gateway], begin))[gateway]
        return stored.breaker, 0

    def _decide(
        self, stored: SeenBreaker, told: News, workers: int, now: datetime
    ) -> tuple[Breaker, int]:
        breaker = probed(stored.breaker, told.probes)
        if told.hold_seconds:
            breaker = held(breaker, told.hold_seconds, now)
        breaker = advanced(breaker, stored.seen, self._policy, now)
        has_some = self._has_some(breaker) and self._flow.probes_left(breaker.gateway) > 0
        is_useless = self._useless_rounds.get(breaker.gateway) == breaker.probe_round
        if not self._makes_probes or has_some or is_useless:
            return breaker, 0
        return hand_out_probes(breaker, self._policy, workers=workers, now=now)

    def _has_some(self, breaker: Breaker) -> bool:
        got = self._probes.get(breaker.gateway)
        return got is not None and got.round == breaker.probe_round

    def _give_back(self, breaker: Breaker, now: datetime) -> int:
        """Return the probes of this round that this process has had no use for, now given up."""
        got = self._probes.get(breaker.gateway)
        is_long_ago = got is not None and now >= got.got_at + self._policy.probes_unused_after
        if not is_long_ago or not self._has_some(breaker):
            return 0
        unused = self._flow.give_back_probes(breaker.gateway)
        if unused:
            self._useless_rounds[breaker.gateway] = breaker.probe_round
        return unused

    async def _save(
        self, connection: Connection, stored: SeenBreaker, wanted: Breaker, now: datetime
    ) -> bool:
        is_saved = await flow_store.save_breaker(connection, stored, wanted, self._policy, now)
        if is_saved and wanted.state is not stored.breaker.state:
            _tell(wanted)
        return is_saved

    def _view(self, breaker: Breaker, handed: int, now: datetime) -> BreakerView:
        """Return what this process may do; the same object as long as it got no new probes."""
        if handed:
            view = BreakerView(BreakerState.HALF_OPEN, probes=handed, reason=breaker.reason)
            self._probes[breaker.gateway] = _Probes(breaker.probe_round, now, view)
        is_held = breaker.held_until is not None and breaker.held_until > now
        if is_held and breaker.state is not BreakerState.OPEN:
            return BreakerView(BreakerState.OPEN, breaker.held_until, reason=RATE_LIMITED)
        if breaker.state is not BreakerState.HALF_OPEN:
            is_forced = breaker.force is not None
            return BreakerView(
                breaker.state, breaker.until, reason=breaker.reason, is_forced=is_forced
            )
        got = self._probes.get(breaker.gateway)
        # After a hold in between nobody knows how many of them are left.
        has_kept_them = bool(handed) or (
            got is not None and self._last_views.get(breaker.gateway) is got.view
        )
        if got is not None and self._has_some(breaker) and has_kept_them:
            return got.view
        return BreakerView(BreakerState.HALF_OPEN, reason=breaker.reason)


async def force_breaker(
    runtime: Runtime, instruction: Instruction, gateway: str, wanted: BreakerForce | None
) -> None:
    """Open or close a breaker by hand, or with None let it decide for itself, and record that.

    Raises:
        NotFoundError: there is no such gateway.
        ConflictError: the breaker kept changing.
    """
    require_gateway(runtime, gateway)
    policy, now = breaker_policy_of(runtime.settings), runtime.core.clock()
    for _ in range(_ROUNDS_MAX):
        async with runtime.core.database.transaction() as connection:
            if await find_action(connection, instruction.action_id) is not None:
                return  # Carried out before the request was cut off.
            await flow_store.insert_breakers(connection, [gateway])
            found = await flow_store.list_breakers(connection, [gateway], now - policy.window)
            stored = found[gateway]
            breaker = forced(stored.breaker, wanted, instruction.reason, now)
            if not await flow_store.save_breaker(
                connection, stored, breaker, policy, now, actor=instruction.actor
            ):
                continue
            done = instruction.carried_out(
                "force_breaker",
                f"gateway:{gateway}",
                at=now,
                before=_recorded(stored.breaker),
                after=_recorded(breaker),
            )
            await record_action(connection, done)
        if breaker.state is not stored.breaker.state:
            _tell(breaker)
        return
    raise ConflictError(f"the breaker of {gateway} kept changing")


def require_gateway(runtime: Runtime, gateway: str) -> None:
    """Check that a gateway is on.

    Raises:
        NotFoundError: it is not.
    """
    if gateway not in runtime.gateways:
        known = ", ".join(sorted(runtime.gateways))
        raise NotFoundError(f"no gateway is called {gateway[:40]!r}; there are {known}")


def _recorded(breaker: Breaker) -> dict[str, str]:
    return {"state": breaker.state, "force": breaker.force or "automatic"}


def _tell(breaker: Breaker) -> None:
    metrics.BREAKER_TRANSITIONS.labels(breaker.gateway, breaker.state).inc()
    log.warning(
        "breaker_changed", gateway=breaker.gateway, state=breaker.state, reason=breaker.reason
    )
