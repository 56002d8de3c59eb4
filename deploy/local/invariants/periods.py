"""Periods follow each other from the anchor on: none is billed twice, none is left out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from services.scheduler.domain.periods import (
    Interval,
    IntervalUnit,
    OutOfTimeError,
    Rhythm,
    boundary,
)

# In the order of the primary key, so that nothing is sorted.
_BROKEN: Final = """
    WITH cycle AS (
        SELECT subscription_id, period_start, number,
               lag(period_end) OVER of_one AS end_before,
               lag(number + periods) OVER of_one AS number_expected
          FROM billing_cycle
        WINDOW of_one AS (PARTITION BY subscription_id ORDER BY period_start)
    )
    SELECT subscription_id, period_start, number, end_before, number_expected,
           count(*) OVER () AS total
      FROM cycle
     WHERE end_before <> period_start
        OR number < number_expected AND number <> 0
        OR end_before IS NULL AND number < 0
     ORDER BY subscription_id, period_start
     LIMIT $1
"""

# With a plan of another interval periods are counted anew from where the one before ended.
_FROM_ANCHOR: Final = """
    SELECT subscription_id, period_start, period_end, number, periods, anchor, zone,
           interval_unit, interval_every
      FROM (SELECT subscription_id, billing_cycle.period_start, billing_cycle.period_end, number,
                   periods, anchor, zone, subscription.plan_id
              FROM billing_cycle
              JOIN subscription ON id = subscription_id
             WHERE (subscription_id, billing_cycle.period_start) > ($1::text, $2::timestamptz)
               AND billing_cycle.period_start >= anchor
             ORDER BY subscription_id, billing_cycle.period_start
             LIMIT $3) cycle
      JOIN plan ON plan.id = plan_id
     ORDER BY subscription_id, period_start
"""

#: Before every period.
LONG_AGO: Final = datetime(2, 1, 1, tzinfo=UTC)


async def check_periods(databases: ServiceDatabases, findings: Findings) -> None:
    """Find gaps and overlaps, and periods that do not begin where the anchor says."""
    rows = await databases.fetch("scheduler", _BROKEN, EXAMPLES_MAX)
    findings.add_rows(rows, _tell_broken)
    pages = databases.pages("scheduler", _FROM_ANCHOR, after=("", LONG_AGO), key_length=2)
    async for page in pages:
        findings.checked += len(page)
        for row in page:
            problem = _problem(row)
            if problem is not None:
                findings.add_violation(row["subscription_id"], problem)


def _tell_broken(row: asyncpg.Record) -> Example:
    start, end_before = row["period_start"], row["end_before"]
    if end_before is None or start == end_before:
        problem = f"counts its period of {_time(start)} as number {row['number']}"
    elif start > end_before:
        problem = f"has no period from {_time(end_before)} to {_time(start)}"
    else:
        problem = f"has periods that overlap from {_time(start)} to {_time(end_before)}"
    return Example(row["subscription_id"], problem)


def _problem(row: asyncpg.Record) -> str | None:
    """Compute a period anew from the anchor."""
    interval = Interval(IntervalUnit(row["interval_unit"]), row["interval_every"])
    rhythm = Rhythm(row["anchor"], row["zone"], interval)
    first, after = row["number"], row["number"] + row["periods"]
    try:
        start, end = boundary(rhythm, first), boundary(rhythm, after)
    except OutOfTimeError as error:
        return str(error)
    if (start, end) == (row["period_start"], row["period_end"]):
        return None
    return (
        f"has period {first} from {_time(row['period_start'])} to {_time(row['period_end'])}; "
        f"by its anchor it is from {_time(start)} to {_time(end)}"
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


PERIODS_FOLLOW: Final = Invariant(
    name="periods_follow",
    sentence="The periods of a subscription follow each other from its anchor on, without a gap "
    "and without an overlap.",
    hint="Someone has changed the tables past Sluice, or the time zone of the subscription has "
    "changed its rules: read `sluice explain SUBSCRIPTION`.",
    check=check_periods,
    services=frozenset({"scheduler"}),
)
