"""The relay: sends again what no receipt has ended in time."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from shared import metrics
from shared.database import Database
from shared.errors import DatabaseUnavailableError
from shared.messaging import outbox
from shared.messaging.publisher import Publisher

log = structlog.get_logger()

#: Messages taken at once; a backlog is worked off without a pause between batches.
BATCH_SIZE_MAX: Final = 500

#: Pause when nothing is due. The index makes the empty look cost well under a millisecond.
INTERVAL_SECONDS: Final = 1.0


async def resend_due(database: Database, publisher: Publisher) -> int:
    """Send one batch of overdue messages again and return how many were taken.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    async with database.transaction() as connection:
        items = await outbox.claim_due(connection, BATCH_SIZE_MAX)
    if not items:
        return 0
    metrics.MESSAGES_RESENT.labels(database.schema).inc(len(items))
    if not await publisher.send(items):
        async with database.transaction() as connection:
            await outbox.release(connection, [item.id for item in items])
        return 0
    return len(items)


async def run(database: Database, publisher: Publisher) -> None:
    """Resend for ever; several relays may share one outbox."""
    while True:
        try:
            sent = await resend_due(database, publisher)
        except DatabaseUnavailableError as error:
            log.warning("relay_waits", reason=error.message)
            sent = 0
        if sent < BATCH_SIZE_MAX:
            await asyncio.sleep(INTERVAL_SECONDS)
