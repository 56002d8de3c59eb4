"""SQL of subscriptions, as far as decisions about them need it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import asyncpg
import orjson

from services.scheduler.domain.model import Plan, Subscription
from services.scheduler.store.rows import plan_in, subscription_in
from shared.database import Connection

#: What a decision reads, in the order of the fields.
COLUMNS: Final = ", ".join(Subscription._fields)

_LOCK: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE id = ANY($1::text[])
     ORDER BY id
       FOR NO KEY UPDATE
"""  # noqa: S608 - made of the field names of a class


async def lock_subscriptions(
    connection: Connection, ids: Collection[str]
) -> dict[str, Subscription]:
    """Read subscriptions and keep others from changing them, in one order for all."""
    records = await connection.fetch(_LOCK, sorted(set(ids)))
    return {record["id"]: subscription_in(record) for record in records}


_LOCK_CHARGED: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE customer_id = ANY($1::text[])
       AND payment_method_id = ANY($2::text[])
       AND state NOT IN ('cancelled', 'ended')
     ORDER BY id
       FOR NO KEY UPDATE
"""  # noqa: S608 - made of the field names of a class


async def lock_charged_by(
    connection: Connection, customer_ids: Collection[str], method_ids: Collection[str]
) -> list[Subscription]:
    """Read what is charged by some means of payment of some customers, and keep it as it is."""
    records = await connection.fetch(_LOCK_CHARGED, sorted(customer_ids), sorted(method_ids))
    return [subscription_in(record) for record in records]


_PLANS: Final = """
    SELECT id, product_id, product_name, amount, currency, interval_unit, interval_every,
           trial_unit, trial_every, gateway, grace, dunning_days, dunning_end, catch_up,
           catch_up_max
      FROM plan
     WHERE id = ANY($1::text[])
"""


async def find_plans(connection: Connection, ids: Collection[str]) -> dict[str, Plan]:
    """Return plans by their ids."""
    records = await connection.fetch(_PLANS, sorted(set(ids)))
    return {record["id"]: plan_in(record) for record in records}


def plan_ids(subscriptions: Collection[Subscription]) -> set[str]:
    """Return the plans that decisions about subscriptions need."""
    found = {each.plan_id for each in subscriptions}
    return found | {each.next_plan_id for each in subscriptions if each.next_plan_id is not None}


_INSERT: Final = f"""
    INSERT INTO subscription ({COLUMNS}, metadata, created_at, updated_at)
    SELECT {COLUMNS}, $2, $3, $3
      FROM jsonb_populate_record(NULL::subscription, $1)
        ON CONFLICT (id) DO NOTHING
 RETURNING id
"""  # noqa: S608 - made of the field names of a class


async def insert_subscription(
    connection: Connection, new: Subscription, metadata: dict[str, str], created_at: object
) -> bool:
    """Store a new subscription and tell whether it is new: a repeated request finds it there."""
    row = orjson.dumps(new._asdict()).decode()
    inserted = await connection.fetchval(_INSERT, row, orjson.dumps(metadata).decode(), created_at)
    return inserted is not None


def subscriptions_in(records: Sequence[asyncpg.Record]) -> list[Subscription]:
    """Return the subscriptions of rows."""
    return [subscription_in(record) for record in records]
