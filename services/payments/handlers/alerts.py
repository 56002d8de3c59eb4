"""Watches what is measured, and tells once per episode that a threshold was passed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.alerts import Episode, Measurement, Reading, follow
from services.payments.domain.statistics import add_up
from services.payments.handlers.backlog import read_backlog
from services.payments.runtime import Runtime
from services.payments.store import alerts as alert_store
from services.payments.store import statistics as statistics_store
from shared.contracts.base import Message
from shared.contracts.payments import AlertCleared, AlertRaised
from shared.errors import DatabaseUnavailableError
from shared.identifiers import new_id
from shared.messaging import outbox

log = structlog.get_logger()

ID_PREFIX: Final = "alt"

#: Pause between two measurements, of all workers together.
INTERVAL_SECONDS: Final = 5.0


async def watch(runtime: Runtime) -> None:
    """Measure, for ever; of several workers one does it at a time."""
    while True:
        try:
            async with runtime.core.database.connection() as connection:
                is_turn = await alert_store.take_turn(connection, INTERVAL_SECONDS)
            if is_turn:
                await look(runtime)
        except DatabaseUnavailableError as error:
            log.warning("alerts_wait", reason=error.message)
        await asyncio.sleep(INTERVAL_SECONDS)


async def look(runtime: Runtime) -> None:
    """Measure once; begin, go on with or end episodes, and announce what began and what ended.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    readings = await measure(runtime)
    now = runtime.core.clock()
    messages: list[tuple[Message, str | None]] = []
    async with runtime.core.database.transaction() as connection:
        known = await alert_store.lock_open(connection)
        for reading in readings:
            before = known.get(reading.measurement)
            episode = follow(reading, before, new_id=new_id(ID_PREFIX, now), now=now)
            if episode is None or episode == before:
                continue
            if before is None:
                if await alert_store.begin(connection, episode):
                    messages.append((_raised(episode), None))
                continue
            await alert_store.go_on(connection, episode)
            if episode.cleared_at is not None:
                messages.append((_cleared(episode), None))
        outgoing = await outbox.append(connection, messages)
    runtime.core.publisher.publish(outgoing)
    for message, _ in messages:
        _tell(message)


async def measure(runtime: Runtime) -> Sequence[Reading]:
    """Return what is watched, beside its thresholds.

    The length of the queues is left out while Redis is away: nothing is known of it.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away.
    """
    settings = runtime.settings
    since = (runtime.core.clock() - settings.alert_window).replace(second=0, microsecond=0)
    async with runtime.core.database.connection() as connection:
        tally = add_up(await statistics_store.read_since(connection, since))
        calls = await statistics_store.read_calls(connection, since)
    samples = settings.alert_minimum_samples
    readings = [
        Reading(
            Measurement.ERROR_RATE,
            settings.error_rate_alert,
            calls.error_rate if calls.calls >= samples else None,
        ),
        Reading(
            Measurement.PROCESSING_TIME,
            settings.processing_time_alert.total_seconds(),
            tally.average_seconds if tally.measured >= samples else None,
        ),
        Reading(
            Measurement.SUCCESS_RATE,
            settings.success_rate_alert,
            tally.success_rate if tally.processed >= samples else None,
        ),
    ]
    backlog = await read_backlog(runtime)
    if backlog.messages is not None:
        threshold = settings.queue_alert_threshold
        readings.append(Reading(Measurement.QUEUE_LENGTH, threshold, backlog.total))
    return readings


def _raised(episode: Episode) -> AlertRaised:
    return AlertRaised(
        alert_id=episode.id,
        alert=episode.measurement,
        threshold=episode.threshold,
        value=episode.raised_value,
        raised_at=episode.raised_at,
    )


def _cleared(episode: Episode) -> AlertCleared:
    assert episode.cleared_at is not None, "it is over"
    return AlertCleared(
        alert_id=episode.id,
        alert=episode.measurement,
        threshold=episode.threshold,
        worst_value=episode.worst_value,
        raised_at=episode.raised_at,
        cleared_at=episode.cleared_at,
    )


def _tell(message: Message) -> None:
    """Count and log what operators are told: no service of ours needs it yet."""
    if isinstance(message, AlertRaised):
        metrics.ALERTS.labels(message.alert, "raised").inc()
        log.warning(
            "alert_raised",
            alert=message.alert,
            value=message.value,
            threshold=message.threshold,
        )
    elif isinstance(message, AlertCleared):
        metrics.ALERTS.labels(message.alert, "cleared").inc()
        log.info("alert_cleared", alert=message.alert, worst_value=message.worst_value)
