"""How rows become the nouns of the domain."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

import asyncpg

from services.scheduler.domain.model import (
    CatchUpPolicy,
    Cycle,
    CycleState,
    Dunning,
    DunningEnd,
    Job,
    JobStatus,
    Plan,
    Subscription,
    SubscriptionState,
)
from services.scheduler.domain.periods import Interval, IntervalUnit
from shared.contracts.priorities import Priority
from shared.money import Money

#: Looked up in place of calling the enumerations, which costs a microsecond each.
_STATES: Final = {str(state): state for state in SubscriptionState}
_PRIORITIES: Final = {str(priority): priority for priority in Priority}


def plan_in(record: asyncpg.Record) -> Plan:
    """Return the plan of a row."""
    trial = None
    if record["trial_unit"] is not None:
        trial = Interval(IntervalUnit(record["trial_unit"]), record["trial_every"])
    return Plan(
        id=record["id"],
        product_id=record["product_id"],
        product_name=record["product_name"],
        amount=Money(record["amount"], record["currency"]),
        interval=Interval(IntervalUnit(record["interval_unit"]), record["interval_every"]),
        trial=trial,
        gateway=record["gateway"],
        grace=record["grace"],
        dunning=Dunning(tuple(record["dunning_days"]), DunningEnd(record["dunning_end"])),
        catch_up=CatchUpPolicy(record["catch_up"]),
        catch_up_max=record["catch_up_max"],
    )


#: Takes the fields of a subscription from a row, whatever other columns that has.
_subscription_fields: Final = itemgetter(*Subscription._fields)
_STATE: Final = Subscription._fields.index("state")
_PRIORITY: Final = Subscription._fields.index("priority")


def subscription_in(record: asyncpg.Record) -> Subscription:
    """Return the subscription of a row that has its columns, whatever others it has."""
    fields = list(_subscription_fields(record))
    fields[_STATE] = _STATES[fields[_STATE]]
    fields[_PRIORITY] = _PRIORITIES[fields[_PRIORITY]]
    return Subscription._make(fields)


def cycle_in(record: asyncpg.Record) -> Cycle:
    """Return the billing of a period."""
    return Cycle(
        period_start=record["period_start"],
        period_end=record["period_end"],
        number=record["number"],
        periods=record["periods"],
        state=CycleState(record["state"]),
        reason=record["reason"],
        payment_id=record["payment_id"],
        paid_at=record["paid_at"],
    )


def job_in(record: asyncpg.Record) -> Job:
    """Return the job of a row that has its columns, whatever others it has."""
    fields = {name: record[name] for name in Job._fields}
    fields["status"] = JobStatus(fields["status"])
    return Job(**fields)
