"""The SQL statements that read subscriptions for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg
import orjson

from services.scheduler.domain.model import Cycle, Plan, Subscription, SubscriptionState
from services.scheduler.store.rows import cycle_in, subscription_in
from services.scheduler.store.subscriptions import COLUMNS, find_plans, plan_ids
from shared.database import Connection
from shared.money import Money


class SubscriptionView(NamedTuple):
    """A subscription with what decisions do not need."""

    subscription: Subscription
    plan: Plan
    metadata: Mapping[str, str]
    #: Why it is set aside, if it is.
    problem: str | None
    created_at: datetime
    updated_at: datetime


_SELECT: Final = f"""
    SELECT {COLUMNS}, metadata, problem, created_at, updated_at
      FROM subscription
"""  # noqa: S608 - made of the field names of a class

_FIND: Final = f"{_SELECT} WHERE id = $1"


async def find_view(connection: Connection, subscription_id: str) -> SubscriptionView | None:
    """Return a subscription as the API shows it."""
    records = await connection.fetch(_FIND, subscription_id)
    views = await _views(connection, records)
    return views[0] if views else None


_PAGE: Final = """
       AND ($1::text IS NULL OR customer_id = $1)
       AND ($2::text IS NULL OR plan_id = $2)
       AND ($3::text IS NULL OR state = $3)
       AND id < coalesce($4::text, '~')
     ORDER BY id DESC
     LIMIT $5
"""

# One statement for each index that can help: a plan is made once for all values, and an index
# serves no condition that may be switched off.
_LIST_ALL: Final = f"{_SELECT} WHERE true {_PAGE}"
_LIST_OF_CUSTOMER: Final = f"{_SELECT} WHERE customer_id = $1 {_PAGE}"
_LIST_OF_PLAN: Final = f"{_SELECT} WHERE plan_id = $2 {_PAGE}"
_LIST_IN_STATE: Final = f"{_SELECT} WHERE state = $3 AND state <> 'active' {_PAGE}"
_LIST_SET_ASIDE: Final = f"{_SELECT} WHERE problem IS NOT NULL {_PAGE}"
_LIST_ASKING: Final = f"{_SELECT} WHERE asks_to_catch_up {_PAGE}"

_OF_ATTENTION: Final = {"set_aside": _LIST_SET_ASIDE, "catch_up_asked": _LIST_ASKING}


async def list_views(
    connection: Connection,
    *,
    customer_id: str | None,
    plan_id: str | None,
    state: SubscriptionState | None,
    attention: str | None,
    before_id: str | None,
    limit: int,
) -> list[SubscriptionView]:
    """Return subscriptions, newest first, that match every filter given.

    `attention` is `set_aside` or `catch_up_asked`: what a person must look at.
    """
    statement = _LIST_ALL
    if attention is not None:
        statement = _OF_ATTENTION[attention]
    elif customer_id is not None:
        statement = _LIST_OF_CUSTOMER
    elif plan_id is not None:
        statement = _LIST_OF_PLAN
    elif state not in {None, SubscriptionState.ACTIVE}:
        statement = _LIST_IN_STATE
    records = await connection.fetch(statement, customer_id, plan_id, state, before_id, limit)
    return await _views(connection, records)


async def _views(
    connection: Connection, records: Sequence[asyncpg.Record]
) -> list[SubscriptionView]:
    found = [subscription_in(record) for record in records]
    plans = await find_plans(connection, plan_ids(found))
    return [
        SubscriptionView(
            subscription=each,
            plan=plans[each.plan_id],
            metadata=orjson.loads(record["metadata"]),
            problem=record["problem"],
            created_at=record["created_at"],
            updated_at=record["updated_at"],
        )
        for each, record in zip(found, records, strict=True)
    ]


class CycleView(NamedTuple):
    """The billing of a period as the API shows it."""

    cycle: Cycle
    plan_id: str
    amount: Money
    opened_at: datetime


_LIST_CYCLES: Final = """
    SELECT period_start, period_end, number, periods, state, reason, payment_id, paid_at, plan_id,
           amount, currency, opened_at
      FROM billing_cycle
     WHERE subscription_id = $1
       AND period_start < coalesce($2, 'infinity'::timestamptz)
     ORDER BY period_start DESC
     LIMIT $3
"""


async def list_cycles(
    connection: Connection, subscription_id: str, *, before: datetime | None, limit: int
) -> list[CycleView]:
    """Return the billing of periods, the last one first."""
    records = await connection.fetch(_LIST_CYCLES, subscription_id, before, limit)
    return [
        CycleView(
            cycle_in(record),
            record["plan_id"],
            Money(record["amount"], record["currency"]),
            record["opened_at"],
        )
        for record in records
    ]


class Event(NamedTuple):
    """One thing that happened to a subscription; `at` is in its own time."""

    id: int
    at: datetime
    written_at: datetime
    event: str
    state: str
    reason: str
    period_start: datetime
    payment_id: str | None
    actor: str | None


_LIST_HISTORY: Final = """
    SELECT id, at, written_at, event, state, reason, period_start, payment_id, actor
      FROM subscription_history
     WHERE subscription_id = $1
       AND id < coalesce($2::bigint, 9223372036854775807)
     ORDER BY id DESC
     LIMIT $3
"""


async def list_history(
    connection: Connection, subscription_id: str, *, before_id: int | None, limit: int
) -> list[Event]:
    """Return what happened to a subscription, the latest first."""
    records = await connection.fetch(_LIST_HISTORY, subscription_id, before_id, limit)
    return [Event(*tuple(record)) for record in records]


class Carried(NamedTuple):
    """What came of a request that was carried out."""

    payment_id: str | None


_FIND_REQUEST: Final = """
    SELECT payment_id
      FROM subscription_history
     WHERE subscription_id = $1
       AND request_id = $2
     ORDER BY id DESC
     LIMIT 1
"""


async def find_request(
    connection: Connection, subscription_id: str, request_id: str
) -> Carried | None:
    """Tell whether a request was carried out before; the caller has locked the subscription."""
    record = await connection.fetchrow(_FIND_REQUEST, subscription_id, request_id)
    return None if record is None else Carried(record["payment_id"])


_SAVE_METADATA: Final = """
    UPDATE subscription
       SET metadata = $2, updated_at = clock_timestamp()
     WHERE id = $1
"""


async def save_metadata(
    connection: Connection, subscription_id: str, metadata: Mapping[str, str]
) -> None:
    """Write what users keep beside a subscription; nothing decides by it."""
    await connection.execute(_SAVE_METADATA, subscription_id, orjson.dumps(metadata).decode())
