"""SQL of jobs, as far as what became of charges needs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import asyncpg

from services.scheduler.domain.model import (
    RECORDED,
    Charged,
    Cycle,
    CycleState,
    Job,
    JobStatus,
    job_id,
)
from services.scheduler.store.rows import job_in
from shared.database import Connection
from shared.identifiers import created_at


class Billed(NamedTuple):
    """A charge, the billing it is for, and the plan by which that is billed."""

    charged: Charged
    plan_id: str


_JOB_COLUMNS: Final = ", ".join(f"job.{name}" for name in Job._fields)
_CYCLE_FIELDS: Final = tuple(name for name in Cycle._fields if name != "is_new")
_CYCLE_COLUMNS: Final = ", ".join(f"cycle.{name} AS cycle_{name}" for name in _CYCLE_FIELDS)

_FIND: Final = f"""
    SELECT {_JOB_COLUMNS}, {_CYCLE_COLUMNS}, cycle.plan_id AS cycle_plan_id
      FROM unnest($1::text[], $2::text[]) AS wanted (id, subscription_id)
      JOIN job USING (id, subscription_id)
      JOIN billing_cycle AS cycle
        ON cycle.subscription_id = job.subscription_id
       AND cycle.period_start = job.period_start
"""  # noqa: S608 - made of the field names of classes


async def find_billed(
    connection: Connection, wanted: Sequence[tuple[str, str]]
) -> dict[str, Billed]:
    """Return charges by their payments, each wanted as a payment and its subscription.

    The caller has locked the subscriptions. Jobs that have left are not among them.
    """
    pairs = sorted({(job_id(payment_id), subscription) for payment_id, subscription in wanted})
    records = await connection.fetch(
        _FIND, [id_ for id_, _ in pairs], [subscription for _, subscription in pairs]
    )
    return {
        record["payment_id"]: Billed(
            Charged(job_in(record), _cycle_of(record)), record["cycle_plan_id"]
        )
        for record in records
    }


def _cycle_of(record: asyncpg.Record) -> Cycle:
    fields = {name: record[f"cycle_{name}"] for name in _CYCLE_FIELDS}
    fields["state"] = CycleState(fields["state"])
    return Cycle(**fields)


# The story of a subscription outlives its jobs, and names the payment in each of its lines.
_FIND_GONE: Final = f"""
    WITH story AS (
        SELECT min(id) AS first_id, min(period_start) AS period_start,
               bool_or(event IN ('paid', 'paid_late', 'paid_twice', 'paid_after_end')) AS is_paid
          FROM subscription_history
         WHERE subscription_id = $1
           AND payment_id = $2
    )
    SELECT story.is_paid, {_CYCLE_COLUMNS}, cycle.plan_id AS cycle_plan_id,
           (SELECT count(DISTINCT payment_id)
              FROM subscription_history AS line
             WHERE line.subscription_id = $1
               AND line.period_start = story.period_start
               AND line.id <= story.first_id) AS charge_number
      FROM story
      JOIN billing_cycle AS cycle
        ON cycle.subscription_id = $1
       AND cycle.period_start = story.period_start
"""  # noqa: S608 - made of the field names of a class


async def find_gone(connection: Connection, payment_id: str, subscription_id: str) -> Billed | None:
    """Return a charge whose job has left as it must have been: it had ended.

    What it was asked for is read from the story of its subscription; None when no such payment was
    ever ordered. Its counts of tries and its times are not known any more.
    """
    record = await connection.fetchrow(_FIND_GONE, subscription_id, payment_id)
    if record is None:
        return None
    cycle = _cycle_of(record)
    job = Job(
        id=job_id(payment_id),
        subscription_id=subscription_id,
        payment_id=payment_id,
        period_start=cycle.period_start,
        charge_number=record["charge_number"],
        occasion="period",
        status=JobStatus.COMPLETED if record["is_paid"] else JobStatus.FAILED,
        progress=RECORDED,
        attempts_made=0,
        failed_reason=None,
        gateway_reference=None,
        retry_at=None,
        ordered_at=created_at(payment_id),
        finished_at=created_at(payment_id),
    )
    return Billed(Charged(job, cycle), record["cycle_plan_id"])
