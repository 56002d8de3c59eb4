"""SQL of test clocks, and of what is due on them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from services.scheduler.domain.clocks import VirtualClock
from services.scheduler.domain.model import Subscription
from services.scheduler.store.rows import subscription_in
from services.scheduler.store.subscriptions import COLUMNS
from shared.database import Connection
from shared.errors import NotFoundError

_COLUMNS: Final = ", ".join(VirtualClock._fields)


def _clock_in(record: asyncpg.Record) -> VirtualClock:
    return VirtualClock(*tuple(record))


_INSERT: Final = """
    INSERT INTO test_clock (id, name, now, created_at)
    VALUES ($1, $2, $3, $4)
        ON CONFLICT (id) DO NOTHING
"""


async def insert_clock(
    connection: Connection, clock_id: str, name: str, now: datetime, created_at: datetime
) -> None:
    """Store a new clock; a repeated request finds it there."""
    await connection.execute(_INSERT, clock_id, name, now, created_at)


_FIND: Final = f"""
    SELECT {_COLUMNS}
      FROM test_clock
     WHERE id = $1
"""  # noqa: S608 - made of the field names of a class


async def find_clock(connection: Connection, clock_id: str) -> VirtualClock | None:
    """Return a clock, also one that was removed."""
    record = await connection.fetchrow(_FIND, clock_id)
    return None if record is None else _clock_in(record)


_LOCK: Final = f"{_FIND} FOR NO KEY UPDATE"


async def lock_clock(connection: Connection, clock_id: str) -> VirtualClock:
    """Read a clock and keep others from changing it.

    Raises:
        NotFoundError: there is none.
    """
    record = await connection.fetchrow(_LOCK, clock_id)
    if record is None:
        raise NotFoundError(f"no test clock {clock_id}")
    return _clock_in(record)


_LIST: Final = f"""
    SELECT {_COLUMNS}
      FROM test_clock
     WHERE ($1::text IS NULL OR id < $1)
     ORDER BY id DESC
     LIMIT $2
"""  # noqa: S608 - made of the field names of a class


async def list_clocks(
    connection: Connection, before_id: str | None, limit: int
) -> list[VirtualClock]:
    """Return clocks, the newest first."""
    return [_clock_in(record) for record in await connection.fetch(_LIST, before_id, limit)]


_SAVE: Final = """
    UPDATE test_clock
       SET now = $2, runs_since = $3, is_advancing = $4, removed_at = $5
     WHERE id = $1
"""


async def save_clock(connection: Connection, clock: VirtualClock) -> None:
    """Write a clock that is locked."""
    await connection.execute(
        _SAVE, clock.id, clock.now, clock.runs_since, clock.is_advancing, clock.removed_at
    )


_CUSTOMERS_CLOCK: Final = "SELECT clock_id FROM test_clock_customer WHERE customer_id = $1"


async def find_clock_of_customer(connection: Connection, customer_id: str) -> str | None:
    """Return the clock that a customer's new subscriptions are on."""
    found: str | None = await connection.fetchval(_CUSTOMERS_CLOCK, customer_id)
    return found


# The row that is there is given back when it is not ours; so the same call may come twice.
_ATTACH_CUSTOMER: Final = """
    INSERT INTO test_clock_customer AS known (customer_id, clock_id)
    VALUES ($1, $2)
        ON CONFLICT (customer_id) DO UPDATE
       SET clock_id = known.clock_id
 RETURNING clock_id
"""


async def attach_customer(connection: Connection, customer_id: str, clock_id: str) -> str:
    """Put a customer's new subscriptions on a clock, unless they are; return which one it is."""
    found: str = await connection.fetchval(_ATTACH_CUSTOMER, customer_id, clock_id)
    return found


_FORGET_CUSTOMERS: Final = "DELETE FROM test_clock_customer WHERE clock_id = $1"


