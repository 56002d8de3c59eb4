"""The SQL statements about settlement checks: which are due, how far they are, how they ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, Literal, TypeAlias

import asyncpg

from services.payments.domain.settlement_check import FindingKind, Tally
from shared.database import Connection

#: How long a process may work at a check before another takes it; renewed with each page.
CHECK_LEASE_SECONDS: Final = 120

CheckState: TypeAlias = Literal["listing", "comparing", "done", "failed"]


@dataclass(frozen=True, slots=True)
class SettlementCheck:
    """A comparison of one gateway's list of one day with our books."""

    id: str
    gateway: str
    day: date
    state: CheckState
    reason: str | None
    cursor: str | None
    is_cut: bool
    tries: int
    next_try_at: datetime | None
    leased_until: datetime | None
    listed: int
    matched: int
    counts: Mapping[FindingKind, int]
    unlisted: int
    created_at: datetime
    ended_at: datetime | None


_INSERT_CHECK: Final = """
    INSERT INTO settlement_check (id, gateway, day, scheduled_on, state, next_try_at, created_at)
    VALUES ($1, $2, $3, $4, 'listing', $5, $5)
        ON CONFLICT DO NOTHING
"""


async def insert_check(
    connection: Connection,
    check_id: str,
    *,
    gateway: str,
    day: date,
    scheduled_on: date | None,
    now: datetime,
) -> None:
    """Record a check that is due; one that is there is left as it is.

    `scheduled_on` is the day on which it was due by itself, None when somebody asked for it.
    """
    await connection.execute(_INSERT_CHECK, check_id, gateway, day, scheduled_on, now)


_FIND_CHECK: Final = """
    SELECT id, gateway, day, state, reason, cursor, is_cut, tries, next_try_at, leased_until,
           listed, matched, mismatched, missing_here, missing_there, duplicates, unlisted,
           created_at, ended_at
      FROM settlement_check
     WHERE id = $1
"""


async def find_check(connection: Connection, check_id: str) -> SettlementCheck | None:
    """Return a check."""
    record = await connection.fetchrow(_FIND_CHECK, check_id)
    return None if record is None else _check(record)


_LIST_CHECKS: Final = """
    SELECT id, gateway, day, state, reason, cursor, is_cut, tries, next_try_at, leased_until,
           listed, matched, mismatched, missing_here, missing_there, duplicates, unlisted,
           created_at, ended_at
      FROM settlement_check
     WHERE id < coalesce($1::text, 'chk~')
       AND ($2::text IS NULL OR gateway = $2)
     ORDER BY id DESC
     LIMIT $3
"""


async def list_checks(
    connection: Connection, *, before_id: str | None, gateway: str | None, limit: int
) -> list[SettlementCheck]:
    """Return checks, the newest first."""
    records = await connection.fetch(_LIST_CHECKS, before_id, gateway, limit)
    return [_check(record) for record in records]


_CLAIM_CHECK: Final = """
    UPDATE settlement_check
       SET leased_until = clock_timestamp() + make_interval(secs => $2)
     WHERE id = (SELECT id
                   FROM settlement_check
                  WHERE next_try_at <= $1
                    AND (leased_until IS NULL OR leased_until < clock_timestamp())
                  ORDER BY next_try_at
                  LIMIT 1
                    FOR UPDATE SKIP LOCKED)
 RETURNING id, gateway, day, state, reason, cursor, is_cut, tries, next_try_at, leased_until,
           listed, matched, mismatched, missing_here, missing_there, duplicates, unlisted,
           created_at, ended_at
"""


async def claim_check(connection: Connection, now: datetime) -> SettlementCheck | None:
    """Take the check that is due the longest; others leave it alone until its lease ends."""
    record = await connection.fetchrow(_CLAIM_CHECK, now, CHECK_LEASE_SECONDS)
    return None if record is None else _check(record)


