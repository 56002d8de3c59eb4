"""The SQL statements about what operators decided: pauses, the drain, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from services.payments.domain.limits import Limits, from_json
from services.payments.domain.profiles import NORMAL
from shared.database import Connection

#: The keys of `control`: pauses are this and their target, as `flow.controls` calls it.
PAUSE: Final = "pause:"
DRAIN: Final = "drain"
LIMITS: Final = "limits"

#: What a drain is called among the pauses: payments that are new.
NEW_PAYMENTS: Final = "new"


@dataclass(frozen=True, slots=True)
class StoredControls:
    """What every process must know."""

    #: Reasons by target: `all`, `gateway:<name>`, `priority:<level>`, and `new` during a drain.
    paused: Mapping[str, str]
    #: What an operator set by hand.
    override: Limits
    #: The profile in force, and its limits.
    profile_name: str
    profile: Limits


_READ_CONTROLS: Final = """
    SELECT key, reason, value
      FROM control
     UNION ALL
    SELECT 'profile', switch.profile, profile.limits
      FROM (SELECT profile FROM profile_switch ORDER BY number DESC LIMIT 1) AS switch
      LEFT JOIN limit_profile AS profile ON profile.name = switch.profile
"""


async def read_controls(connection: Connection) -> StoredControls:
    """Return what holds now: a handful of rows in one round trip."""
    paused: dict[str, str] = {}
    override, profile_name, profile = Limits(), NORMAL, Limits()
    for key, text, value in await connection.fetch(_READ_CONTROLS):
        if key == DRAIN:
            paused[NEW_PAYMENTS] = text
        elif key == LIMITS:
            override = from_json(orjson.loads(value))
        elif key == "profile":
            profile_name = text
            profile = Limits() if value is None else from_json(orjson.loads(value))
        else:
            paused[key.removeprefix(PAUSE)] = text
    return StoredControls(paused, override, profile_name, profile)


@dataclass(frozen=True, slots=True)
class Control:
    """One decision that holds, with who took it, when and why."""

    key: str
    value: Any
    reason: str
    set_by: str
    set_at: datetime


_LIST_CONTROLS: Final = """
    SELECT key, value, reason, set_by, set_at FROM control ORDER BY key
"""


async def list_controls(connection: Connection) -> dict[str, Control]:
    """Return every decision that holds, by its key."""
    records = await connection.fetch(_LIST_CONTROLS)
    return {record["key"]: _control(record) for record in records}


def _control(record: Any) -> Control:
    return Control(
        record["key"],
        orjson.loads(record["value"]),
        record["reason"],
        record["set_by"],
        record["set_at"],
    )


# Decisions are taken one after the other, so that what was before is told rightly. Readers do not
# wait for it.
_LOCK_CONTROLS: Final = "LOCK TABLE control IN SHARE ROW EXCLUSIVE MODE"


async def lock_controls(connection: Connection) -> dict[str, Control]:
    """Return every decision that holds, and keep others from deciding in this transaction."""
    await connection.execute(_LOCK_CONTROLS)
    return await list_controls(connection)


_SET_CONTROL: Final = """
    INSERT INTO control (key, value, reason, set_by, set_at)
    VALUES ($1, $2::jsonb, $3, $4, $5)
        ON CONFLICT (key) DO UPDATE
       SET value = excluded.value,
           reason = excluded.reason,
           set_by = excluded.set_by,
           set_at = excluded.set_at
"""


async def set_control(connection: Connection, control: Control) -> None:
    """Let a decision hold, in place of an earlier one with its key."""
    await connection.execute(
        _SET_CONTROL,
        control.key,
        orjson.dumps(control.value).decode(),
        control.reason,
        control.set_by,
        control.set_at,
    )


_END_CONTROL: Final = "DELETE FROM control WHERE key = $1"


async def end_control(connection: Connection, key: str) -> None:
    """Let a decision hold no longer; one that does not hold is no error."""
    await connection.execute(_END_CONTROL, key)


# Only the states that are in an index: what is at rest has no part in it.
_COUNT_IN_HAND: Final = """
    SELECT state, count(*) AS payments
      FROM payment
     WHERE state IN ('created', 'pending', 'processing', 'unknown', 'retry_scheduled')
       AND state <> 'succeeded'
     GROUP BY state
"""


async def count_in_hand(connection: Connection) -> dict[str, int]:
    """Return how many payments are not at rest, by state."""
    records = await connection.fetch(_COUNT_IN_HAND)
    return {record["state"]: record["payments"] for record in records}


_COUNT_UNCONFIRMED: Final = "SELECT count(*) FROM outbox WHERE id > 0"


async def count_unconfirmed(connection: Connection) -> int:
    """Return how many messages of this service no receiver has confirmed yet."""
    count: int = await connection.fetchval(_COUNT_UNCONFIRMED)
    return count
