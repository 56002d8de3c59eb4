"""The SQL statements about alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import asyncpg

from services.payments.domain.alerts import Episode, Measurement
from shared.database import Connection

# The winner measures; the others try again later. By the database's clock, like a lease.
_TAKE_TURN: Final = """
    INSERT INTO alert_turn AS turn (measured_at)
    VALUES (clock_timestamp())
        ON CONFLICT (only_row) DO UPDATE
       SET measured_at = clock_timestamp()
     WHERE turn.measured_at <= clock_timestamp() - make_interval(secs => $1)
 RETURNING true
"""


async def take_turn(connection: Connection, interval_seconds: float) -> bool:
    """Tell whether it is this worker's turn to measure: nobody did within the interval."""
    return bool(await connection.fetchval(_TAKE_TURN, interval_seconds))


_OPEN: Final = """
    SELECT id, name, threshold, raised_value, worst_value, last_value, raised_at, well_since,
           cleared_at
      FROM alert
     WHERE cleared_at IS NULL
       FOR UPDATE
"""


async def lock_open(connection: Connection) -> Mapping[Measurement, Episode]:
    """Return the open episodes, and keep others from changing them in this transaction."""
    episodes = [_episode(record) for record in await connection.fetch(_OPEN)]
    return {episode.measurement: episode for episode in episodes}


_BEGIN: Final = """
    INSERT INTO alert (id, name, threshold, raised_value, worst_value, last_value, raised_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (name) WHERE cleared_at IS NULL DO NOTHING
 RETURNING id
"""


async def begin(connection: Connection, episode: Episode) -> bool:
    """Record a new episode, and tell whether it is: another worker may have begun one just now."""
    begun = await connection.fetchval(
        _BEGIN,
        episode.id,
        episode.measurement,
        episode.threshold,
        episode.raised_value,
        episode.worst_value,
        episode.last_value,
        episode.raised_at,
    )
    return begun is not None


_GO_ON: Final = """
    UPDATE alert
       SET worst_value = $2, last_value = $3, well_since = $4, cleared_at = $5
     WHERE id = $1
"""


async def go_on(connection: Connection, episode: Episode) -> None:
    """Write how a locked episode goes on, or that it is over."""
    await connection.execute(
        _GO_ON,
        episode.id,
        episode.worst_value,
        episode.last_value,
        episode.well_since,
        episode.cleared_at,
    )


_LIST: Final = """
    SELECT id, name, threshold, raised_value, worst_value, last_value, raised_at, well_since,
           cleared_at
      FROM alert
     WHERE ($1::text IS NULL OR name = $1)
       AND ($2::boolean IS NULL OR (cleared_at IS NULL) = $2)
       AND ($3::text IS NULL OR id < $3)
     ORDER BY id DESC
     LIMIT $4
"""


async def list_episodes(
    connection: Connection,
    *,
    measurement: str | None,
    is_open: bool | None,
    before_id: str | None,
    limit: int,
) -> list[Episode]:
    """Return episodes, newest first, that match every filter given."""
    records = await connection.fetch(_LIST, measurement, is_open, before_id, limit)
    return [_episode(record) for record in records]


def _episode(record: asyncpg.Record) -> Episode:
    id_, name, *rest = record
    return Episode(id_, Measurement(name), *rest)
