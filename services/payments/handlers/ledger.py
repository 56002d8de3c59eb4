"""Keeps the balances of the ledger quick to read, however long it grows."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.payments.runtime import Runtime
from services.payments.store import ledger as ledger_store
from shared.errors import DatabaseUnavailableError

log = structlog.get_logger()

#: How often what is old enough is added to the snapshot of the balances. Whoever reads them adds
#: what is younger: a quarter of an hour, and these seconds.
INTERVAL_SECONDS: Final = 60.0


async def keep_snapshot(runtime: Runtime) -> None:
    """Add what is old enough to the snapshot of the balances, for ever."""
    while True:
        try:
            await advance_snapshot(runtime)
        except DatabaseUnavailableError as error:
            log.warning("ledger_snapshot_waits", reason=error.message)
        await asyncio.sleep(INTERVAL_SECONDS)


async def advance_snapshot(runtime: Runtime) -> None:
    """Bring the snapshot of the balances as near to the present as it may be.

    Every worker does this; they take turns, and a step is done once.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; what was added stays.
    """
    async with runtime.core.database.connection() as connection:
        await ledger_store.summarize_times(connection)
    has_more = True
    while has_more:
        async with runtime.core.database.transaction() as connection:
            has_more = await ledger_store.advance_snapshot(connection)
