"""SQL of notices to send and of what customers are going to do, one typed function each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson

from shared.database import Connection


@dataclass(frozen=True, slots=True)
class Message:
    """A notice as it travels. `status` is what it says about the payment, for a reader's eyes."""

    gateway: str
    reference: str
    status: str
    url: str
    headers: Mapping[str, str]
    body: str
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class DueNotice:
    """A notice that is this process's to send."""

    id: int
    message: Message


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice to be sent or sent, and what came of it."""

    status: str
    due_at: datetime
    sent_at: datetime | None
    response_status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DueAct:
    """Something a customer does now, which is this process's to carry out."""

    id: int
    gateway: str
    reference: str
    wish: str


_INSERT_NOTICE: Final = """
    INSERT INTO notice (gateway, reference, status, method, url, headers, body, due_at)
    VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7,
            clock_timestamp() + make_interval(secs => $8))
"""


async def insert_notice(connection: Connection, message: Message, delay_seconds: float) -> None:
    """Store a notice that is due after a delay."""
    await connection.execute(
        _INSERT_NOTICE,
        message.gateway,
        message.reference,
        message.status,
        message.method,
        message.url,
        orjson.dumps(dict(message.headers)).decode(),
        message.body,
        delay_seconds,
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
 RETURNING id, gateway, reference, status, method, url, headers::text AS headers, body
"""


async def claim_due_notices(
    connection: Connection, limit: int, lease_seconds: float
) -> Sequence[DueNotice]:
    """Take notices to send, in no particular order."""
    return [
        DueNotice(
            row["id"],
            Message(
                gateway=row["gateway"],
                reference=row["reference"],
                status=row["status"],
                method=row["method"],
                url=row["url"],
                headers=orjson.loads(row["headers"]),
                body=row["body"],
            ),
        )
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
     WHERE gateway = $1
       AND reference = $2
     ORDER BY due_at, id
"""


async def list_notices(connection: Connection, gateway: str, reference: str) -> Sequence[Notice]:
    """Read the notices of a payment, the first due first."""
    return [
        Notice(
            status=row["status"],
            due_at=row["due_at"],
            sent_at=row["sent_at"],
            response_status=row["response_status"],
            error=row["error"],
        )
        for row in await connection.fetch(_LIST_NOTICES, gateway, reference)
    ]


_INSERT_ACT: Final = """
    INSERT INTO act (gateway, reference, wish, due_at)
    VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
"""


async def insert_act(
    connection: Connection, gateway: str, reference: str, wish: str, delay_seconds: float
) -> None:
    """Let a customer do something by itself after a delay."""
    await connection.execute(_INSERT_ACT, gateway, reference, wish, delay_seconds)


# As with notices, a lease that runs out lets another process do it again.
_CLAIM_DUE_ACTS: Final = """
    UPDATE act
       SET leased_until = clock_timestamp() + make_interval(secs => $2)
     WHERE id IN (
               SELECT id
                 FROM act
                WHERE due_at <= clock_timestamp()
                  AND (leased_until IS NULL OR leased_until <= clock_timestamp())
                ORDER BY due_at, id
                LIMIT $1
                  FOR UPDATE SKIP LOCKED
           )
 RETURNING id, gateway, reference, wish
"""


async def claim_due_acts(
    connection: Connection, limit: int, lease_seconds: float
) -> Sequence[DueAct]:
    """Take what customers are to do now, in no particular order."""
    return [
        DueAct(row["id"], row["gateway"], row["reference"], row["wish"])
        for row in await connection.fetch(_CLAIM_DUE_ACTS, limit, lease_seconds)
    ]


_DELETE_ACT: Final = """
    DELETE FROM act WHERE id = $1
"""


async def delete_act(connection: Connection, act_id: int) -> None:
    """Forget what a customer has done."""
    await connection.execute(_DELETE_ACT, act_id)
