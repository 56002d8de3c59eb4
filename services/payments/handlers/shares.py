"""This process's part of what all processes together may do at a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.payments.domain.limits import GatewayLimit
from services.payments.domain.shares import Share, next_share
from services.payments.flow.admission import Flow
from services.payments.store import shares as share_store
from services.payments.store.shares import StoredShares
from shared.database import Connection

#: Times that a share is decided anew because another process was faster; then it waits its turn.
_ROUNDS_MAX: Final = 5

#: What cannot be split evenly goes to another process after this time.
_TURN_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class AgreedShares:
    """What this process may do at the gateways that have limits."""

    calls: Mapping[str, int]
    rates: Mapping[str, float]
    #: Whether all of it was asked for anew; else some of it may end soon.
    is_renewed: bool


async def agree_on_shares(
    connection: Connection,
    flow: Flow,
    process: str,
    limits: Mapping[str, GatewayLimit],
    *,
    made: Mapping[str, int],
    now: datetime,
    lease_seconds: float,
) -> AgreedShares:
    """Ask for this process's part of each limit, by what it needs and what others hold.

    Args:
        connection: Without a transaction: each share is decided by itself.
        flow: What this process does at each gateway.
        process: The name of this process.
        limits: By gateway, those that are set.
        made: Calls that ended since the last time, by gateway.
        now: Business time.
        lease_seconds: How long the shares are its own against all others.
    """
    calls: dict[str, int] = {}
    rates: dict[str, float] = {}
    remaining = sorted(limits)
    for _ in range(_ROUNDS_MAX):
        if not remaining:
            break
        stored = await share_store.list_shares(connection, remaining)
        for gateway, shares in stored.items():
            limit = limits[gateway]
            own = _own(flow, gateway, shares.shares.get(process), made.get(gateway, 0))
            share = _decide(process, own, shares, limit, now)
            if not await share_store.save_share(
                connection,
                gateway,
                shares.version,
                process,
                share,
                calls_limit=limit.concurrency,
                rate_limit=limit.calls_per_second,
                lease_seconds=lease_seconds,
            ):
                continue  # Another process was faster: the next round decides on what it left.
            remaining.remove(gateway)
            if share.calls is not None:
                calls[gateway] = share.calls
            if share.rate is not None:
                rates[gateway] = share.rate
    for gateway in remaining:
        # It keeps what it has, until that ends.
        if limits[gateway].concurrency is not None:
            calls[gateway] = flow.controls.gateway_calls.get(gateway, 0)
        if limits[gateway].calls_per_second is not None:
            rates[gateway] = flow.controls.gateway_rate.get(gateway, 0.0)
    return AgreedShares(calls, rates, is_renewed=not remaining)


def _own(flow: Flow, gateway: str, stored: Share | None, made: int) -> Share:
    """Return what this process keeps to and needs; nothing is its own once its lease has ended."""
    in_flight, waiting = flow.demand(gateway)
    kept = flow.controls
    return Share(
        calls=None if stored is None else kept.gateway_calls.get(gateway),
        rate=None if stored is None else kept.gateway_rate.get(gateway),
        in_flight=in_flight,
        waiting=waiting,
        made=made,
    )


def _decide(
    process: str, own: Share, stored: StoredShares, limit: GatewayLimit, now: datetime
) -> Share:
    others = {name: share for name, share in stored.shares.items() if name != process}
    return next_share(
        process,
        own,
        others,
        calls_limit=limit.concurrency,
        rate_limit=limit.calls_per_second,
        turn=int(now.timestamp()) // _TURN_SECONDS,
    )
