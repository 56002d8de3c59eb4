"""Every subscription goes on by itself, or is visibly waiting for somebody."""

from __future__ import annotations

from functools import partial
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from deploy.local.story_words import moment

#: The scan wakes when something is due. A restart takes a while, and so does a burst.
DUE_LATE_SECONDS: Final = 120

_COUNT: Final = """
    SELECT count(*) AS checked,
           count(*) FILTER (WHERE problem IS NULL AND due_at IS NOT NULL) AS "with a time",
           count(*) FILTER (WHERE charging IS NOT NULL) AS "charging",
           count(*) FILTER (WHERE state = 'past_due') AS "past due",
           count(*) FILTER (WHERE state = 'paused') AS "paused",
           count(*) FILTER (WHERE asks_to_catch_up) AS "asked which periods are billed",
           count(*) FILTER (WHERE problem IS NOT NULL) AS "set aside"
      FROM subscription
     WHERE state NOT IN ('cancelled', 'ended')
"""

_LATE: Final = """
    SELECT id, due_at, count(*) OVER () AS total
      FROM subscription
     WHERE clock_id IS NULL
       AND problem IS NULL
       AND due_at < clock_timestamp() - make_interval(secs => $1)
     ORDER BY due_at
     LIMIT $2
"""

# On a clock the time of a charge that is at the gateway stands still.
_LATE_ON_CLOCK: Final = """
    SELECT subscription.id, due_at, clock_id, count(*) OVER () AS total
      FROM subscription
      JOIN test_clock ON test_clock.id = clock_id
     WHERE problem IS NULL
       AND (charging IS NULL OR retry_at IS NOT NULL)
       AND CASE WHEN runs_since IS NOT NULL
                THEN due_at < now + (clock_timestamp() - runs_since)
                              - make_interval(secs => $1)
                ELSE due_at <= now AND NOT is_advancing
           END
     ORDER BY due_at
     LIMIT $2
"""

#: Each query that finds late ones, and what is wrong with them.
_ALL_LATE: Final = (
    (_LATE, "was due at {due} UTC"),
    (_LATE_ON_CLOCK, "was due at {due} UTC of clock {clock_id}, which has gone on"),
)


async def check_dues(databases: ServiceDatabases, findings: Findings) -> None:
    """Find subscriptions whose time has come, and for which nothing happens."""
    (counts,) = await databases.fetch("scheduler", _COUNT)
    classes = dict(counts.items())
    findings.checked = classes.pop("checked")
    findings.classes.update({name: count for name, count in classes.items() if count})
    for query, problem in _ALL_LATE:
        rows = await databases.fetch("scheduler", query, DUE_LATE_SECONDS, EXAMPLES_MAX)
        findings.add_rows(rows, partial(_tell_late, problem))
    findings.waiting = max(0, classes["with a time"] - findings.violations)


def _tell_late(problem: str, row: asyncpg.Record) -> Example:
    return Example(row["id"], problem.format(due=moment(row["due_at"]), **row))


_SET_ASIDE: Final = """
    SELECT id, problem, count(*) OVER () AS total
      FROM subscription
     WHERE problem IS NOT NULL
     ORDER BY id
     LIMIT $1
"""

_COUNT_ASKING: Final = "SELECT count(*) FROM subscription WHERE asks_to_catch_up"


async def check_set_aside(databases: ServiceDatabases, findings: Findings) -> None:
    """Count what waits for an operator."""
    findings.waiting = (await databases.fetch("scheduler", _COUNT_ASKING))[0][0]
    rows = await databases.fetch("scheduler", _SET_ASIDE, EXAMPLES_MAX)
    set_aside = findings.add_rows(rows, lambda row: Example(row["id"], row["problem"]))
    findings.checked = findings.waiting + set_aside


# All of it is written in one transaction, so that one statement sees all of it or nothing.
_DISAGREEING_WITH_PERIOD: Final = """
    SELECT id, subscription.state, is_unpaid, charging, billing_cycle.state AS cycle,
           count(*) OVER () AS total
      FROM subscription
      LEFT JOIN billing_cycle
             ON subscription_id = id AND billing_cycle.period_start = subscription.period_start
     WHERE period_number >= 0
       AND (billing_cycle.number IS DISTINCT FROM period_number
            OR billing_cycle.period_end <> subscription.period_end
            OR billing_cycle.state = 'skipped'
            OR NOT is_unpaid AND billing_cycle.state <> 'paid'
            OR is_unpaid AND billing_cycle.state = 'paid'
               AND subscription.state NOT IN ('cancelled', 'ended')
            OR billing_cycle.state = 'charging' AND payment_id IS DISTINCT FROM charging
            OR billing_cycle.state = 'unpaid' AND subscription.state IN ('cancelled', 'ended'))
     ORDER BY id
     LIMIT $1
"""

