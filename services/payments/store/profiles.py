"""The SQL statements about profiles of limits, and about which one is in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from services.payments.domain.limits import as_json, from_json
from services.payments.domain.profiles import (
    NORMAL,
    Cause,
    InForce,
    LoadCondition,
    Mode,
    Profile,
    windows_as_json,
    windows_from_json,
)
from shared.database import Connection


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile, with who wrote it, when and why."""

    profile: Profile
    reason: str
    set_by: str
    set_at: datetime


_LIST_PROFILES: Final = """
    SELECT name, rank, limits, schedule, load_above, load_below, minimum_stay, reason, set_by,
           set_at
      FROM limit_profile
     ORDER BY name
"""


async def list_profiles(connection: Connection) -> dict[str, StoredProfile]:
    """Return every profile by its name."""
    records = await connection.fetch(_LIST_PROFILES)
    return {record["name"]: _stored_profile(record) for record in records}


def _stored_profile(record: Any) -> StoredProfile:
    load = None
    if record["load_above"] is not None:
        load = LoadCondition(record["load_above"], record["load_below"])
    return StoredProfile(
        Profile(
            name=record["name"],
            limits=from_json(orjson.loads(record["limits"])),
            rank=record["rank"],
            windows=windows_from_json(orjson.loads(record["schedule"])),
            load=load,
            minimum_stay=record["minimum_stay"],
        ),
        record["reason"],
        record["set_by"],
        record["set_at"],
    )


# What operators write and choose happens one after the other. A worker that switches by itself does
# not wait for it: should it choose a profile that is being deleted, its next look leaves it.
_LOCK_PROFILES: Final = "LOCK TABLE limit_profile IN SHARE ROW EXCLUSIVE MODE"


async def lock_profiles(connection: Connection) -> dict[str, StoredProfile]:
    """Return every profile, and keep others from changing or switching in this transaction."""
    await connection.execute(_LOCK_PROFILES)
    return await list_profiles(connection)


_SET_PROFILE: Final = """
    INSERT INTO limit_profile (name, rank, limits, schedule, load_above, load_below, minimum_stay,
                               reason, set_by, set_at)
    VALUES ($1, $2, $3::jsonb, $4::jsonb, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (name) DO UPDATE
       SET rank = excluded.rank,
           limits = excluded.limits,
           schedule = excluded.schedule,
           load_above = excluded.load_above,
           load_below = excluded.load_below,
           minimum_stay = excluded.minimum_stay,
           reason = excluded.reason,
           set_by = excluded.set_by,
           set_at = excluded.set_at
"""


async def set_profile(connection: Connection, stored: StoredProfile) -> None:
    """Write a profile, in place of an earlier one with its name."""
    profile = stored.profile
    await connection.execute(
        _SET_PROFILE,
        profile.name,
        profile.rank,
        orjson.dumps(as_json(profile.limits)).decode(),
        orjson.dumps(windows_as_json(profile.windows)).decode(),
        None if profile.load is None else profile.load.above,
        None if profile.load is None else profile.load.below,
        profile.minimum_stay,
        stored.reason,
        stored.set_by,
        stored.set_at,
    )


_DELETE_PROFILE: Final = "DELETE FROM limit_profile WHERE name = $1"


async def delete_profile(connection: Connection, name: str) -> None:
    """Delete a profile; the switches to it stay on record."""
    await connection.execute(_DELETE_PROFILE, name)


@dataclass(frozen=True, slots=True)
class ProfileSwitch:
    """One profile that came into force; the highest number is in force now."""

    number: int
    at: datetime
    profile: str
    mode: Mode
    cause: Cause
    queue_length: int | None
    actor: str | None

    def in_force(self) -> InForce:
        """Return it as decisions need it."""
        return InForce(self.profile, self.mode, self.at)


#: What is in force before anything switched.
FIRST: Final = 0

_LIST_SWITCHES: Final = """
    SELECT number, at, profile, mode, cause, queue_length, actor
      FROM profile_switch
     WHERE number < coalesce($1::bigint, 9223372036854775807)
     ORDER BY number DESC
     LIMIT $2
"""


async def list_switches(
    connection: Connection, *, before: int | None, limit: int
) -> list[ProfileSwitch]:
    """Return what came into force, the latest first."""
    return [_switch(record) for record in await connection.fetch(_LIST_SWITCHES, before, limit)]


async def find_last_switch(connection: Connection, now: datetime) -> ProfileSwitch:
    """Return what is in force: before the first switch the normal profile, of number `FIRST`."""
    found = await list_switches(connection, before=None, limit=1)
    if found:
        return found[0]
    return ProfileSwitch(FIRST, now, NORMAL, Mode.AUTOMATIC, Cause.NOTHING, None, None)


def _switch(record: Any) -> ProfileSwitch:
    return ProfileSwitch(
        record["number"],
        record["at"],
        record["profile"],
        Mode(record["mode"]),
        Cause(record["cause"]),
        record["queue_length"],
        record["actor"],
    )


_INSERT_SWITCH: Final = """
    INSERT INTO profile_switch (number, at, profile, mode, cause, queue_length, actor)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (number) DO NOTHING
 RETURNING number
"""


async def insert_switch(connection: Connection, switch: ProfileSwitch) -> bool:
    """Bring a profile into force; False when another switch took the number first."""
    number = await connection.fetchval(
        _INSERT_SWITCH,
        switch.number,
        switch.at,
        switch.profile,
        switch.mode,
        switch.cause,
        switch.queue_length,
        switch.actor,
    )
    return number is not None
