"""What operators decide: pause, resume, drain, limits, purge. Each decision is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.payments.domain.limits import Limits, as_json
from services.payments.runtime import Runtime
from services.payments.store import controls as control_store
from services.payments.store import profiles as profile_store
from services.payments.store.controls import DRAIN, LIMITS, PAUSE, Control, StoredControls
from services.payments.store.profiles import ProfileSwitch
from shared.contracts.subscriptions import SUBSCRIPTIONS, queues_of
from shared.errors import InvalidInputError
from shared.messaging.purge import Purged, purge_queues
from shared.web.operator_actions import Instruction, find_action, record_action


@dataclass(frozen=True, slots=True)
class InHand:
    """What is begun and not finished."""

    #: Payments that are not at rest, by state.
    payments: Mapping[str, int]
    #: Messages of this service whose receivers have not confirmed them.
    messages: int

    @property
    def is_empty(self) -> bool:
        """Whether all that was begun is finished."""
        return not self.payments and not self.messages


@dataclass(frozen=True, slots=True)
class ControlsView:
    """What holds now, and who decided it."""

    decisions: Mapping[str, Control]
    stored: StoredControls
    profile: ProfileSwitch
    in_hand: InHand


async def read_controls(runtime: Runtime) -> ControlsView:
    """Return what holds now. Processes follow it within two seconds."""
    async with runtime.core.database.transaction() as connection:
        return ControlsView(
            decisions=await control_store.list_controls(connection),
            stored=await control_store.read_controls(connection),
            profile=await profile_store.find_last_switch(connection, runtime.core.clock()),
            in_hand=InHand(
                await control_store.count_in_hand(connection),
                await control_store.count_unconfirmed(connection),
            ),
        )


async def pause(runtime: Runtime, instruction: Instruction, target: str) -> None:
    """Let no call be made for a target until it is resumed; what waits is kept where it is."""
    await _decide(runtime, instruction, "pause", target, key=f"{PAUSE}{target}", value={})


async def resume(runtime: Runtime, instruction: Instruction, target: str) -> None:
    """End the pause of a target, or the drain; one that is not paused is no error."""
    key = DRAIN if target == control_store.NEW_PAYMENTS else f"{PAUSE}{target}"
    await _decide(runtime, instruction, "resume", target, key=key, value=None)


async def drain(runtime: Runtime, instruction: Instruction) -> None:
    """Accept no new payments; what is in hand is finished."""
    await _decide(runtime, instruction, "drain", control_store.NEW_PAYMENTS, key=DRAIN, value={})


async def set_limits(runtime: Runtime, instruction: Instruction, limits: Limits) -> None:
    """Let an operator's limits hold, in place of earlier ones of an operator.

    Raises:
        InvalidInputError: a limit is for a gateway that there is not.
    """
    require_gateways(runtime, limits)
    await _decide(runtime, instruction, "set_limits", LIMITS, key=LIMITS, value=as_json(limits))


async def reset_limits(runtime: Runtime, instruction: Instruction) -> None:
    """Let the profile's limits and the settings hold again."""
    await _decide(runtime, instruction, "reset_limits", LIMITS, key=LIMITS, value=None)


def require_gateways(runtime: Runtime, limits: Limits) -> None:
    """Check that limits are for gateways that are on.

    Raises:
        InvalidInputError: one is not; names it.
    """
    known = ", ".join(sorted(runtime.gateways))
    unknown = {
        f"gateways.{name}": f"must be one of {known}"
        for name in limits.gateways
        if name not in runtime.gateways
    }
    if unknown:
        raise InvalidInputError(f"limits are for the gateways {known}", details=unknown)


async def _decide(
    runtime: Runtime,
    instruction: Instruction,
    action: str,
    target: str,
    *,
    key: str,
    value: Mapping[str, Any] | None,
) -> None:
    """Let a decision hold, or with None hold no longer, and record it, in one transaction."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        held = await control_store.lock_controls(connection)
        if await find_action(connection, instruction.action_id) is not None:
            return  # Carried out before the request was cut off; others may have decided since.
        after = None
        if value is None:
            await control_store.end_control(connection, key)
        else:
            after = Control(key, value, instruction.reason, instruction.actor, now)
            await control_store.set_control(connection, after)
        done = instruction.carried_out(
            action, target, at=now, before=_recorded(held.get(key)), after=_recorded(after)
        )
        await record_action(connection, done)


def _recorded(control: Control | None) -> dict[str, Any] | None:
    if control is None:
        return None
    return {**control.value, "reason": control.reason, "by": control.set_by}


async def purge(runtime: Runtime, instruction: Instruction) -> Mapping[str, Purged]:
    """Clear the queues in Redis of what no worker will take up again, and record how much it was.

    It is recorded afterwards: repeated after a crash, it finds nothing more to clear.

    Raises:
        RedisUnavailableError: Redis is away.
    """
    queues = sorted(
        queue
        for service in {each.service for all_ in SUBSCRIPTIONS.values() for each in all_}
        for queue in queues_of(service)
    )
    purged = await purge_queues(runtime.core.redis, queues)
    done = instruction.carried_out(
        "purge",
        "redis",
        at=runtime.core.clock(),
        after={
            queue: {"deadLetters": each.dead_letters, "orphanedBodies": each.orphaned_bodies}
            for queue, each in purged.items()
            if each != Purged(0, 0)
        },
    )
    async with runtime.core.database.transaction() as connection:
        await record_action(connection, done)
    return purged
