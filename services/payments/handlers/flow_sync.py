"""Keeps this process in step with the fleet: what it saw is told, what holds is heard.

Once or twice a second every process that calls gateways says what its calls came to, and hears of
pauses, limits, breakers and its shares. The decisions themselves are pure (`domain/breaker.py`,
`domain/shares.py`); whoever is first takes them, and the versions of the rows refuse the second.
While PostgreSQL is away what was heard last holds, except for shares and probes: those end by
themselves (`SHARE_VALID_SECONDS`), because others may have them by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from services.payments import metrics
from services.payments.domain.breaker import BreakerState, CallCounts
from services.payments.domain.limits import GatewayLimit, Limits
from services.payments.flow.configured import breaker_policy_of, in_force
from services.payments.flow.controls import BreakerView
from services.payments.handlers.breakers import Breakers, News
from services.payments.handlers.shares import AgreedShares, agree_on_shares
from services.payments.runtime import Runtime
from services.payments.store import controls as control_store
from services.payments.store import flow as flow_store
from services.payments.store.flow import CALLS_KEPT_SECONDS, PROCESS_LEASE_SECONDS, ProcessKind
from shared.database import Connection
from shared.errors import DatabaseUnavailableError
from shared.identifiers import new_id

log = structlog.get_logger()

#: A share takes three of these to pass from one process to another.
INTERVAL_SECONDS: Final = 0.5

#: While there is nothing to tell and nothing is scarce. An operator's pause is to hold everywhere
#: within 2 s.
QUIET_INTERVAL_SECONDS: Final = 1.0

#: How often a process that has nothing to tell says that it is alive.
ALIVE_INTERVAL_SECONDS: Final = PROCESS_LEASE_SECONDS / 4

#: Pause between two deletions of what is old.
FORGET_INTERVAL_SECONDS: Final = 300.0

#: How long a process may use its shares after it last asked for them.
SHARE_VALID_SECONDS: Final = 8.0

#: How much later than its time-out a call is surely over.
_CALL_MARGIN_SECONDS: Final = 1.0

#: A process that stops waits for PostgreSQL at most so long.
_LEAVE_SECONDS: Final = 2.0


@asynccontextmanager
async def in_step(
    runtime: Runtime, kind: ProcessKind
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, None]]]:
    """Hear what holds before the first call is made, and yield the loop that goes on hearing.

    Leaving it gives back the process's shares, so leave it after the last call.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away, and nothing is known.
    """
    step = FlowSync(runtime, kind)
    await step.synchronize()
    try:
        yield step.run
    finally:
        await step.leave()


class FlowSync:
    """One process's side of the agreement.

    Args:
        runtime: What the process calls gateways with.
        kind: Only workers take up payments that wait, so only they can make probes.
        share_valid_seconds: How long it may use its shares after it last asked for them.
    """

    def __init__(
        self,
        runtime: Runtime,
        kind: ProcessKind,
        *,
        share_valid_seconds: float = SHARE_VALID_SECONDS,
    ) -> None:
        self.process = new_id("prc", runtime.core.clock())
        self._runtime = runtime
        self._kind = kind
        self._breakers = Breakers(
            breaker_policy_of(runtime.settings), runtime.flow, makes_probes=kind == "worker"
        )
        self._valid_seconds = share_valid_seconds
        self._lease_seconds = (
            share_valid_seconds + runtime.settings.gateway_timeout_seconds + _CALL_MARGIN_SECONDS
        )
        #: Seen, and not stored yet; learnt, and not heard by the breakers yet.
        self._counts: dict[str, CallCounts] = {}
        self._news: dict[str, News] = {}
        self._has_breakers = False
        self._told_at: float | None = None
        #: Shares that /metrics shows: their gateways and limits.
        self._measured: set[tuple[str, str]] = set()
        self._forgot_at: float | None = None

    async def run(self) -> None:
        """Keep in step for ever."""
        interval = INTERVAL_SECONDS
        while True:
            await asyncio.sleep(interval)
            interval = INTERVAL_SECONDS
            try:
                if await self.synchronize():
                    interval = QUIET_INTERVAL_SECONDS
            except DatabaseUnavailableError as error:
                log.warning("flow_holds_as_last_heard", reason=error.message)

    async def leave(self) -> None:
        """Give back what this process has; if that fails, it ends with its lease."""
        try:
            async with asyncio.timeout(_LEAVE_SECONDS):
                async with self._runtime.core.database.connection() as connection:
                    await flow_store.leave(connection, self.process)
        except (DatabaseUnavailableError, TimeoutError) as error:
            log.info("shares_end_with_their_lease", reason=str(error))

    async def synchronize(self) -> bool:
        """Tell and hear once, and return whether all is quiet.

        Raises:
            DatabaseUnavailableError: PostgreSQL is away; what was seen is told the next time.
        """
        loop, runtime = asyncio.get_running_loop(), self._runtime
        asked_at, now = loop.time(), runtime.core.clock()
        made = self._collect()
        gateways = sorted(runtime.gateways)
        async with runtime.core.database.connection() as connection:
            stored = await control_store.read_controls(connection)
            limits = in_force(runtime.settings, stored)
            await self._tell(connection, gateways, asked_at, now)
            views = await self._breakers.agree(connection, gateways, self._news, now)
            self._news = {}
            shares = await agree_on_shares(
                connection,
                runtime.flow,
                self.process,
                _limited(limits, gateways),
                made=made,
                now=now,
                lease_seconds=self._lease_seconds,
            )
            await self._forget_old(connection, asked_at, now)
        self._adopt(limits, stored.paused, views, shares, asked_at)
        is_scarce = bool(shares.calls or shares.rates)
        return not (made or is_scarce or any(_is_unusual(view) for view in views.values()))

    def _collect(self) -> dict[str, int]:
        """Take what was seen of gateways since the last time; return the calls of each."""
        flow = self._runtime.flow
        observed = flow.take_observations()
        for gateway, seen in observed.items():
            counts = CallCounts(seen.calls, seen.failures)
            self._counts[gateway] = self._counts.get(gateway, CallCounts()).plus(counts)
            news = self._news.setdefault(gateway, News())
            news.hold_seconds = max(news.hold_seconds, seen.retry_after_seconds)
            view = flow.controls.breakers.get(gateway)
            if view is not None and view.state is BreakerState.HALF_OPEN:
                news.probes = news.probes.plus(counts)
        return {gateway: seen.calls for gateway, seen in observed.items()}

    async def _tell(
        self, connection: Connection, gateways: list[str], at: float, now: datetime
    ) -> None:
        if not self._has_breakers:
            await flow_store.insert_breakers(connection, gateways)
            self._has_breakers = True
        is_alive = self._told_at is not None and at - self._told_at < ALIVE_INTERVAL_SECONDS
        if is_alive and not self._counts:
            return
        await flow_store.report(connection, self.process, self._kind, self._counts, now)
        for gateway, counts in self._counts.items():
            metrics.GATEWAY_CALLS.labels(gateway).inc(counts.calls)
            metrics.GATEWAY_FAILURES.labels(gateway).inc(counts.failures)
        self._counts = {}
        self._told_at = at

    def _adopt(
        self,
        limits: Limits,
        paused: Mapping[str, str],
        views: Mapping[str, BreakerView],
        shares: AgreedShares,
        asked_at: float,
    ) -> None:
        flow = self._runtime.flow
        before = flow.controls
        end = asked_at + self._valid_seconds
        if not shares.is_renewed:
            end = asked_at if before.shares_end_at is None else before.shares_end_at
        self._measure(shares)
        assert limits.max_concurrent_payments is not None, "the settings have one"
        assert limits.batch_size is not None, "the settings have one"
        flow.controls = replace(
            before,
            charges=limits.max_concurrent_payments,
            batch_size=limits.batch_size,
            gateway_calls=shares.calls,
            gateway_rate=shares.rates,
            paused=paused,
            breakers=views,
            shares_end_at=end,
        )

    def _measure(self, shares: AgreedShares) -> None:
        now = {(gateway, "calls"): float(share) for gateway, share in shares.calls.items()}
        now |= {(gateway, "calls_per_second"): share for gateway, share in shares.rates.items()}
        for gateway, limit in self._measured - now.keys():
            metrics.GATEWAY_SHARE.remove(gateway, limit, self._kind)
        for (gateway, limit), share in now.items():
            metrics.GATEWAY_SHARE.labels(gateway, limit, self._kind).set(share)
        self._measured = set(now)

    async def _forget_old(self, connection: Connection, at: float, now: datetime) -> None:
        if self._kind != "worker":
            return
        if self._forgot_at is None or at - self._forgot_at >= FORGET_INTERVAL_SECONDS:
            self._forgot_at = at
            await flow_store.forget_old(connection, now - timedelta(seconds=CALLS_KEPT_SECONDS))


def _is_unusual(view: BreakerView) -> bool:
    return view.state is not BreakerState.CLOSED


def _limited(limits: Limits, gateways: list[str]) -> dict[str, GatewayLimit]:
    return {
        gateway: limit
        for gateway in gateways
        if (limit := limits.of_gateway(gateway)) != GatewayLimit()
    }
