"""SQL of plans, as users see and change them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import orjson

from services.scheduler.domain.model import Plan
from services.scheduler.store.rows import plan_in
from shared.database import Connection


class PlanView(NamedTuple):
    """A plan with what decisions do not need."""

    plan: Plan
    name: str
    is_archived: bool
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime


_INSERT: Final = """
    INSERT INTO plan (id, name, product_id, product_name, amount, currency, interval_unit,
                      interval_every, trial_unit, trial_every, gateway, grace, dunning_days,
                      dunning_end, catch_up, catch_up_max, metadata, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $18)
        ON CONFLICT (id) DO NOTHING
"""


async def insert_plan(
    connection: Connection, plan: Plan, name: str, metadata: Mapping[str, str], now: datetime
) -> None:
    """Store a new plan; a repeated request finds it there."""
    await connection.execute(
        _INSERT,
        plan.id,
        name,
        plan.product_id,
        plan.product_name,
        plan.amount.minor_units,
        plan.amount.currency,
        plan.interval.unit,
        plan.interval.every,
        None if plan.trial is None else plan.trial.unit,
        None if plan.trial is None else plan.trial.every,
        plan.gateway,
        *_changeable(plan, metadata),
        now,
    )


def _changeable(plan: Plan, metadata: Mapping[str, str]) -> tuple[object, ...]:
    return (
        plan.grace,
        plan.dunning.days,
        plan.dunning.end,
        plan.catch_up,
        plan.catch_up_max,
        orjson.dumps(metadata).decode(),
    )


_FIND: Final = """
    SELECT id, product_id, product_name, amount, currency, interval_unit, interval_every,
           trial_unit, trial_every, gateway, grace, dunning_days, dunning_end, catch_up,
           catch_up_max, name, is_archived, metadata, created_at, updated_at
      FROM plan
     WHERE id = $1
"""


async def find_plan_view(connection: Connection, plan_id: str) -> PlanView | None:
    """Return a plan, an archived one too."""
    record = await connection.fetchrow(_FIND, plan_id)
    return None if record is None else _view_in(record)


_LOCK: Final = f"{_FIND} FOR NO KEY UPDATE"


async def lock_plan(connection: Connection, plan_id: str) -> PlanView | None:
    """Read a plan and keep others from changing it."""
    record = await connection.fetchrow(_LOCK, plan_id)
    return None if record is None else _view_in(record)


_SAVE: Final = """
    UPDATE plan
       SET name = $2, grace = $3, dunning_days = $4, dunning_end = $5, catch_up = $6,
           catch_up_max = $7, metadata = $8, updated_at = $9
     WHERE id = $1
"""


async def save_plan(connection: Connection, view: PlanView, now: datetime) -> None:
    """Write what may change of a plan."""
    changeable = _changeable(view.plan, view.metadata)
    await connection.execute(_SAVE, view.plan.id, view.name, *changeable, now)


_ARCHIVE: Final = """
    UPDATE plan
       SET is_archived = true, updated_at = $2
     WHERE id = $1
       AND NOT is_archived
"""


async def archive_plan(connection: Connection, plan_id: str, now: datetime) -> None:
    """Let no new subscription have a plan; one that is archived already stays as it is."""
    await connection.execute(_ARCHIVE, plan_id, now)


_LIST: Final = """
    SELECT id, product_id, product_name, amount, currency, interval_unit, interval_every,
           trial_unit, trial_every, gateway, grace, dunning_days, dunning_end, catch_up,
           catch_up_max, name, is_archived, metadata, created_at, updated_at
      FROM plan
     WHERE id < coalesce($2::text, '~')
       AND ($1::boolean OR NOT is_archived)
     ORDER BY id DESC
     LIMIT $3
"""


async def list_plans(
    connection: Connection, *, with_archived: bool, before_id: str | None, limit: int
) -> list[PlanView]:
    """Return plans, newest first."""
    records = await connection.fetch(_LIST, with_archived, before_id, limit)
    return [_view_in(record) for record in records]


def _view_in(record: asyncpg.Record) -> PlanView:
    return PlanView(
        plan=plan_in(record),
        name=record["name"],
        is_archived=record["is_archived"],
        metadata=orjson.loads(record["metadata"]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
    )
