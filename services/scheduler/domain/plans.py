"""What a plan may be."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.scheduler.domain.model import Plan
from services.scheduler.domain.periods import Interval, IntervalUnit
from shared.errors import InvalidInputError
from shared.gateways.interface import Capabilities
from shared.money import Money

#: Most of each unit: a hundred years. Beyond, dates end before a few periods are over.
COUNT_MAX: Final[Mapping[IntervalUnit, int]] = MappingProxyType(
    {
        IntervalUnit.MINUTE: 36_525 * 1_440,
        IntervalUnit.HOUR: 36_525 * 24,
        IntervalUnit.DAY: 36_525,
        IntervalUnit.WEEK: 5_217,
        IntervalUnit.MONTH: 1_200,
        IntervalUnit.YEAR: 100,
    }
)


def require_length(field: str, interval: Interval) -> None:
    """Check that an interval is not over a hundred years.

    Raises:
        InvalidInputError: it is; names the field.
    """
    most = COUNT_MAX[interval.unit]
    if interval.every > most:
        problem = f"is at most {most} for the unit {interval.unit}"
        raise InvalidInputError(f"{field}.count {problem}", details={f"{field}.count": problem})


def require_chargeable(gateways: Mapping[str, Capabilities], plan: Plan) -> None:
    """Check that a plan's gateway takes its money without the customer being there.

    Whether the gateway is on is for payments to know, when it charges.

    Raises:
        InvalidInputError: it does not; names the field.
    """
    able = {name for name, each in gateways.items() if set(each.methods) - {"checkout"}}
    if plan.gateway not in able:
        known = ", ".join(sorted(able))
        problem = f"must be one that charges customers who are not there: {known}"
        raise InvalidInputError(f"gateway {problem}", details={"gateway": problem})
    limits = gateways[plan.gateway].limits
    currency = plan.amount.currency
    if currency not in limits:
        problem = f"{plan.gateway} takes {', '.join(sorted(limits))}"
        raise InvalidInputError(f"currency: {problem}", details={"currency": problem})
    low, high = limits[currency].minimum, limits[currency].maximum
    if not low <= plan.amount.minor_units <= high:
        problem = f"{plan.gateway} takes {Money(low, currency)} to {Money(high, currency)}"
        raise InvalidInputError(f"amount: {problem}", details={"amount": problem})
    step = limits[currency].step
    if plan.amount.minor_units % step:
        problem = f"{plan.gateway} takes {currency} in multiples of {step} minor units"
        raise InvalidInputError(f"amount: {problem}", details={"amount": problem})
