"""A charge that is not resolved is on its way somewhere, and there is one of a period at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import asyncpg

from deploy.local.invariants.findings import Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from services.payments.domain.model import PaymentState
from services.payments.domain.retries import RetryState
from shared.contracts.payments import ChargeFailed, ChargeSucceeded
from shared.contracts.scheduler import CancelCharge, ChargeSubscription, RetryCharge

# A charge of which nothing was heard for a day, and of which no retry has a later time, is told as
# unresolved, however visibly it waits.
_CHARGING: Final = """
    SELECT subscription.id, charging, subscription.retry_at,
           job.updated_at < clock_timestamp() - interval '1 day'
               AND coalesce(job.retry_at < clock_timestamp(), true) AS is_old
      FROM subscription
      LEFT JOIN job ON job.id = 'job_' || substr(charging, 5)
     WHERE subscription.id > $1
       AND charging IS NOT NULL
     ORDER BY subscription.id
     LIMIT $2
"""

_STILL_CHARGING: Final = """
    SELECT id, charging, retry_at
      FROM subscription
     WHERE id = ANY($1::text[])
       AND charging IS NOT NULL
"""

_PAYMENTS: Final = """
    SELECT payment.id, payment.state, retry.state AS retry_state
      FROM payment
      LEFT JOIN retry ON retry.payment_id = payment.id
     WHERE payment.id = ANY($1::text[])
"""

_ON_ITS_WAY: Final = """
    SELECT payload ->> 'paymentId' AS payment_id
      FROM outbox
     WHERE message_name = ANY($1::text[])
       AND payload ->> 'paymentId' = ANY($2::text[])
"""

_GIVEN_UP: Final = """
    SELECT payload::json ->> 'paymentId' AS payment_id
      FROM dead_letter
     WHERE message_name = ANY($1::text[])
       AND payload::json ->> 'paymentId' = ANY($2::text[])
"""

_LIVE: Final = """
    SELECT id, subscription_id
      FROM payment
     WHERE subscription_id IN (
               SELECT subscription_id
                 FROM payment
                WHERE subscription_id IS NOT NULL
                  AND state IN ('created', 'pending', 'processing', 'unknown', 'retry_scheduled')
                GROUP BY subscription_id
               HAVING count(*) > 1)
       AND state IN ('created', 'pending', 'processing', 'unknown', 'retry_scheduled')
"""

_PERIODS: Final = """
    SELECT subscription_id, period_start, array_agg(payment_id ORDER BY payment_id) AS payments
      FROM job
     WHERE id = ANY($1::text[])
     GROUP BY subscription_id, period_start
    HAVING count(*) > 1
     ORDER BY subscription_id, period_start