# The lease is its own fence: only who holds it knows until when.
_SAVE_PAGE: Final = """
    UPDATE settlement_check
       SET cursor = $3,
           is_cut = is_cut OR $4,
           state = CASE WHEN $3::text IS NULL THEN 'comparing' ELSE 'listing' END,
           tries = 0,
           reason = NULL,
           listed = listed + $6,
           leased_until = clock_timestamp() + make_interval(secs => $5)
     WHERE id = $1
       AND leased_until = $2
 RETURNING id, gateway, day, state, reason, cursor, is_cut, tries, next_try_at, leased_until,
           listed, matched, mismatched, missing_here, missing_there, duplicates, unlisted,
           created_at, ended_at
"""


async def save_page(
    connection: Connection,
    check: SettlementCheck,
    *,
    listed: int,
    next_cursor: str | None,
    is_cut: bool,
) -> SettlementCheck | None:
    """Keep where to go on listing, after so many more payments; None when the lease has ended.

    Call it in the transaction that keeps the page itself, and give that up when it returns None.
    """
    record = await connection.fetchrow(
        _SAVE_PAGE,
        check.id,
        check.leased_until,
        next_cursor,
        is_cut,
        CHECK_LEASE_SECONDS,
        listed,
    )
    return None if record is None else _check(record)


_PUT_OFF: Final = """
    UPDATE settlement_check
       SET next_try_at = $3,
           reason = $4,
           tries = $5,
           leased_until = NULL
     WHERE id = $1
       AND leased_until = $2
"""


async def put_off_check(
    connection: Connection, check: SettlementCheck, *, until: datetime, reason: str, tries: int
) -> None:
    """Go on with a check later, if it is still held."""
    await connection.execute(_PUT_OFF, check.id, check.leased_until, until, reason, tries)


_FAIL: Final = """
    UPDATE settlement_check
       SET state = 'failed',
           reason = $3,
           next_try_at = NULL,
           leased_until = NULL,
           ended_at = $4
     WHERE id = $1
       AND leased_until = $2
"""


async def fail_check(
    connection: Connection, check: SettlementCheck, *, reason: str, now: datetime
) -> None:
    """End a check whose gateway does not list, if it is still held."""
    await connection.execute(_FAIL, check.id, check.leased_until, reason, now)


_FINISH: Final = """
    UPDATE settlement_check
       SET state = 'done',
           matched = $3,
           mismatched = $4,
           missing_here = $5,
           missing_there = $6,
           duplicates = $7,
           unlisted = $8,
           next_try_at = NULL,
           leased_until = NULL,
           ended_at = $9
     WHERE id = $1
       AND leased_until = $2
 RETURNING id
"""


async def finish_check(
    connection: Connection, check: SettlementCheck, tally: Tally, now: datetime
) -> bool:
    """End a check with what it counted, and tell whether it was still held."""
    ended = await connection.fetchval(
        _FINISH,
        check.id,
        check.leased_until,
        tally.matched,
        tally.counts[FindingKind.MISMATCH],
        tally.counts[FindingKind.MISSING_HERE],
        tally.counts[FindingKind.MISSING_THERE],
        tally.counts[FindingKind.DUPLICATE],
        tally.unlisted,
        now,
    )
    return ended is not None


def _check(record: asyncpg.Record) -> SettlementCheck:
    return SettlementCheck(
        id=record["id"],
        gateway=record["gateway"],
        day=record["day"],
        state=record["state"],
        reason=record["reason"],
        cursor=record["cursor"],
        is_cut=record["is_cut"],
        tries=record["tries"],
        next_try_at=record["next_try_at"],
        leased_until=record["leased_until"],
        listed=record["listed"],
        matched=record["matched"],
        counts={
            FindingKind.MISMATCH: record["mismatched"],
            FindingKind.MISSING_HERE: record["missing_here"],
            FindingKind.MISSING_THERE: record["missing_there"],
            FindingKind.DUPLICATE: record["duplicates"],
        },
        unlisted=record["unlisted"],
        created_at=record["created_at"],
        ended_at=record["ended_at"],
    )
