"""Many subscriptions at once, written straight into the scheduler's tables, and what came of them.

Each is in its first period, which ends when the next one is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import asyncpg

from shared.database import Connection
from shared.identifiers import first_id_at

#: Characters of an id that tell its time: the prefix, and ten of the ULID.
_TIME_CHARACTERS: Final = 14

AnyConnection: TypeAlias = "asyncpg.Connection[Any] | Connection"

PLAN_ID: Final = "pln_00000000000000000000000001"

_PLAN: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "name": "Course",
        "product_id": "course_1",
        "product_name": "Course",
        "amount": 1_200,
        "currency": "USD",
        "interval_unit": "month",
        "interval_every": 1,
        "gateway": "stripe",
        "grace": timedelta(days=3),
        "dunning_days": [1, 3, 7],
        "dunning_end": "cancel",
        "catch_up": "current",
        "catch_up_max": 12,
    }
)

_INSERT_PLAN: Final = """
    INSERT INTO plan (id, name, product_id, product_name, amount, currency, interval_unit,
                      interval_every, gateway, grace, dunning_days, dunning_end, catch_up,
                      catch_up_max, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, now(), now())
"""

_INSERT_SUBSCRIPTIONS: Final = """
    INSERT INTO subscription (id, customer_id, plan_id, payment_method_id, state, reason, priority,
                              auto_pay, zone, anchor, start_at, periods_opened, period_number,
                              period_start, period_end, charges_made, grace_until, has_access,
                              access_sequence, due_at, created_at, updated_at, version)
    SELECT $1::text || lpad(n::text, 16, '0'), 'cus_' || n, $2, 'pmt_' || lpad(n::text, 26, '0'),
           'active', 'paid', $3, true, (ARRAY['UTC', 'Asia/Dhaka', 'Africa/Douala'])[1 + n % 3],
           began_at, began_at, 1, 0, began_at, due_at, 1, began_at + interval '3 days', true, 1,
           due_at, $7, $7, 2
      FROM (SELECT n, due_at, due_at - $6::text::interval AS began_at
              FROM generate_series($8::integer, $8::integer + $9::integer - 1) AS n
             CROSS JOIN LATERAL (
                       SELECT $4::timestamptz + n * $5::interval + n % $10::integer * $11::interval
                           AS due_at) AS due) AS new
"""


async def insert_plan(connection: AnyConnection, plan_id: str = PLAN_ID, **changes: Any) -> str:
    """Insert a plan, by default of 12 USD a month, and return its id."""
    await connection.execute(_INSERT_PLAN, plan_id, *{**_PLAN, **changes}.values())
    return plan_id


@dataclass(frozen=True, slots=True)
class Many:
    """When subscriptions are due: the n-th is due `apart` after the one before it.

    Of `groups`, dealt out in turn, each is due `group_apart` after the one before it.
    """

    first_due_at: datetime
    made_at: datetime
    apart: timedelta = timedelta()
    groups: int = 1
    group_apart: timedelta = timedelta()
    #: The interval of their plan, in PostgreSQL's words.
    period: str = "1 month"
    priority: str = "medium"
    plan_id: str = PLAN_ID


async def insert_subscriptions(
    connection: AnyConnection, many: Many, first: int, count: int
) -> None:
    """Insert subscriptions number `first` and following."""
    await connection.execute(
        _INSERT_SUBSCRIPTIONS,
        first_id_at("sub", many.made_at)[:_TIME_CHARACTERS],
        many.plan_id,
        many.priority,
        many.first_due_at,
        many.apart,
        many.period,
        many.made_at,
        first,
        count,
        many.groups,
        many.group_apart,
        timeout=600,
    )
