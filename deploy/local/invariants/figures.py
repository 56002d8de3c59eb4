"""What statistics count of subscriptions and jobs is what the tables hold."""

from __future__ import annotations

from typing import Final

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases

# One statement: subscriptions change while it runs.
_DIFFERING: Final = """
    WITH counted AS (
        SELECT plan_id, what, is_test, sum(times) AS number
          FROM (SELECT plan_id, what, is_test, times
                  FROM billing_total
                 UNION ALL
                SELECT plan_id, what, is_test, times
                  FROM billing_count_new) AS each
         WHERE what LIKE 'is\\_%'
         GROUP BY plan_id, what, is_test
    ), there AS (
        SELECT plan_id, 'is_' || state AS what, clock_id IS NOT NULL AS is_test, count(*) AS number
          FROM subscription
         GROUP BY plan_id, state, clock_id IS NOT NULL
    )
    SELECT plan_id, what, is_test, coalesce(counted.number, 0)::bigint AS counted,
           coalesce(there.number, 0)::bigint AS there, count(*) OVER () AS total
      FROM counted
      FULL JOIN there USING (plan_id, what, is_test)
     WHERE coalesce(counted.number, 0) <> coalesce(there.number, 0)
     ORDER BY plan_id, what, is_test
     LIMIT $1
"""

# The same of jobs by their status.
_DIFFERING_JOBS: Final = """
    WITH counted AS (
        SELECT status, sum(jobs) AS number FROM job_tally GROUP BY status
    ), there AS (
        SELECT status, count(*) AS number FROM job GROUP BY status
    )
    SELECT status, coalesce(counted.number, 0)::bigint AS counted,
           coalesce(there.number, 0)::bigint AS there, count(*) OVER () AS total
      FROM counted
      FULL JOIN there USING (status)
     WHERE coalesce(counted.number, 0) <> coalesce(there.number, 0)
     ORDER BY status
     LIMIT $1
"""

_COUNT: Final = "SELECT (SELECT count(*) FROM subscription) + (SELECT count(*) FROM job)"


async def check(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare how many subscriptions and jobs are counted with how many there are."""
    findings.checked = (await databases.fetch("scheduler", _COUNT))[0][0]
    findings.add_rows(
        await databases.fetch("scheduler", _DIFFERING, EXAMPLES_MAX),
        lambda row: Example(
            row["plan_id"],
            f"{row['there']} {'on test clocks ' if row['is_test'] else ''}"
            f"{row['what'].removeprefix('is_')}, but {row['counted']} are counted",
        ),
    )
    findings.add_rows(
        await databases.fetch("scheduler", _DIFFERING_JOBS, EXAMPLES_MAX),
        lambda row: Example(
            "jobs", f"{row['there']} {row['status']}, but {row['counted']} are counted"
        ),
    )


FIGURES_AGREE: Final = Invariant(
    name="figures_agree",
    sentence="Statistics count the subscriptions and jobs of each state that there are.",
    hint="Someone has changed the tables past Sluice; only figures are wrong, no money is.",
    check=check,
    services=frozenset({"scheduler"}),
    is_warning=True,
)
