"""How much is done at once, and how fast: three layers of limits, the later one goes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

_NONE: Final[Mapping[str, GatewayLimit]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class GatewayLimit:
    """What one gateway gets from all processes together. None: no limit of this kind is set."""

    concurrency: int | None = None
    calls_per_second: float | None = None

    def over(self, lower: GatewayLimit) -> GatewayLimit:
        """Return these limits, and those of `lower` where these say nothing."""
        return GatewayLimit(
            lower.concurrency if self.concurrency is None else self.concurrency,
            lower.calls_per_second if self.calls_per_second is None else self.calls_per_second,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """One layer of limits: the settings, a profile, or an operator's. None says nothing."""

    #: Calls that move money, in flight at once in each worker.
    max_concurrent_payments: int | None = None
    #: Payments that are taken up together.
    batch_size: int | None = None
    gateways: Mapping[str, GatewayLimit] = field(default_factory=lambda: _NONE)

    def over(self, lower: Limits) -> Limits:
        """Return these limits, and those of `lower` where these say nothing."""
        names = {**lower.gateways, **self.gateways}
        return Limits(
            lower.max_concurrent_payments
            if self.max_concurrent_payments is None
            else self.max_concurrent_payments,
            lower.batch_size if self.batch_size is None else self.batch_size,
            {
                name: self.gateways.get(name, GatewayLimit()).over(
                    lower.gateways.get(name, GatewayLimit())
                )
                for name in names
            },
        )

    def of_gateway(self, name: str) -> GatewayLimit:
        """Return the limits of one gateway."""
        return self.gateways.get(name, GatewayLimit())


def limits_in_force(*, settings: Limits, profile: Limits, override: Limits) -> Limits:
    """Return what holds: an operator's limits before the profile's, these before the settings'."""
    return override.over(profile.over(settings))


def as_json(limits: Limits) -> dict[str, Any]:
    """Write limits as they are stored and shown; what is not set is left out."""
    found: dict[str, Any] = {}
    if limits.max_concurrent_payments is not None:
        found["maxConcurrentPayments"] = limits.max_concurrent_payments
    if limits.batch_size is not None:
        found["batchSize"] = limits.batch_size
    gateways = {
        name: _gateway_as_json(limit)
        for name, limit in sorted(limits.gateways.items())
        if limit != GatewayLimit()
    }
    return found | ({"gateways": gateways} if gateways else {})


def _gateway_as_json(limit: GatewayLimit) -> dict[str, Any]:
    values = {"concurrency": limit.concurrency, "callsPerSecond": limit.calls_per_second}
    return {name: value for name, value in values.items() if value is not None}


def from_json(stored: Mapping[str, Any]) -> Limits:
    """Read what `as_json` wrote."""
    return Limits(
        stored.get("maxConcurrentPayments"),
        stored.get("batchSize"),
        {
            name: GatewayLimit(limit.get("concurrency"), limit.get("callsPerSecond"))
            for name, limit in stored.get("gateways", {}).items()
        },
    )
