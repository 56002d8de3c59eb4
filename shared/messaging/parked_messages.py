"""Messages that were sent too often in vain: kept in the outbox until an operator sends them on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from shared.database import Connection

#: Messages that one command may resume; the relay takes them in batches.
RESUMED_AT_ONCE_MAX: Final = 10_000


class ParkedMessage(NamedTuple):
    """A parked row of the outbox; `payload` is its JSON text."""

    id: int
    queue: str
    message_name: str
    payload: str
    created_at: datetime
    sends: int
    parked_at: datetime


_LIST: Final = """
    SELECT id, queue, message_name, payload, created_at, sends, parked_at
      FROM outbox
     WHERE parked_at IS NOT NULL
       AND ($1::text IS NULL OR queue = $1)
       AND ($2::text IS NULL OR message_name = $2)
       AND ($3::bigint IS NULL OR id < $3)
     ORDER BY id DESC
     LIMIT $4
"""


async def list_parked(
    connection: Connection,
    *,
    queue: str | None,
    message_name: str | None,
    before_id: int | None,
    limit: int,
) -> list[ParkedMessage]:
    """Return parked messages, newest first, that match every filter given."""
    records = await connection.fetch(_LIST, queue, message_name, before_id, limit)
    return [ParkedMessage(*record) for record in records]


_FIND: Final = """
    SELECT id, queue, message_name, payload, created_at, sends, parked_at
      FROM outbox
     WHERE id = $1
       AND parked_at IS NOT NULL
"""


async def find_parked(connection: Connection, message_id: int) -> ParkedMessage | None:
    """Return a parked message; None when it is not parked, or was confirmed meanwhile."""
    record = await connection.fetchrow(_FIND, message_id)
    return None if record is None else ParkedMessage(*record)


# As if it were new: it is sent at once, and again at the growing intervals of every message.
_RESUME: Final = """
    UPDATE outbox
       SET parked_at = NULL, sends = 1, send_again_at = clock_timestamp()
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM outbox
                WHERE parked_at IS NOT NULL
                  AND ($1::bigint IS NULL OR id = $1)
                  AND ($2::text IS NULL OR queue = $2)
                  AND ($3::text IS NULL OR message_name = $3)
                ORDER BY id
                LIMIT $4
                  FOR UPDATE SKIP LOCKED))
 RETURNING id
"""


async def resume(
    connection: Connection,
    *,
    message_id: int | None = None,
    queue: str | None = None,
    message_name: str | None = None,
) -> Sequence[int]:
    """Let the relay send parked messages that match every filter again; return their ids."""
    records = await connection.fetch(_RESUME, message_id, queue, message_name, RESUMED_AT_ONCE_MAX)
    return [record["id"] for record in records]