"""

_AT_REST: Final = frozenset(
    {
        *(PaymentState.SUCCEEDED, PaymentState.FAILED, PaymentState.CANCELLED),
        *(PaymentState.PARTIALLY_REFUNDED, PaymentState.REFUNDED, PaymentState.DISPUTED),
    }
)

_OUTCOMES: Final = (ChargeSucceeded.name, ChargeFailed.name)
_ORDERS: Final = (ChargeSubscription.name, RetryCharge.name, CancelCharge.name)


async def check_charges(databases: ServiceDatabases, findings: Findings) -> None:
    """Find charges whose end nobody will tell, and periods that are charged twice at a time."""
    async for rows in databases.pages("scheduler", _CHARGING, after=[""]):
        findings.checked += len(rows)
        if old := sum(bool(row["is_old"]) for row in rows):
            findings.classes["unresolved for over a day"] += old
        await _check_page(databases, findings, rows)
    await _check_live(databases, findings)


async def _check_page(
    databases: ServiceDatabases, findings: Findings, rows: Sequence[asyncpg.Record]
) -> None:
    suspects = await _silent(databases, {row["id"]: row for row in rows})
    findings.waiting += len(rows) - len(suspects)
    if not suspects:
        return
    # Meanwhile a receipt may have come: then the subscription waits for something else.
    again = await databases.fetch("scheduler", _STILL_CHARGING, list(suspects))
    still = {
        row["id"]: row
        for row in again
        if (row["charging"], row["retry_at"])
        == (suspects[row["id"]]["charging"], suspects[row["id"]]["retry_at"])
    }
    silent = await _silent(databases, still)
    if not silent:
        return
    ids = [row["charging"] for row in silent.values()]
    states = await _states(databases, ids)
    given_up = await _named(databases, "scheduler", _GIVEN_UP, _OUTCOMES, ids)
    given_up |= await _named(databases, "payments", _GIVEN_UP, _ORDERS, ids)
    for subscription_id, row in silent.items():
        problem = f"is charging {row['charging']}, {_problem(states.get(row['charging']))}, and "
        problem += "its message is a dead letter" if row["charging"] in given_up else _NO_MESSAGE
        findings.add_violation(subscription_id, problem)


_NO_MESSAGE: Final = "no message is on its way"


async def _silent(
    databases: ServiceDatabases, charging: Mapping[str, asyncpg.Record]
) -> dict[str, asyncpg.Record]:
    """Return the subscriptions that wait for a payment of which nothing will be heard.

    Messages are looked for first: what was told before that has had its effect when the payments
    are read, so that a suspect is one unless the subscription has heard of it by now.
    """
    ids = [row["charging"] for row in charging.values()]
    told = await _named(databases, "scheduler", _ON_ITS_WAY, _ORDERS, ids)
    states = await _states(databases, ids)
    told |= await _named(databases, "payments", _ON_ITS_WAY, _OUTCOMES, ids)
    return {
        subscription_id: row
        for subscription_id, row in charging.items()
        if row["charging"] not in told and _is_over(states.get(row["charging"]), row["retry_at"])
    }


def _is_over(payment: asyncpg.Record | None, retry_at: object) -> bool:
    if payment is None or payment["state"] in _AT_REST:
        return True
    return payment["retry_state"] == RetryState.WAITING and retry_at is None


def _problem(payment: asyncpg.Record | None) -> str:
    if payment is None:
        return "which payments does not know"
    if payment["state"] in _AT_REST:
        return f"which is {payment['state']}"
    return "whose retry waits for an order"


async def _states(databases: ServiceDatabases, ids: list[str]) -> dict[str, asyncpg.Record]:
    return {row["id"]: row for row in await databases.fetch("payments", _PAYMENTS, ids)}


async def _named(
    databases: ServiceDatabases,
    service: str,
    query: str,
    messages: Sequence[str],
    ids: Iterable[str],
) -> set[str]:
    rows = await databases.fetch(service, query, messages, list(ids))
    return {row["payment_id"] for row in rows}


async def _check_live(databases: ServiceDatabases, findings: Findings) -> None:
    """Find periods of which two payments can still be paid.

    A period that was given up may be one, beside the present period: so periods count.
    """
    live = await databases.fetch("payments", _LIVE)
    if not live:
        return
    jobs = [f"job_{row['id'][4:]}" for row in live]
    for row in await databases.fetch("scheduler", _PERIODS, jobs):
        findings.add_violation(
            row["subscription_id"],
            f"charges its period of {row['period_start']:%Y-%m-%d %H:%M} by "
            f"{' and '.join(row['payments'])} at a time",
        )


CHARGES_ARE_RESOLVED: Final = Invariant(
    name="charges_are_resolved",
    sentence="A charge of a subscription that is not resolved is in somebody's hands, and there "
    "is one of a period at a time.",
    hint="Read `sluice explain` of the payment; a dead letter is handled again with sluice "
    "dead-letters retry: docs/runbooks/charge-unresolved.md.",
    check=check_charges,
    services=frozenset({"scheduler", "payments"}),
)
