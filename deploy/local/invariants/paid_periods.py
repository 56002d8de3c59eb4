"""A period of a subscription is paid by one payment, and each payment pays one period."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg

from deploy.local.invariants.findings import Findings, Invariant
from deploy.local.invariants.periods import LONG_AGO
from deploy.local.service_databases import ServiceDatabases
from services.payments.domain.model import PaymentState
from shared.contracts.payments import ChargeSucceeded

_PAID_PERIODS: Final = """
    SELECT subscription_id, period_start, payment_id, amount, currency
      FROM billing_cycle
     WHERE (subscription_id, period_start) > ($1::text, $2::timestamptz)
       AND state = 'paid'
     ORDER BY subscription_id, period_start
     LIMIT $3
"""

# What was held and then given back was never paid. A refund that came back may put a payment on
# hold that had succeeded.
_TAKEN: Final = """
    SELECT id, subscription_id, state, amount, currency
      FROM payment
     WHERE id > $1
       AND subscription_id IS NOT NULL
       AND (state IN ('succeeded', 'partially_refunded')
            OR (state IN ('refunded', 'disputed', 'on_hold')
                AND EXISTS (
                        SELECT
                          FROM payment_history
                         WHERE payment_id = payment.id
                           AND payment_history.state = 'succeeded')))
     ORDER BY id
     LIMIT $2
"""

_PAYMENTS: Final = """
    SELECT id, subscription_id, state, amount, currency
      FROM payment
     WHERE id = ANY($1::text[])
"""

_PAYING: Final = """
    SELECT payment_id
      FROM billing_cycle
     WHERE subscription_id = ANY($1::text[])
       AND payment_id = ANY($2::text[])
       AND state = 'paid'
"""

_SURPLUS: Final = """
    SELECT payment_id
      FROM subscription_history
     WHERE subscription_id = ANY($1::text[])
       AND payment_id = ANY($2::text[])
       AND event = 'paid_twice'
"""

_ON_ITS_WAY: Final = """
    SELECT payload ->> 'paymentId' AS payment_id
      FROM outbox
     WHERE message_name = $1
       AND payload ->> 'paymentId' = ANY($2::text[])
"""

_GIVEN_UP: Final = """
    SELECT payload::json ->> 'paymentId' AS payment_id
      FROM dead_letter
     WHERE message_name = $1
       AND payload::json ->> 'paymentId' = ANY($2::text[])
"""

#: In these states the money was there; whoever has it back now has not paid twice.
_TAKEN_STATES: Final = frozenset(
    {
        PaymentState.SUCCEEDED,
        PaymentState.PARTIALLY_REFUNDED,
        PaymentState.REFUNDED,
        PaymentState.DISPUTED,
        PaymentState.ON_HOLD,
    }
)
_GIVEN_BACK: Final = frozenset({PaymentState.REFUNDED, PaymentState.DISPUTED})


async def check_paid(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare paid periods with the payments of subscriptions, from both sides."""
    pages = databases.pages("scheduler", _PAID_PERIODS, after=("", LONG_AGO), key_length=2)
    async for page in pages:
        findings.checked += len(page)
        await _check_periods(databases, findings, page)
    async for page in databases.pages("payments", _TAKEN, after=[""]):
        findings.checked += len(page)
        await _check_payments(databases, findings, {row["id"]: row for row in page})


async def _check_periods(
    databases: ServiceDatabases, findings: Findings, periods: Sequence[asyncpg.Record]
) -> None:
    ids = [row["payment_id"] for row in periods]
    payments = {row["id"]: row for row in await databases.fetch("payments", _PAYMENTS, ids)}
    for period in periods:
        payment = payments.get(period["payment_id"])
        if (problem := _problem(period, payment)) is not None:
            start = f"{period['period_start']:%Y-%m-%d %H:%M}"
            findings.add_violation(
                period["subscription_id"],
                f"has paid its period of {start} with {period['payment_id']}, {problem}",
            )


def _problem(period: asyncpg.Record, payment: asyncpg.Record | None) -> str | None:
    if payment is None:
        return "which payments does not know"
    if payment["subscription_id"] != period["subscription_id"]:
        return f"which is of {payment['subscription_id']}"
    if payment["state"] not in _TAKEN_STATES:
        return f"which is {payment['state']}"
    if (payment["amount"], payment["currency"]) != (period["amount"], period["currency"]):
        return f"which took {payment['amount']} {payment['currency']}"
    return None


async def _check_payments(
    databases: ServiceDatabases, findings: Findings, payments: Mapping[str, asyncpg.Record]
) -> None:
    suspects = payments.keys() - await _known(databases, payments, _PAYING)
    if not suspects:
        return
    announced = await _named(databases, "payments", _ON_ITS_WAY, suspects)
    findings.waiting += len(announced)
    # A receipt may have come between the two looks: then the period is paid by now.
    silent = {id_: payments[id_] for id_ in suspects - announced}
    without = silent.keys() - await _known(databases, silent, _PAYING)
    surplus = await _known(databases, {id_: payments[id_] for id_ in without}, _SURPLUS)
    given_up = await _named(databases, "scheduler", _GIVEN_UP, without)
    for id_ in sorted(without):
        subscription_id, state = payments[id_]["subscription_id"], payments[id_]["state"]
        if id_ in surplus:
            findings.classes["paid twice"] += 1
            if state in _GIVEN_BACK:
                findings.classes["given back"] += 1
                continue
            problem = f"has paid a period of {subscription_id} that was paid before"
        elif id_ in given_up:
            problem = f"has paid for {subscription_id}, and its message is a dead letter"
        else:
            problem = f"has paid for {subscription_id}, which knows nothing of it"
        findings.add_violation(id_, problem)


async def _known(
    databases: ServiceDatabases, payments: Mapping[str, asyncpg.Record], query: str
) -> set[str]:
    """Return those of which the scheduler has what a query looks for."""
    if not payments:
        return set()
    subscriptions = list({row["subscription_id"] for row in payments.values()})
    rows = await databases.fetch("scheduler", query, subscriptions, list(payments))
    return {row["payment_id"] for row in rows}


async def _named(
    databases: ServiceDatabases, service: str, query: str, ids: Iterable[Any]
) -> set[str]:
    """Return those that a message of a success is about."""
    rows = await databases.fetch(service, query, ChargeSucceeded.name, list(ids))
    return {row["payment_id"] for row in rows}


PERIODS_PAID_ONCE: Final = Invariant(
    name="periods_paid_once",
    sentence="Every paid period of a subscription has its own payment of just its amount, and "
    "every payment of a subscription its period.",
    hint="What was paid twice is given back with POST /api/payments/{id}/refunds; a dead letter "
    "is handled again with sluice dead-letters --service scheduler retry.",
    check=check_paid,
    services=frozenset({"scheduler", "payments"}),
)
