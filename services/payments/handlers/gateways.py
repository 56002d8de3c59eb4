"""How each gateway stands: its breaker, its limits, and who may call it how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.payments.domain.breaker import Breaker, CallCounts
from services.payments.domain.limits import GatewayLimit
from services.payments.flow.configured import breaker_policy_of, in_force
from services.payments.flow.controls import ALL
from services.payments.handlers.breakers import require_gateway
from services.payments.runtime import Runtime
from services.payments.store import controls as control_store
from services.payments.store import flow as flow_store
from services.payments.store import shares as share_store
from services.payments.store.flow import SeenBreaker, Transition
from services.payments.store.shares import ShareHolder
from shared.database import Connection

#: States of a breaker that are shown, the last ones.
HISTORY_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """One gateway as all processes see it."""

    name: str
    seen: SeenBreaker
    limit: GatewayLimit
    #: Why it is paused by hand.
    paused: str | None


@dataclass(frozen=True, slots=True)
class GatewayDetails:
    """One gateway, with what led to its state and who calls it."""

    status: GatewayStatus
    history: Sequence[Transition]
    holders: Sequence[ShareHolder]


async def list_gateways(runtime: Runtime) -> list[GatewayStatus]:
    """Return how the gateways stand that are on, by name."""
    async with runtime.core.database.connection() as connection:
        return [*(await _read(runtime, connection, sorted(runtime.gateways))).values()]


async def read_gateway(runtime: Runtime, name: str) -> GatewayDetails:
    """Return how a gateway stands.

    Raises:
        NotFoundError: there is no such gateway, or it is off.
    """
    require_gateway(runtime, name)
    async with runtime.core.database.connection() as connection:
        return GatewayDetails(
            (await _read(runtime, connection, [name]))[name],
            await flow_store.list_transitions(connection, name, HISTORY_MAX),
            await share_store.list_holders(connection, name),
        )


async def _read(
    runtime: Runtime, connection: Connection, names: Sequence[str]
) -> Mapping[str, GatewayStatus]:
    begin = runtime.core.clock() - breaker_policy_of(runtime.settings).window
    stored = await control_store.read_controls(connection)
    limits = in_force(runtime.settings, stored)
    found = await flow_store.list_breakers(connection, names, begin)
    return {
        name: GatewayStatus(
            name,
            # One that no process has called yet has no row.
            found.get(name, SeenBreaker(Breaker(name), CallCounts())),
            limits.of_gateway(name),
            stored.paused.get(ALL, stored.paused.get(f"gateway:{name}")),
        )
        for name in names
    }
