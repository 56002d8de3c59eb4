"""A payment that shall be tried again has a retry with a time, and that is kept."""

from __future__ import annotations

from typing import Final

from deploy.local.invariants.dues import CHECK_LATE_SECONDS
from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from deploy.local.story_words import moment

_COUNT: Final = """
    SELECT count(*) FROM retry WHERE state IN ('scheduled', 'running', 'parked', 'waiting')
"""

# What is paused, or whose gateway nobody calls, waits with a reason. Leases go by the database's
# clock; the shortest lease is seconds, the usual one minutes.
_LATE: Final = """
    SELECT payment_id, state, coalesce(next_attempt_at, leased_until) AS due,
           count(*) OVER () AS total
      FROM retry
     WHERE (state = 'scheduled' AND next_attempt_at < clock_timestamp() - make_interval(secs => $1)
            OR leased_until < clock_timestamp() - make_interval(secs => $1))
       AND NOT EXISTS (SELECT
                         FROM control
                        WHERE key IN ('pause:all', 'pause:gateway:' || gateway,
                                      'pause:priority:' || priority))
       AND NOT EXISTS (SELECT
                         FROM gateway_breaker
                        WHERE gateway_breaker.gateway = retry.gateway
                          AND coalesce(forced, gateway_breaker.state) <> 'closed')
     ORDER BY payment_id
     LIMIT $2
"""

_WITHOUT_RETRY: Final = """
    SELECT id, count(*) OVER () AS total
      FROM payment
     WHERE state = 'retry_scheduled'
       AND NOT EXISTS (SELECT
                         FROM retry
                        WHERE payment_id = payment.id
                          AND retry.state IN ('scheduled', 'running', 'parked',
                                              'waiting'))
     ORDER BY id
     LIMIT $1
"""

# Each retry is on record before the gateway hears of it, and is a try of its payment.
_UNRECORDED: Final = """
    SELECT retry_attempt.payment_id, retry_attempt.reference, count(*) OVER () AS total
      FROM retry_attempt
      LEFT JOIN attempt USING (reference)
     WHERE attempt.payment_id IS DISTINCT FROM retry_attempt.payment_id
     ORDER BY 1
     LIMIT $1
"""


async def check_retries(databases: ServiceDatabases, findings: Findings) -> None:
    """Find retries that should have been made, and payments that wait for none."""
    findings.checked = (await databases.fetch("payments", _COUNT))[0][0]
    late = await databases.fetch("payments", _LATE, CHECK_LATE_SECONDS, EXAMPLES_MAX)
    late_count = findings.add_rows(
        late,
        lambda row: Example(
            row["payment_id"], f"its retry is {row['state']}, due at {moment(row['due'])} UTC"
        ),
    )
    findings.waiting = findings.checked - late_count
    lost = await databases.fetch("payments", _WITHOUT_RETRY, EXAMPLES_MAX)
    findings.add_rows(lost, lambda row: Example(row["id"], "is retry_scheduled without a retry"))
    unrecorded = await databases.fetch("payments", _UNRECORDED, EXAMPLES_MAX)
    findings.add_rows(
        unrecorded,
        lambda row: Example(row["payment_id"], f"its retry {row['reference']} is no try of it"),
    )


NO_RETRY_LATE: Final = Invariant(
    name="no_retry_late",
    sentence="Every payment that shall be tried again has a retry with a time, and it is kept.",
    hint="See that a worker of payments runs, and GET /api/payments/retry/{id} for what one waits "
    "for.",
    check=check_retries,
    services=frozenset({"payments"}),
)
