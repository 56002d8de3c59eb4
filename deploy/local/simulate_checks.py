"""Whether a simulated time was billed without a gap, without an overlap and to its end.

Computed here from the stored rows, by the calendar of the standard library and not by the code that
made them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from deploy.local.service_databases import ServiceDatabases


class BilledPeriod(NamedTuple):
    """One billing cycle."""

    subscription_id: str
    start: datetime
    end: datetime
    #: More than one only of those that were skipped together.
    periods: int
    state: str
    payment_id: str | None


class Lived(NamedTuple):
    """A subscription at the end."""

    id: str
    state: str
    reason: str
    anchor: datetime
    interval_unit: str
    interval_every: int


class Money(NamedTuple):
    """A payment of a subscription that took money."""

    id: str
    subscription_id: str


class Problem(NamedTuple):
    """Something that must not be."""

    subject: str
    what: str


_CYCLES: Final = """
    SELECT subscription_id, period_start, period_end, periods, state, payment_id
      FROM billing_cycle
     WHERE (subscription_id, period_start) > ($1, $2)
     ORDER BY subscription_id, period_start
     LIMIT $3
"""

_SUBSCRIPTIONS: Final = """
    SELECT subscription.id, state, reason, anchor, interval_unit, interval_every
      FROM subscription
      JOIN plan ON plan.id = subscription.plan_id
     WHERE subscription.id > $1
       AND clock_id IS NOT NULL
     ORDER BY subscription.id
     LIMIT $2
"""

_TAKEN: Final = """
    SELECT id, subscription_id
      FROM payment
     WHERE id > $1
       AND subscription_id IS NOT NULL
       AND state IN ('succeeded', 'on_hold')
     ORDER BY id
     LIMIT $2
"""

#: Before every period.
EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)

#: How long a period may be, by its unit: months and years have no one length, and a day with a
#: change of the clocks has an hour or two more or less.
_LENGTHS: Final = {
    "minute": (timedelta(minutes=1), timedelta(minutes=1)),
    "hour": (timedelta(hours=1), timedelta(hours=1)),
    "day": (timedelta(days=1), timedelta(days=1)),
    "week": (timedelta(days=7), timedelta(days=7)),
    "month": (timedelta(days=28), timedelta(days=31)),
    "year": (timedelta(days=365), timedelta(days=366)),
}
_CHANGE_OF_CLOCKS: Final = timedelta(hours=2)

#: States in which periods go on to be billed.
_BILLED: Final = frozenset({"trialing", "active", "past_due"})


async def find_problems(
    databases: ServiceDatabases, end: datetime
) -> tuple[list[Lived], list[BilledPeriod], list[Problem]]:
    """Read what the scheduler and payments hold after the clocks came to `end`, and judge it."""
    lived = [
        Lived(*row)
        async for page in databases.pages("scheduler", _SUBSCRIPTIONS, after=[""])
        for row in page
    ]
    billed = [
        BilledPeriod(*row)
        async for page in databases.pages("scheduler", _CYCLES, after=["", EARLIEST], key_length=2)
        for row in page
    ]
    taken = [
        Money(*row)
        async for page in databases.pages("payments", _TAKEN, after=[""])
        for row in page
    ]
    return lived, billed, problems_of(lived, billed, taken, end)


def problems_of(
    lived: Sequence[Lived],
    billed: Iterable[BilledPeriod],
    taken: Iterable[Money],
    end: datetime,
) -> list[Problem]:
    """Return what is wrong: a period missed, doubled, or paid other than once."""
    periods: defaultdict[str, list[BilledPeriod]] = defaultdict(list)
    for period in billed:
        periods[period.subscription_id].append(period)
    problems = []
    for one in lived:
        problems += [Problem(one.id, what) for what in _gaps(one, periods[one.id], end)]
    paying = {
        period.payment_id: period.subscription_id
        for each in periods.values()
        for period in each
        if period.state == "paid"
    }
    paid = sum(period.state == "paid" for each in periods.values() for period in each)
    if len(paying) != paid:
        problems.append(Problem("payments", f"{paid} paid periods rest on {len(paying)} payments"))
    found = {money.id: money.subscription_id for money in taken}
    for payment_id, subscription_id in paying.items():
        if found.get(payment_id or "") != subscription_id:
            problems.append(Problem(subscription_id, f"rests on {payment_id}, which took nothing"))
    problems += [
        Problem(payment_id, f"took money of {subscription_id} that pays no period")
        for payment_id, subscription_id in found.items()
        if payment_id not in paying
    ]
    return problems


def _gaps(one: Lived, periods: Sequence[BilledPeriod], end: datetime) -> Iterable[str]:
    if not periods:
        if one.state in _BILLED and one.anchor <= end:
            yield "was never billed"
        return
    if periods[0].start != one.anchor:
        yield f"is billed from {periods[0].start}, not from its anchor {one.anchor}"
    for before, after in itertools.pairwise(periods):
        if after.start != before.end:
            word = "overlaps" if after.start < before.end else "leaves a gap after"
            yield f"period {after.start} {word} the one that ends at {before.end}"
    shortest, longest = _LENGTHS[one.interval_unit]
    for period in periods:
        units = period.periods * one.interval_every
        length = period.end - period.start
        if (
            not -_CHANGE_OF_CLOCKS + units * shortest
            <= length
            <= units * longest + _CHANGE_OF_CLOCKS
        ):
            yield f"period {period.start} lasts {length}"
    if one.state in _BILLED and periods[-1].end <= end:
        yield f"is billed to {periods[-1].end} only"
