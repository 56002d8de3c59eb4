"""SQL of notices to send and of scripts for misbehaviour, one typed function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.simulator.domain import Behaviour, Fault, Operation, Session, Status
from shared.database import Connection


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A notice that is this process's to send."""

    id: int
    tran_id: str
    url: str
    body: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice to be sent or sent, and what came of it."""

    status: str
    due_at: datetime
    sent_at: datetime | None
    response_status: int | None
    error: str | None


_INSERT_NOTICE: Final = """
    INSERT INTO notice (tran_id, status, url, body, due_at)
    VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
"""


async def insert_notice(
    connection: Connection, session: Session, status: Status, body: str, delay_seconds: float
) -> None:
    """Store a notice that is due after a delay."""
    await connection.execute(
        _INSERT_NOTICE, session.tran_id, status, session.ipn_url, body, delay_seconds
    )


# A process that dies between claim and answer leaves a lease that runs out; its notices are then
# sent again, as a real gateway's would be.
_CLAIM_DUE_NOTICES: Final = """
    UPDATE notice
       SET leased_until = clock_timestamp() + make_interval(secs => $2)
     WHERE id IN (
               SELECT id
                 FROM notice
                WHERE sent_at IS NULL
                  AND due_at <= clock_timestamp()
                  AND (leased_until IS NULL OR leased_until <= clock_timestamp())
                ORDER BY due_at, id
                LIMIT $1
                  FOR UPDATE SKIP LOCKED
           )
 RETURNING id, tran_id, url, body
"""


async def claim_due_notices(
    connection: Connection, limit: int, lease_seconds: float
) -> Sequence[DueNotice]:
    """Take notices to send, in no particular order."""
    return [
        DueNotice(row["id"], row["tran_id"], row["url"], row["body"])
        for row in await connection.fetch(_CLAIM_DUE_NOTICES, limit, lease_seconds)
    ]


_SAVE_SENT: Final = """
    UPDATE notice
       SET sent_at = clock_timestamp(), response_status = $2, error = $3
     WHERE id = $1
       AND sent_at IS NULL
"""


async def save_sent(
    connection: Connection, notice_id: int, response_status: int | None, error: str | None
) -> None:
    """Note that a notice was sent, and either the answer's status or why there is none."""
    await connection.execute(_SAVE_SENT, notice_id, response_status, error)


_LIST_NOTICES: Final = """
    SELECT status, due_at, sent_at, response_status, error
      FROM notice
     WHERE tran_id = $1
     ORDER BY due_at, id
"""


async def list_notices(connection: Connection, tran_id: str) -> Sequence[Notice]:
    """Read the notices of a payment, the first due first."""
    return [
        Notice(
            status=row["status"],
            due_at=row["due_at"],
            sent_at=row["sent_at"],
            response_status=row["response_status"],
            error=row["error"],
        )
        for row in await connection.fetch(_LIST_NOTICES, tran_id)
    ]


_INSERT_SCRIPT: Final = """
    INSERT INTO script (operation, behaviour, delay_seconds, tran_id, times_left)
    VALUES ($1, $2, $3, $4, $5)
"""


async def insert_script(
    connection: Connection,
    operation: Operation,
    fault: Fault,
    *,
    tran_id: str | None,
    times: int,
) -> None:
    """Make the next calls of an operation misbehave: of one payment, or of any."""
    await connection.execute(
        _INSERT_SCRIPT, operation, fault.behaviour, fault.delay_seconds, tran_id, times
    )


# The outer condition is looked at again after waiting for another claim, so that a script never
# serves more calls than it was made for.
_CLAIM_FAULT: Final = """
    UPDATE script
       SET times_left = times_left - 1
     WHERE id = (
               SELECT id
                 FROM script
                WHERE operation = $1
                  AND times_left > 0
                  AND (tran_id IS NULL OR tran_id = $2)
                ORDER BY id
                LIMIT 1
           )
       AND times_left > 0
 RETURNING behaviour, delay_seconds
"""


async def claim_fault(connection: Connection, operation: Operation, tran_id: str) -> Fault | None:
    """Use up one call of the oldest script that concerns this one."""
    row = await connection.fetchrow(_CLAIM_FAULT, operation, tran_id)
    return None if row is None else Fault(Behaviour(row["behaviour"]), row["delay_seconds"])


_CLEAR_SCRIPTS: Final = """
    WITH cleared AS (DELETE FROM script RETURNING times_left)
  SELECT count(*) FROM cleared WHERE times_left > 0
"""


async def clear_scripts(connection: Connection) -> int:
    """Forget every script and return how many were still in force."""
    count = await connection.fetchval(_CLEAR_SCRIPTS)
    assert isinstance(count, int)
    return count
