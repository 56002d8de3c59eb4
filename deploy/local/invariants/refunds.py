"""What was given back adds up, and no refund or dispute waits past its time."""

from __future__ import annotations

from typing import Final

import asyncpg

from deploy.local.invariants.dues import CHECK_LATE_SECONDS
from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from deploy.local.story_words import moment

_COUNT_REFUNDS: Final = "SELECT count(*) FROM refund"

_WRONG_SUMS: Final = """
    WITH given_back AS (
        SELECT payment_id,
               coalesce(sum(amount) FILTER (WHERE state = 'succeeded'), 0) AS refunded,
               coalesce(sum(amount) FILTER (
                   WHERE state IN ('requested', 'pending', 'unknown')), 0) AS reserved
          FROM refund
         GROUP BY payment_id
    )
    SELECT payment.id, refunded_amount, refund_reserved, coalesce(refunded, 0) AS refunded,
           coalesce(reserved, 0) AS reserved, count(*) OVER () AS total
      FROM payment
      LEFT JOIN given_back ON payment_id = payment.id
     WHERE refunded_amount <> coalesce(refunded, 0)
        OR refund_reserved <> coalesce(reserved, 0)
     ORDER BY payment.id
     LIMIT $1
"""

_TOO_MUCH: Final = """
    SELECT id, amount, refunded_amount, refund_reserved, count(*) OVER () AS total
      FROM payment
     WHERE refunded_amount + refund_reserved > amount
     ORDER BY id
     LIMIT $1
"""

_WRONG_STATES: Final = """
    SELECT id, state, amount, refunded_amount, count(*) OVER () AS total
      FROM payment
     WHERE CASE state
               WHEN 'refunded' THEN refunded_amount <> amount
               WHEN 'partially_refunded' THEN refunded_amount NOT BETWEEN 1 AND amount - 1
               WHEN 'disputed' THEN NOT EXISTS (
                   SELECT
                     FROM dispute
                    WHERE payment_id = payment.id
                      AND dispute.state IN ('opened', 'lost'))
               ELSE refunded_amount <> 0
           END
     ORDER BY id
     LIMIT $1
"""


async def check_refunds(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare payments with their refunds and disputes."""
    findings.checked = (await databases.fetch("payments", _COUNT_REFUNDS))[0][0]
    rows = await databases.fetch("payments", _WRONG_SUMS, EXAMPLES_MAX)
    findings.add_rows(rows, _tell_sums)
    rows = await databases.fetch("payments", _TOO_MUCH, EXAMPLES_MAX)
    findings.add_rows(
        rows,
        lambda row: Example(
            row["id"],
            f"gives back {row['refunded_amount']} and {row['refund_reserved']} of {row['amount']}",
        ),
    )
    rows = await databases.fetch("payments", _WRONG_STATES, EXAMPLES_MAX)
    findings.add_rows(
        rows,
        lambda row: Example(
            row["id"],
            f"is {row['state']}, but {row['refunded_amount']} of {row['amount']} was given back",
        ),
    )


def _tell_sums(row: asyncpg.Record) -> Example:
    says = f"{row['refunded_amount']} and {row['refund_reserved']}"
    are = f"{row['refunded']} and {row['reserved']}"
    return Example(row["id"], f"says it gave back {says} (under way), but its refunds are {are}")


_COUNT_WAITING: Final = """
    SELECT (SELECT count(*) FROM refund WHERE next_look_at IS NOT NULL)
           + (SELECT count(*) FROM dispute WHERE next_look_at IS NOT NULL)
"""

# What is paused, or whose gateway nobody calls, waits with a reason.
_LATE: Final = """
    WITH due AS (
        SELECT id, gateway, state, next_look_at FROM refund WHERE next_look_at IS NOT NULL
         UNION ALL
        SELECT id, gateway, state, next_look_at FROM dispute WHERE next_look_at IS NOT NULL
    )
    SELECT id, state, next_look_at, count(*) OVER () AS total
      FROM due
     WHERE next_look_at < clock_timestamp() - make_interval(secs => $1)
       AND NOT EXISTS (SELECT
                         FROM control
                        WHERE key IN ('pause:all', 'pause:gateway:' || gateway))
       AND NOT EXISTS (SELECT
                         FROM gateway_breaker
                        WHERE gateway_breaker.gateway = due.gateway
                          AND coalesce(forced, gateway_breaker.state) <> 'closed')
     ORDER BY next_look_at
     LIMIT $2
"""


async def check_due(databases: ServiceDatabases, findings: Findings) -> None:
    """Find refunds and disputes whose gateway should have been called by now."""
    findings.checked = (await databases.fetch("payments", _COUNT_WAITING))[0][0]
    rows = await databases.fetch("payments", _LATE, CHECK_LATE_SECONDS, EXAMPLES_MAX)
    late = findings.add_rows(
        rows,
        lambda row: Example(
            row["id"],
            f"is {row['state']}, its gateway to be asked {moment(row['next_look_at'])} UTC",
        ),
    )
    findings.waiting = findings.checked - late


REFUNDS_ADD_UP: Final = Invariant(
    name="refunds_add_up",
    sentence="A payment has given back what its refunds are, and never more than was paid.",
    hint="Someone has changed the tables past Sluice: compare with the gateway's own list of "
    "refunds before anything else is given back.",
    check=check_refunds,
    services=frozenset({"payments"}),
)

NO_REFUND_LATE: Final = Invariant(
    name="no_refund_late",
    sentence="Every refund and dispute that is not decided has a time, and it is kept.",
    hint="See that a worker of payments runs: it asks the gateways about them.",
    check=check_due,
    services=frozenset({"payments"}),
)