_LEFT_BEHIND: Final = """
    SELECT subscription_id AS id, billing_cycle.period_start, billing_cycle.state AS cycle,
           count(*) OVER () AS total
      FROM billing_cycle
      LEFT JOIN subscription ON id = subscription_id
     WHERE billing_cycle.state IN ('charging', 'unpaid')
       AND billing_cycle.period_start IS DISTINCT FROM subscription.period_start
     ORDER BY subscription_id
     LIMIT $1
"""

# A job that ended is kept for some days, one that did not as long as it is in hand.
_DISAGREEING_WITH_JOB: Final = """
    SELECT subscription.id, charging, job.id AS job, status, count(*) OVER () AS total
      FROM subscription
      LEFT JOIN job ON job.id = 'job_' || substr(charging, 5)
     WHERE charging IS NOT NULL
       AND (status IS NULL OR status IN ('completed', 'failed')
            OR job.period_start <> subscription.period_start)
     ORDER BY subscription.id
     LIMIT $1
"""

_JOBS_OF_NOBODY: Final = """
    SELECT job.id, status, subscription_id, count(*) OVER () AS total
      FROM job
      LEFT JOIN subscription ON subscription.id = subscription_id
     WHERE status IN ('waiting', 'active', 'delayed')
       AND charging IS DISTINCT FROM payment_id
     ORDER BY job.id
     LIMIT $1
"""

_WITHOUT_ACCESS: Final = """
    SELECT id, count(*) OVER () AS total
      FROM subscription
     WHERE state = 'active'
       AND period_number >= 0
       AND NOT is_unpaid
       AND NOT has_access
     ORDER BY id
     LIMIT $1
"""

_COUNT_ALL: Final = "SELECT count(*) FROM subscription"

_DISAGREEMENTS: Final = (
    (
        _DISAGREEING_WITH_PERIOD,
        "is {state} (unpaid: {is_unpaid}, charging: {charging}), but its period is {cycle}",
    ),
    (_LEFT_BEHIND, "has gone on, but its period of {period_start:%Y-%m-%d %H:%M} is {cycle}"),
    (_DISAGREEING_WITH_JOB, "is charging {charging}, but its job is {status}"),
    (_JOBS_OF_NOBODY, "is {status}, but {subscription_id} does not wait for it"),
    (_WITHOUT_ACCESS, "is active and paid, but gives no access"),
)


async def check_agreement(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare what a subscription says of itself with its periods and jobs."""
    findings.checked = (await databases.fetch("scheduler", _COUNT_ALL))[0][0]
    for query, problem in _DISAGREEMENTS:
        rows = await databases.fetch("scheduler", query, EXAMPLES_MAX)
        findings.add_rows(rows, partial(_tell, problem))


def _tell(problem: str, row: asyncpg.Record) -> Example:
    return Example(row["id"], problem.format(**row))


NO_SUBSCRIPTION_LATE: Final = Invariant(
    name="no_subscription_late",
    sentence="What is due of subscriptions happens at its time, on test clocks too.",
    hint="See that a worker of the scheduler runs, and read in its log why the scan waits: "
    "docs/runbooks/scheduler-late.md.",
    check=check_dues,
    services=frozenset({"scheduler"}),
)

SUBSCRIPTIONS_AGREE: Final = Invariant(
    name="subscriptions_agree",
    sentence="A subscription, its period, its job and its access tell the same.",
    hint="Someone has changed the tables past Sluice: read `sluice explain SUBSCRIPTION`, and put "
    "right what is not as its history says.",
    check=check_agreement,
    services=frozenset({"scheduler"}),
)

NO_SUBSCRIPTION_SET_ASIDE: Final = Invariant(
    name="no_subscription_set_aside",
    sentence="No subscription was set aside because what was due could not be done.",
    hint="Mend the cause, then POST /api/subscriptions/{id}/clear-problem: "
    "docs/runbooks/subscription-set-aside.md.",
    check=check_set_aside,
    services=frozenset({"scheduler"}),
    is_warning=True,
)