async def forget_customers(connection: Connection, clock_id: str) -> None:
    """Let the new subscriptions of a clock's customers live in real time."""
    await connection.execute(_FORGET_CUSTOMERS, clock_id)


# Whoever holds a subscription of a clock may be waiting for the clock's row, which the caller has.
_LOCK_OF_CUSTOMER: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE customer_id = $1
       AND clock_id IS DISTINCT FROM $2
     ORDER BY id
     LIMIT $3
       FOR NO KEY UPDATE
"""  # noqa: S608 - made of the field names of a class


async def lock_subscriptions_of(
    connection: Connection, customer_id: str, clock_id: str, limit: int
) -> list[Subscription]:
    """Lock the subscriptions of a customer that are not on a clock, the oldest first."""
    records = await connection.fetch(_LOCK_OF_CUSTOMER, customer_id, clock_id, limit)
    return [subscription_in(record) for record in records]


_LAST_MOMENTS: Final = """
    SELECT subscription_id, max(at) AS at
      FROM subscription_history
     WHERE subscription_id = ANY($1::text[])
     GROUP BY subscription_id
"""


async def find_last_moments(connection: Connection, ids: Collection[str]) -> dict[str, datetime]:
    """Return when something last happened to subscriptions."""
    records = await connection.fetch(_LAST_MOMENTS, ids)
    return {record["subscription_id"]: record["at"] for record in records}


_LOCK_LIVING: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE clock_id = $1
       AND state NOT IN ('cancelled', 'ended')
       AND id > $2
     ORDER BY id
     LIMIT $3
       FOR NO KEY UPDATE
"""  # noqa: S608 - made of the field names of a class


async def lock_living(
    connection: Connection, clock_id: str, after_id: str, limit: int
) -> list[Subscription]:
    """Lock subscriptions of a clock that are not over, in the order of their ids."""
    records = await connection.fetch(_LOCK_LIVING, clock_id, after_id, limit)
    return [subscription_in(record) for record in records]


_KEEP_GOING: Final = """
    SELECT id
      FROM test_clock
     WHERE id = ANY($1::text[])
     ORDER BY id
       FOR KEY SHARE
"""

_SET_GOING: Final = """
    UPDATE test_clock
       SET is_advancing = true
     WHERE id = ANY($1::text[])
       AND NOT is_advancing
"""


async def set_going(connection: Connection, clock_ids: Collection[str]) -> None:
    """Have the scan look at clocks on which something happened, which may make something due.

    Until the transaction ends none of them is taken for ready (`set_ready`).
    """
    ids = sorted(clock_ids)
    await connection.fetch(_KEEP_GOING, ids)
    await connection.execute(_SET_GOING, ids)


_GOING: Final = f"""
    SELECT {_COLUMNS}
      FROM test_clock
     WHERE (is_advancing OR runs_since IS NOT NULL)
       AND removed_at IS NULL
     ORDER BY id
"""  # noqa: S608 - made of the field names of a class


async def find_going(connection: Connection) -> list[VirtualClock]:
    """Return the clocks on which something may be due."""
    return [_clock_in(record) for record in await connection.fetch(_GOING)]


# Time stands still for a subscription whose charge is at the gateway.
_CLAIM: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE clock_id = $1
       AND due_at <= $2
       AND (charging IS NULL OR retry_at IS NOT NULL)
       AND problem IS NULL
     ORDER BY due_at
     LIMIT $3
       FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - made of the field names of a class


async def claim_due(
    connection: Connection, clock_id: str, until: datetime, most: int
) -> list[Subscription]:
    """Lock subscriptions of a clock that are due and that nobody holds."""
    return [
        subscription_in(record) for record in await connection.fetch(_CLAIM, clock_id, until, most)
    ]


_DUE_IDS: Final = """
    SELECT id
      FROM subscription
     WHERE clock_id = $1
       AND due_at <= $2
       AND (charging IS NULL OR retry_at IS NOT NULL)
       AND problem IS NULL
     ORDER BY due_at
     LIMIT $3
"""


