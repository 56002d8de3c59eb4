"""Subscriptions as the scheduler would have stored them, with what payments has of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.scheduler.domain.periods import Interval, IntervalUnit, Rhythm, boundary
from tests.integration.local.stored_payments import AMOUNT, Stored, Tables, new_names

#: The last day of a month in a zone with daylight saving: nothing that adds up days gets it right.
RHYTHM = Rhythm(
    datetime(2026, 1, 31, 8, 30, tzinfo=UTC), "Europe/Paris", Interval(IntervalUnit.MONTH, 1)
)

_PLAN = """
    INSERT INTO plan (id, product_id, product_name, amount, currency, interval_unit,
                      interval_every, gateway, grace, dunning_days, dunning_end, catch_up,
                      catch_up_max, name, created_at, updated_at)
    VALUES ('pln_1', 'course-1', 'Course', $1, 'BDT', 'month', 1, 'stripe', '3 days', '{1}',
            'cancel', 'current', 1, 'Monthly', $2, $2)
        ON CONFLICT DO NOTHING
"""

_SUBSCRIPTION = """
    INSERT INTO subscription (id, customer_id, plan_id, state, reason, priority, auto_pay, zone,
                              anchor, start_at, periods_opened, period_number, period_start,
                              period_end, due_at, has_access, created_at, updated_at)
    VALUES ($1, $2, 'pln_1', 'active', 'paid', 'normal', true, $3, $4, $4, $5 + 1, $5, $6, $7, $8,
            true, $4, $4)
"""

CYCLE = """
    INSERT INTO billing_cycle (subscription_id, period_start, period_end, number, state, plan_id,
                               amount, currency, payment_id, opened_at, paid_at)
    VALUES ($1, $2, $3, $4, 'paid', 'pln_1', $5, 'BDT', $6, $2, $2)
"""

JOB = """
    INSERT INTO job (id, subscription_id, payment_id, period_start, charge_number, occasion, status,
                     progress, plan_id, gateway, amount, currency, ordered_at, finished_at)
    VALUES ('job_' || substr($2, 5), $1, $2, $3, 1, 'period', 'completed', 100, 'pln_1', 'stripe',
            $4, 'BDT', $3, $3)
"""


@dataclass(frozen=True)
class Subscribed:
    """A subscription of three paid periods, and its payments."""

    id: str
    payments: list[Stored]

    @property
    def last(self) -> str:
        return self.payments[-1].payment_id


async def subscribe(tables: Tables) -> Subscribed:
    await tables.execute("scheduler", _PLAN, AMOUNT, RHYTHM.anchor)
    names = new_names()
    id_ = f"sub_{names.payment_id[4:]}"
    start, end = boundary(RHYTHM, 2), boundary(RHYTHM, 3)
    due_at = datetime.now(UTC) + timedelta(days=3)
    await tables.execute(
        "scheduler",
        _SUBSCRIPTION,
        *(id_, names.customer_id, RHYTHM.zone, RHYTHM.anchor, 2, start, end, due_at),
    )
    payments = [await paid(tables, id_, number) for number in range(3)]
    return Subscribed(id_, payments)


async def paid(tables: Tables, subscription_id: str, number: int) -> Stored:
    names = await charged(tables, subscription_id)
    start, end = boundary(RHYTHM, number), boundary(RHYTHM, number + 1)
    row = (subscription_id, start, end, number, AMOUNT, names.payment_id)
    await tables.execute("scheduler", CYCLE, *row)
    await tables.execute("scheduler", JOB, subscription_id, names.payment_id, start, AMOUNT)
    return names


async def charged(tables: Tables, subscription_id: str) -> Stored:
    """Store a payment that was taken for a subscription."""
    names = new_names()
    await tables.payment(names, "succeeded", bank_id=names.bank_id)
    await tables.history(names, ["created", "pending", "succeeded"])
    await tables.charge(names)
    await tables.execute(
        "payments",
        "UPDATE payment SET subscription_id = $2 WHERE id = $1",
        names.payment_id,
        subscription_id,
    )
    return names
