"""Each payment's state against its history, and the history against the table of transitions."""

from __future__ import annotations

from typing import Final

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import TRANSITIONS

_COUNT: Final = "SELECT count(*) FROM payment"

_DISAGREEING: Final = """
    SELECT id, payment.state, last.state AS last_state, count(*) OVER () AS total
      FROM payment
      LEFT JOIN LATERAL (
               SELECT state
                 FROM payment_history
                WHERE payment_id = payment.id
                ORDER BY payment_history.id DESC
                LIMIT 1) last ON true
     WHERE payment.state IS DISTINCT FROM last.state
     ORDER BY payment.id
     LIMIT $1
"""

_FORBIDDEN_STEPS: Final = """
    WITH step AS (
        SELECT payment_id, id, state,
               lag(state) OVER (PARTITION BY payment_id ORDER BY id) AS state_before
          FROM payment_history
    )
    SELECT payment_id, state_before, state, count(*) OVER () AS total
      FROM step
     WHERE state IS DISTINCT FROM state_before
       AND coalesce(state_before, '') || '>' || state <> ALL($1::text[])
     ORDER BY payment_id, id
     LIMIT $2
"""

#: The first line of a history, then every step of the table.
_STEPS_ALLOWED: Final = (
    f">{PaymentState.CREATED}",
    *(f"{before}>{after}" for before, allowed in TRANSITIONS.items() for after in sorted(allowed)),
)


async def check_history(databases: ServiceDatabases, findings: Findings) -> None:
    """Check that histories end where payments are, by steps that the table has."""
    findings.checked = (await databases.fetch("payments", _COUNT))[0][0]
    rows = await databases.fetch("payments", _DISAGREEING, EXAMPLES_MAX)
    findings.add_rows(
        rows,
        lambda row: Example(
            row["id"],
            f"is {row['state']}, but its history ends with {row['last_state'] or 'nothing'}",
        ),
    )
    rows = await databases.fetch("payments", _FORBIDDEN_STEPS, _STEPS_ALLOWED, EXAMPLES_MAX)
    findings.add_rows(
        rows,
        lambda row: Example(
            row["payment_id"], f"went from {row['state_before'] or 'nothing'} to {row['state']}"
        ),
    )


HISTORY_AGREES: Final = Invariant(
    name="history_agrees",
    sentence="Each payment is where its history ends, and came there by allowed steps.",
    hint="Someone has changed the tables past Sluice: compare with the gateway before anything "
    "else is done with this payment.",
    check=check_history,
    services=frozenset({"payments"}),
)
