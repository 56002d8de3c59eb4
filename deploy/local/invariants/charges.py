"""What was charged, as far as our side alone can tell."""

from __future__ import annotations

from functools import partial
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases

_SUCCESSES: Final = """
    WITH step AS (
        SELECT payment_id, state,
               lag(state) OVER (PARTITION BY payment_id ORDER BY id) AS state_before
          FROM payment_history
    )
    SELECT payment_id, count(*) AS successes, count(*) OVER () AS total
      FROM step
     WHERE state = 'succeeded'
       AND coalesce(state_before, '') NOT IN (
               'succeeded', 'partially_refunded', 'refunded', 'disputed')
     GROUP BY payment_id
    HAVING count(*) > 1
     ORDER BY payment_id
     LIMIT $1
"""

_SHARED_CHARGES: Final = """
    SELECT gateway, gateway_payment_id, min(id) AS payment_id, count(*) AS payments,
           count(*) OVER () AS total
      FROM payment
     WHERE gateway_payment_id <> ''
     GROUP BY gateway, gateway_payment_id
    HAVING count(*) > 1
     ORDER BY payment_id
     LIMIT $1
"""

_UNPROVEN_SUCCESSES: Final = """
    SELECT id AS payment_id, count(*) OVER () AS total
      FROM payment
     WHERE state IN ('succeeded', 'partially_refunded', 'refunded', 'disputed')
       AND coalesce(gateway_payment_id, '') = ''
     ORDER BY id
     LIMIT $1
"""

_SURPLUS: Final = """
    SELECT id AS payment_id, count(*) OVER () AS total
      FROM payment
     WHERE reason = 'surplus_charge'
     ORDER BY id
     LIMIT $1
"""

_COUNT_SUCCEEDED: Final = "SELECT count(*) FROM payment WHERE state = 'succeeded'"

#: Each query that finds wrong payments, and what is wrong with them.
_WRONG_SUCCESSES: Final = (
    (_SUCCESSES, "has succeeded {successes} times"),
    (_SHARED_CHARGES, "shares the charge {gateway_payment_id} with other payments"),
    (_UNPROVEN_SUCCESSES, "has succeeded without a charge of the gateway"),
    (_SURPLUS, "was charged more than once by the gateway, which was found out"),
)


async def check_successes(databases: ServiceDatabases, findings: Findings) -> None:
    """Check what this side alone can tell about charges."""
    findings.checked = (await databases.fetch("payments", _COUNT_SUCCEEDED))[0][0]
    for query, problem in _WRONG_SUCCESSES:
        rows = await databases.fetch("payments", query, EXAMPLES_MAX)
        findings.add_rows(rows, partial(_tell, problem))


def _tell(problem: str, row: asyncpg.Record) -> Example:
    return Example(row["payment_id"], problem.format(**row))


ONE_SUCCESS_PER_PAYMENT: Final = Invariant(
    name="one_success_per_payment",
    sentence="A payment succeeds at most once, and rests on one charge, which is its own.",
    hint="Compare with the gateway's own list, and refund at the gateway what was taken twice.",
    check=check_successes,
    services=frozenset({"payments"}),
)