async def list_due_ids(
    connection: Connection, clock_id: str, until: datetime, most: int
) -> list[str]:
    """Return which subscriptions `claim_due` would lock, or another scan holds."""
    return [record["id"] for record in await connection.fetch(_DUE_IDS, clock_id, until, most)]


_CLAIM_THIS: Final = f"""
    SELECT {COLUMNS}
      FROM subscription
     WHERE id = $1
       AND clock_id IS NOT NULL
       AND due_at <= $2
       AND (charging IS NULL OR retry_at IS NOT NULL)
       AND problem IS NULL
       FOR NO KEY UPDATE SKIP LOCKED
"""  # noqa: S608 - made of the field names of a class


async def claim_this(
    connection: Connection, subscription_id: str, until: datetime
) -> list[Subscription]:
    """Lock one subscription if it is still due and nobody holds it."""
    records = await connection.fetch(_CLAIM_THIS, subscription_id, until)
    return [subscription_in(record) for record in records]


# Whoever writes about a subscription of the clock holds a share of its row: then it is not ready.
_LOCK_GOING: Final = f"""
    SELECT {_COLUMNS}
      FROM test_clock
     WHERE id = $1
       AND is_advancing
       FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - made of the field names of a class

_SET_READY: Final = """
    UPDATE test_clock
       SET is_advancing = false
     WHERE id = $1
       AND NOT EXISTS (SELECT
                         FROM subscription
                        WHERE clock_id = $1
                          AND due_at <= $2
                          AND problem IS NULL)
       AND NOT EXISTS (SELECT
                         FROM subscription
                        WHERE clock_id = $1
                          AND charging IS NOT NULL
                          AND retry_at IS NULL
                          AND problem IS NULL)
"""


async def set_ready(connection: Connection, clock_id: str, real_now: datetime) -> None:
    """Note that nothing of a clock is due or at a gateway, if that is so.

    Needs a transaction: what is seen must be younger than the lock. What the clock shows is read
    with the lock, because it may have been advanced since it was found.
    """
    record = await connection.fetchrow(_LOCK_GOING, clock_id)
    if record is not None:
        await connection.execute(_SET_READY, clock_id, _clock_in(record).moment(real_now))


class Progress(NamedTuple):
    """How far the subscriptions of a clock have come."""

    subscriptions: int
    #: Something is due that has not happened yet.
    behind: int
    #: A charge is at the gateway.
    in_flight: int
    #: A person must say which periods are billed.
    asking: int
    set_aside: int


_PROGRESS: Final = """
    SELECT count(*),
           count(*) FILTER (WHERE due_at <= $2),
           count(*) FILTER (WHERE charging IS NOT NULL AND retry_at IS NULL),
           count(*) FILTER (WHERE asks_to_catch_up),
           count(*) FILTER (WHERE problem IS NOT NULL)
      FROM subscription
     WHERE clock_id = $1
"""


async def measure_progress(connection: Connection, clock_id: str, until: datetime) -> Progress:
    """Count the subscriptions of a clock that shows `until`."""
    record = await connection.fetchrow(_PROGRESS, clock_id, until)
    assert record is not None
    return Progress(*tuple(record))


class Waiting(NamedTuple):
    """A charge that the clock waits for."""

    subscription_id: str
    payment_id: str
    as_of: datetime


_WAITING: Final = """
    SELECT id, charging, as_of
      FROM subscription
     WHERE clock_id = $1
       AND charging IS NOT NULL
       AND retry_at IS NULL
     ORDER BY as_of, id
     LIMIT $2
"""


async def list_waiting(connection: Connection, clock_id: str, limit: int) -> list[Waiting]:
    """Return charges of a clock that are at the gateway, the earliest in virtual time first."""
    return [Waiting(*tuple(record)) for record in await connection.fetch(_WAITING, clock_id, limit)]
