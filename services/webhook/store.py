"""Every SQL statement of the webhook service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final, Literal, NamedTuple

import orjson

from shared.contracts.priorities import THRESHOLDS, Thresholds
from shared.contracts.subscriptions import DISPUTES_QUEUE, notice_queue
from shared.contracts.webhook import DisputeNoticed, NoticeReceived
from shared.database import Connection
from shared.gateways.interface import Notice
from shared.messaging.envelope import Outgoing
from shared.partitions import PartitionedTable

#: Raw bodies are kept a week for debugging. A partition holds the events of payments made on its
#: day, whose last notice may come a day or two later.
BODIES_KEPT_DAYS: Final = 7

PARTITIONED_TABLES: Final = (
    PartitionedTable("inbound_event", "day", keep_days=BODIES_KEPT_DAYS + 2),
    PartitionedTable("return_address", "month", id_prefix="att", keep_days=62),
)


class InboundEvent(NamedTuple):
    """One verified notice with its raw body. A tuple, because every webhook makes one."""

    gateway: str
    notice: Notice
    source: Literal["notice", "return"]
    received_at: datetime
    body: bytes
    traceparent: str | None


# One statement, so one round trip and one commit: this is what every acknowledgement waits for.
# Only events that are new get a message; their copies have, or had, one.
_INSERT_EVENTS: Final = """
    WITH given AS (
        SELECT *
          FROM unnest($1::text[], $2::text[], $3::date[], $4::text[], $5::text[],
                      $6::timestamptz[], $7::bytea[], $8::text[], $9::text[], $10::text[],
                      $11::text[], $12::text[])
            AS event (gateway, event_key, event_day, source, claim, received_at, body,
                      reference, queue, message_name, payload, traceparent)
    ), new AS (
        INSERT INTO inbound_event (
                        gateway, event_key, event_day, source, claim, received_at, body, reference)
        SELECT gateway, event_key, event_day, source, claim, received_at, body, reference
          FROM given
            ON CONFLICT DO NOTHING
     RETURNING gateway, event_key, event_day
    )
    INSERT INTO outbox (queue, message_name, payload, traceparent)
    SELECT given.queue, given.message_name, given.payload::json, given.traceparent
      FROM given
      JOIN new USING (gateway, event_key, event_day)
 RETURNING id, queue, message_name, payload, traceparent
"""


def _event_identity(event: InboundEvent) -> tuple[str, str, date]:
    return event.gateway, event.notice.event_key, event.notice.event_day


async def insert_events(
    connection: Connection,
    events: Sequence[InboundEvent],
    thresholds: Mapping[str, Thresholds] = THRESHOLDS,
) -> list[Outgoing]:
    """Store events with their messages; those already stored are left out of the answer.

    The events must differ from one another in gateway, key and day. They are stored in the order of
    these, so that two writers of the same events cannot deadlock.
    """
    rows = []
    for event in sorted(events, key=_event_identity):
        notice = event.notice
        queue, message_name = _way_of(notice, thresholds)
        rows.append(
            (
                event.gateway,
                notice.event_key,
                notice.event_day,
                event.source,
                notice.claim,
                event.received_at,
                event.body,
                notice.reference,
                queue,
                message_name,
                encode_message(event),
                event.traceparent,
            )
        )
    columns = zip(*rows, strict=True)
    records = await connection.fetch(_INSERT_EVENTS, *columns)
    return [Outgoing(*record) for record in records]


def _way_of(notice: Notice, thresholds: Mapping[str, Thresholds]) -> tuple[str, str]:
    """Return the queue and the name of the message that a notice becomes."""
    if notice.claim == "dispute":
        return DISPUTES_QUEUE, DisputeNoticed.name
    amount = notice.amount
    return notice_queue(amount.minor_units, amount.currency, thresholds), NoticeReceived.name


def encode_message(event: InboundEvent) -> str:
    """Write the event's message: a `NoticeReceived` in a quarter of its contract's time."""
    notice = event.notice
    if notice.claim == "dispute":
        return DisputeNoticed(
            gateway=event.gateway,
            dispute=notice.validation_id,
            reference=notice.reference,
            amount=notice.amount.minor_units,
            currency=notice.amount.currency,
            received_at=event.received_at,
        ).encode()
    return orjson.dumps(
        {
            "gateway": event.gateway,
            "reference": notice.reference,
            "claim": notice.claim,
            "validationId": notice.validation_id,
            "amount": notice.amount.minor_units,
            "currency": notice.amount.currency,
            "receivedAt": event.received_at,
        },
        option=orjson.OPT_UTC_Z,
    ).decode()


_INSERT_RETURN_ADDRESSES: Final = """
    INSERT INTO return_address (reference, payment_id, return_url)
    SELECT *
      FROM unnest($1::text[], $2::text[], $3::text[])
        ON CONFLICT DO NOTHING
"""


async def insert_return_addresses(
    connection: Connection, addresses: Sequence[tuple[str, str, str]]
) -> None:
    """Remember (reference, payment id, return address); one already known is no error."""
    # Sorted, so that two writers of the same addresses cannot deadlock.
    await connection.execute(_INSERT_RETURN_ADDRESSES, *zip(*sorted(addresses), strict=True))


_FIND_RETURN_ADDRESS: Final = """
    SELECT payment_id, return_url FROM return_address WHERE reference = $1
"""


async def find_return_address(connection: Connection, reference: str) -> tuple[str, str] | None:
    """Return (payment id, return address) of a reference."""
    record = await connection.fetchrow(_FIND_RETURN_ADDRESS, reference)
    return None if record is None else (record["payment_id"], record["return_url"])


_DELETE_STRAYS: Final = """
    DELETE FROM inbound_event_default WHERE received_at < $1
"""


async def delete_strays(connection: Connection, before: datetime) -> None:
    """Delete old events of the default partition, which is never dropped."""
    await connection.execute(_DELETE_STRAYS, before)
