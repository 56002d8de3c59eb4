"""Limits as the API takes and shows them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from services.payments.domain.limits import GatewayLimit, Limits
from shared.web.bodies import Body

GatewayName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class GatewayLimitBody(Body):
    """What all processes together may do at one gateway; what is left out stays as it is."""

    concurrency: Annotated[
        int | None, Field(ge=1, le=10_000, description="Calls in flight at once")
    ] = None
    calls_per_second: Annotated[float | None, Field(gt=0, le=10_000, allow_inf_nan=False)] = None


class LimitsBody(Body):
    """Limits; what is left out stays as profile and settings have it."""

    max_concurrent_payments: Annotated[
        int | None, Field(ge=1, le=1_000, description="In flight at once in each worker")
    ] = None
    batch_size: Annotated[int | None, Field(ge=1, le=1_000)] = None
    gateways: Annotated[
        dict[GatewayName, GatewayLimitBody], Field(max_length=50, default_factory=dict)
    ]

    def limits(self) -> Limits:
        """Return them as decisions know them."""
        return Limits(
            self.max_concurrent_payments,
            self.batch_size,
            {
                name: GatewayLimit(limit.concurrency, limit.calls_per_second)
                for name, limit in self.gateways.items()
            },
        )


class GatewayLimitAnswer(TypedDict, total=False):
    """What all processes together may do at one gateway; no limit where it says nothing."""

    concurrency: int
    callsPerSecond: float


class LimitsAnswer(TypedDict, total=False):
    """Limits; what is left out is not set here."""

    maxConcurrentPayments: int
    batchSize: int
    gateways: dict[str, GatewayLimitAnswer]


def render(limits: Limits) -> LimitsAnswer:
    """Return limits as the API shows them."""
    answer: LimitsAnswer = {}
    if limits.max_concurrent_payments is not None:
        answer["maxConcurrentPayments"] = limits.max_concurrent_payments
    if limits.batch_size is not None:
        answer["batchSize"] = limits.batch_size
    if limits.gateways:
        answer["gateways"] = {
            name: render_gateway(limit) for name, limit in sorted(limits.gateways.items())
        }
    return answer


def render_gateway(limit: GatewayLimit) -> GatewayLimitAnswer:
    """Return the limits of one gateway as the API shows them."""
    answer: GatewayLimitAnswer = {}
    if limit.concurrency is not None:
        answer["concurrency"] = limit.concurrency
    if limit.calls_per_second is not None:
        answer["callsPerSecond"] = limit.calls_per_second
    return answer
