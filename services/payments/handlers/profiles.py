"""Profiles of limits: written and chosen by operators, and switched by schedule and load."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.limits import as_json
from services.payments.domain.profiles import (
    NORMAL,
    Cause,
    Mode,
    Profile,
    plan_switch,
    windows_as_json,
)
from services.payments.handlers.backlog import read_backlog
from services.payments.handlers.controls import require_gateways
from services.payments.runtime import Runtime
from services.payments.store import profiles as profile_store
from services.payments.store.profiles import ProfileSwitch, StoredProfile
from shared.errors import ConflictError, DatabaseUnavailableError, InvalidInputError, NotFoundError
from shared.web.operator_actions import Instruction, find_action, record_action

log = structlog.get_logger()

#: How often it is looked whether a condition is met. A queue that calls for another profile has
#: grown for longer than that.
INTERVAL_SECONDS: Final = 2.0

#: All of them are read and compared with every look.
PROFILES_MAX: Final = 50


async def follow_conditions(runtime: Runtime) -> None:
    """Bring profiles into force, for ever, as their conditions are met. Every worker does it."""
    while True:
        try:
            await switch_if_due(runtime, await _queue_length(runtime))
        except DatabaseUnavailableError as error:
            log.warning("profiles_wait", reason=error.message)
        await asyncio.sleep(INTERVAL_SECONDS)


async def _queue_length(runtime: Runtime) -> int:
    """Return how many payments wait to be worked on; 0 when no profile asks for it."""
    async with runtime.core.database.connection() as connection:
        stored = await profile_store.list_profiles(connection)
    if all(each.profile.load is None for each in stored.values()):
        return 0
    return (await read_backlog(runtime)).total


async def switch_if_due(runtime: Runtime, queue_length: int) -> ProfileSwitch | None:
    """Switch to the profile whose condition is met; None when the one in force stays.

    Of several workers that see it at once, one switches.
    """
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        stored = await profile_store.list_profiles(connection)
        last = await profile_store.find_last_switch(connection, now)
        planned = plan_switch(
            {name: each.profile for name, each in stored.items()},
            last.in_force(),
            now=now,
            local_now=now.astimezone(runtime.settings.time_zone()),
            queue_length=queue_length,
        )
        if planned is None:
            return None
        switch = ProfileSwitch(
            last.number + 1, now, planned.profile, Mode.AUTOMATIC, planned.cause, queue_length, None
        )
        if not await profile_store.insert_switch(connection, switch):
            return None
    metrics.PROFILE_SWITCHES.labels(planned.cause).inc()
    log.info(
        "profile_switched",
        profile=switch.profile,
        before=last.profile,
        cause=switch.cause,
        queue_length=queue_length,
    )
    return switch


async def set_profile(runtime: Runtime, instruction: Instruction, profile: Profile) -> None:
    """Write a profile, in place of an earlier one with its name; at once if it is in force.

    Raises:
        InvalidInputError: a limit is for a gateway that there is not, or the normal profile has a
            condition.
        ConflictError: there are `PROFILES_MAX` profiles.
    """
    require_gateways(runtime, profile.limits)
    if profile.name == NORMAL and (profile.windows or profile.load is not None):
        problem = "the normal profile is in force when no other is, and has no condition"
        field = "schedule" if profile.windows else "load"
        raise InvalidInputError(problem, details={field: problem})
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        stored = await profile_store.lock_profiles(connection)
        if await find_action(connection, instruction.action_id) is not None:
            return
        if profile.name not in stored and len(stored) >= PROFILES_MAX:
            raise ConflictError(f"there are {PROFILES_MAX} profiles: delete one first")
        written = StoredProfile(profile, instruction.reason, instruction.actor, now)
        await profile_store.set_profile(connection, written)
        before = stored.get(profile.name)
        done = instruction.carried_out(
            "set_profile",
            f"profile:{profile.name}",
            at=now,
            before=None if before is None else recorded(before.profile),
            after=recorded(profile),
        )
        await record_action(connection, done)


async def delete_profile(runtime: Runtime, instruction: Instruction, name: str) -> None:
    """Delete a profile that is not in force.

    Raises:
        NotFoundError: there is none of this name.
        ConflictError: it is in force; the normal one may be deleted all the same, and then stands
            for the settings.
    """
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        stored = await profile_store.lock_profiles(connection)
        if await find_action(connection, instruction.action_id) is not None:
            return
        if name not in stored:
            raise no_profile(name)
        last = await profile_store.find_last_switch(connection, now)
        if name == last.profile and name != NORMAL:
            raise ConflictError(f"the profile {name} is in force: activate another one first")
        await profile_store.delete_profile(connection, name)
        done = instruction.carried_out(
            "delete_profile", f"profile:{name}", at=now, before=recorded(stored[name].profile)
        )
        await record_action(connection, done)


async def activate(runtime: Runtime, instruction: Instruction, name: str) -> None:
    """Bring a profile into force until an operator says otherwise.

    Raises:
        NotFoundError: there is none of this name.
    """
    await _switch_by_hand(runtime, instruction, "activate_profile", Mode.MANUAL, name)


async def follow_automatically(runtime: Runtime, instruction: Instruction) -> None:
    """Let conditions decide again; the profile in force stays until they say otherwise."""
    await _switch_by_hand(runtime, instruction, "automatic_profiles", Mode.AUTOMATIC, None)


async def _switch_by_hand(
    runtime: Runtime, instruction: Instruction, action: str, mode: Mode, name: str | None
) -> None:
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        stored = await profile_store.lock_profiles(connection)
        if await find_action(connection, instruction.action_id) is not None:
            return
        if name is not None and name != NORMAL and name not in stored:
            raise no_profile(name)
        last = await profile_store.find_last_switch(connection, now)
        chosen = ProfileSwitch(
            last.number + 1,
            now,
            last.profile if name is None else name,
            mode,
            Cause.OPERATOR,
            None,
            instruction.actor,
        )
        # A worker may have switched at this very moment; an operator's word comes after that.
        while not await profile_store.insert_switch(connection, chosen):
            chosen = replace(chosen, number=chosen.number + 1)
        done = instruction.carried_out(
            action,
            f"profile:{chosen.profile}",
            at=now,
            before={"profile": last.profile, "mode": last.mode},
            after={"profile": chosen.profile, "mode": chosen.mode},
        )
        await record_action(connection, done)
    metrics.PROFILE_SWITCHES.labels(Cause.OPERATOR).inc()


def no_profile(name: str) -> NotFoundError:
    """Return the refusal of a name that no profile has."""
    return NotFoundError(f"no profile is called {name[:40]!r}")


def recorded(profile: Profile) -> dict[str, object]:
    """Return a profile as it is recorded and shown."""
    load = profile.load
    return {
        "rank": profile.rank,
        "limits": as_json(profile.limits),
        "schedule": windows_as_json(profile.windows),
        "load": None if load is None else {"above": load.above, "below": load.below},
        "minimumStaySeconds": int(profile.minimum_stay.total_seconds()),
    }
