"""Nothing that has a time is late, and nothing is given up in silence."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final

import asyncpg

from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases

#: A relay looks every second; a minute covers its restart and a burst of 30,000 due messages.
OUTBOX_LATE_SECONDS: Final = 60

#: The reconciler looks every second. A process that died with a payment in hand holds it for the
#: 60 s of its lease, and starting another takes a while.
CHECK_LATE_SECONDS: Final = 120

#: The services that send or receive messages.
_WITH_MESSAGES: Final = ("webhook", "payments", "enrollment", "scheduler")

_COUNT_OUTBOX: Final = """
    SELECT count(*) AS checked,
           count(*) FILTER (
               WHERE parked_at IS NULL
                 AND send_again_at >= clock_timestamp() - make_interval(secs => $1)) AS waiting
      FROM outbox
"""

_LATE_MESSAGES: Final = """
    SELECT id, message_name, sends, parked_at, send_again_at, count(*) OVER () AS total
      FROM outbox
     WHERE parked_at IS NOT NULL
        OR send_again_at < clock_timestamp() - make_interval(secs => $1)
     ORDER BY id
     LIMIT $2
"""


async def check_outboxes(databases: ServiceDatabases, findings: Findings) -> None:
    """Find messages that wait longer than a relay may let them, or for ever."""
    for service in _WITH_MESSAGES:
        counts = (await databases.fetch(service, _COUNT_OUTBOX, OUTBOX_LATE_SECONDS))[0]
        findings.checked += counts["checked"]
        findings.waiting += counts["waiting"]
        rows = await databases.fetch(service, _LATE_MESSAGES, OUTBOX_LATE_SECONDS, EXAMPLES_MAX)
        findings.add_rows(rows, partial(_tell_message, service))


def _tell_message(service: str, row: asyncpg.Record) -> Example:
    if row["parked_at"] is None:
        problem = f"was to be sent again at {_time(row['send_again_at'])}"
    else:
        problem = f"was sent {row['sends']} times and is parked"
    return Example(f"{service} {row['message_name']} {row['id']}", problem)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


_COUNT_WAITING: Final = "SELECT count(*) FROM payment WHERE next_check_at IS NOT NULL"

# What is paused, or whose gateway nobody calls, waits with a reason.
_LATE_CHECKS: Final = """
    SELECT id, state, next_check_at, count(*) OVER () AS total
      FROM payment
     WHERE next_check_at < clock_timestamp() - make_interval(secs => $1)
       AND NOT EXISTS (SELECT
                         FROM control
                        WHERE key IN ('pause:all', 'pause:gateway:' || gateway,
                                      'pause:priority:' || priority))
       AND NOT EXISTS (SELECT
                         FROM gateway_breaker
                        WHERE gateway_breaker.gateway = payment.gateway
                          AND coalesce(forced, gateway_breaker.state) <> 'closed')
     ORDER BY next_check_at
     LIMIT $2
"""

_STUCK: Final = """
    SELECT id, state, count(*) OVER () AS total
      FROM payment
     WHERE next_check_at IS NULL
       AND state IN ('created', 'pending', 'processing', 'unknown')
     ORDER BY id
     LIMIT $1
"""


async def check_payments(databases: ServiceDatabases, findings: Findings) -> None:
    """Find payments that should have been looked at, or never will be."""
    findings.checked = (await databases.fetch("payments", _COUNT_WAITING))[0][0]
    late = await databases.fetch("payments", _LATE_CHECKS, CHECK_LATE_SECONDS, EXAMPLES_MAX)
    late_count = findings.add_rows(
        late,
        lambda row: Example(
            row["id"], f"is {row['state']}, to be looked at {_time(row['next_check_at'])}"
        ),
    )
    findings.waiting = findings.checked - late_count
    stuck = await databases.fetch("payments", _STUCK, EXAMPLES_MAX)
    findings.add_rows(
        stuck, lambda row: Example(row["id"], f"is {row['state']} without a next look")
    )


_DEAD_LETTERS: Final = """
    SELECT id, message_name, reason, count(*) OVER () AS total
      FROM dead_letter
     WHERE state = 'waiting'
     ORDER BY id DESC
     LIMIT $1
"""


async def check_dead_letters(databases: ServiceDatabases, findings: Findings) -> None:
    """Count what no receiver could handle and no operator has decided about."""
    for service in _WITH_MESSAGES:
        rows = await databases.fetch(service, _DEAD_LETTERS, EXAMPLES_MAX)
        findings.checked += findings.add_rows(rows, partial(_tell_dead_letter, service))


def _tell_dead_letter(service: str, row: asyncpg.Record) -> Example:
    return Example(f"{service} {row['message_name']} {row['id']}", row["reason"])


NO_MESSAGE_LATE: Final = Invariant(
    name="no_message_late",
    sentence="No message waits in an outbox past its time, and none was given up.",
    hint="See that this service's processes run and reach Redis, and that the receiver's worker "
    "runs. A parked one is sent again by: sluice parked-messages resume.",
    check=check_outboxes,
    services=frozenset(_WITH_MESSAGES),
)

NO_PAYMENT_LATE: Final = Invariant(
    name="no_payment_late",
    sentence="Every payment that is not at rest has a time for its next look, and it is kept.",
    hint="See that a worker of payments runs: its reconciler looks at what is due.",
    check=check_payments,
    services=frozenset({"payments"}),
)

DEAD_LETTERS: Final = Invariant(
    name="dead_letters",
    sentence="No message that was impossible to handle waits for an operator.",
    hint="Read the reason with sluice dead-letters, mend the cause, then retry or discard it. "
    "Notices of payments that are not ours end here, rightly.",
    check=check_dead_letters,
    services=frozenset(_WITH_MESSAGES),
    is_warning=True,
)
