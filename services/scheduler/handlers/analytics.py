"""What was billed, paid and lost, and how many subscriptions there are."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Final

import structlog

from services.scheduler import metrics
from services.scheduler.domain.analytics import (
    PAID,
    STATE_COUNTS,
    Analysis,
    Bucket,
    analyse,
)
from services.scheduler.runtime import Runtime
from services.scheduler.store import analytics as analytics_store
from services.scheduler.store.analytics import Choice
from shared.errors import DatabaseUnavailableError

log = structlog.get_logger()

#: Pause between two folds. What is not folded yet is read along.
FOLD_INTERVAL_SECONDS: Final = 5.0


async def read_analysis(
    runtime: Runtime, first: date, last: date, bucket: Bucket, choice: Choice
) -> Analysis:
    """Return what happened from the first to the last day, of UTC.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    # Of one moment: how many there were is counted back from how many there are.
    async with (
        runtime.core.database.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        sums = await analytics_store.sums_since(connection, first, last, bucket, choice)
        now = await analytics_store.sums_ever(connection, choice, STATE_COUNTS)
    return analyse(sums, now)


async def measure(runtime: Runtime) -> None:
    """Set the gauges of what was counted of real subscriptions since there were any.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    async with runtime.core.database.connection() as connection:
        ever = await analytics_store.sums_ever(connection, Choice())
    found = analyse([], [each for each in ever if each.what in STATE_COUNTS])
    for state, number in found.states.items():
        metrics.SUBSCRIPTIONS.labels(state).set(number)
    for (gateway, currency), what, times, amount in (each[1:] for each in ever):
        if what in STATE_COUNTS:
            continue
        metrics.BILLING_EVENTS.labels(gateway, currency, what).set(times)
        if what in PAID:
            metrics.REVENUE.labels(gateway, currency, what).set(amount)


async def fold(runtime: Runtime) -> int:
    """Fold what was counted, and return how many rows that were.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; nothing is lost, it is folded later.
    """
    async with runtime.core.database.transaction() as connection:
        return await analytics_store.fold(connection)


async def fold_for_ever(runtime: Runtime) -> None:
    """Fold, for ever, what was counted; of several workers one does it at a time."""
    while True:
        try:
            count = await fold(runtime)
        except DatabaseUnavailableError as error:
            log.warning("analytics_wait", reason=error.message)
            count = 0
        if count < analytics_store.FOLDED_MAX:
            await asyncio.sleep(FOLD_INTERVAL_SECONDS)
