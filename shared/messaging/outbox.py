"""The outbox: messages written with the change that makes them true, deleted by receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.contracts.base import Message
from shared.contracts.subscriptions import SUBSCRIPTIONS
from shared.database import Connection
from shared.messaging.envelope import Outgoing

# The returned row is what is published, so that an id can never be paired with another's payload,
# in whatever order PostgreSQL returns them.
_APPEND: Final = """
    INSERT INTO outbox (queue, message_name, payload, traceparent)
    SELECT queue, message_name, payload::json, traceparent
      FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
        AS new (queue, message_name, payload, traceparent)
 RETURNING id, queue, message_name, payload, traceparent
"""


async def append(
    connection: Connection, messages: Sequence[tuple[Message, str | None]]
) -> list[Outgoing]:
    """Write messages, each with its traceparent, and return what to publish after the commit."""
    rows = [
        (subscription.route(message), message.name, message.encode(), traceparent)
        for message, traceparent in messages
        for subscription in SUBSCRIPTIONS[type(message)]
    ]
    if not rows:
        return []
    queues, names, payloads, traceparents = zip(*rows, strict=True)
    records = await connection.fetch(_APPEND, queues, names, payloads, traceparents)
    return [Outgoing(*record) for record in records]


_CONFIRM: Final = "DELETE FROM outbox WHERE id = ANY($1::bigint[])"


async def confirm(connection: Connection, ids: Sequence[int]) -> None:
    """Delete what the receivers have committed; ids already gone are no error."""
    await connection.execute(_CONFIRM, ids)


#: Waits before the second, third, … resend, in seconds; the last one repeats. The first wait (30 s)
#: is the column's default. Three short ones keep recovery under a minute when two sends in a row
#: are lost; the long ones keep a receiver that is down for a day from being flooded.
RESEND_AFTER_SECONDS: Final = (30, 30, 60, 120, 300, 600, 1_800, 3_600)

#: A message sent this often is parked: with the waits above that is after about half a day.
SENDS_MAX: Final = 20

# Rows are claimed by moving their due time on, so that two relays never send the same one at once.
_CLAIM_DUE: Final = """
    UPDATE outbox
       SET sends = sends + 1,
           send_again_at = clock_timestamp()
               + make_interval(secs => ($2::int[])[least(sends, cardinality($2::int[]))]),
           parked_at = CASE WHEN sends >= $3 THEN clock_timestamp() END
     WHERE id = ANY (ARRAY(
               SELECT id
                 FROM outbox
                WHERE send_again_at <= clock_timestamp()
                  AND parked_at IS NULL
                ORDER BY send_again_at
                LIMIT $1
                  FOR UPDATE SKIP LOCKED))
 RETURNING id, queue, message_name, payload, traceparent, parked_at IS NOT NULL AS parked
"""


async def claim_due(connection: Connection, limit: int) -> list[Outgoing]:
    """Take messages whose receipt is overdue, and park those that were sent too often."""
    records = await connection.fetch(_CLAIM_DUE, limit, RESEND_AFTER_SECONDS, SENDS_MAX)
    return [Outgoing(*tuple(record)[:5]) for record in records if not record["parked"]]


_RELEASE: Final = """
    UPDATE outbox
       SET sends = greatest(sends - 1, 1),
           send_again_at = clock_timestamp() + interval '2 seconds'
     WHERE id = ANY($1::bigint[])
"""


async def release(connection: Connection, ids: Sequence[int]) -> None:
    """Give back what could not be published: Redis being away is no failed delivery."""
    await connection.execute(_RELEASE, ids)


_MEASURE: Final = """
    SELECT count(*) FILTER (WHERE parked_at IS NULL) AS waiting,
           count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
           coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float AS age,
           (SELECT count(*) FROM dead_letter WHERE state = 'waiting') AS dead
      FROM outbox
"""


async def measure(connection: Connection) -> tuple[int, int, float, int]:
    """Return messages waiting, parked, the oldest one's age in seconds, and dead letters."""
    record = await connection.fetchrow(_MEASURE)
    assert record is not None
    return record["waiting"], record["parked"], record["age"], record["dead"]


_STORE_DEAD_LETTER: Final = """
    INSERT INTO dead_letter (queue, sender, message_id, message_name, payload, reason)
    VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT DO NOTHING
"""


async def store_dead_letter(
    connection: Connection,
    *,
    queue: str,
    sender: str,
    message_id: int | None,
    message_name: str,
    payload: str,
    reason: str,
) -> None:
    """Keep a message that can never be handled; storing it twice is no error."""
    # PostgreSQL stores no NUL; a payload is JSON, where it is written as an escape.
    sender, message_name, reason = (
        text.replace("\x00", "\ufffd") for text in (sender, message_name, reason)
    )
    await connection.execute(
        _STORE_DEAD_LETTER, queue, sender, message_id, message_name, payload, reason
    )
