"""What the scheduler's handlers need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.scheduler.domain.model import Move, Plan, Situation, Subscription
from services.scheduler.settings import SchedulerSettings
from services.scheduler.store.moves import NO_TRACES, save_moves
from services.scheduler.store.test_clocks import set_going
from shared.database import Connection
from shared.identifiers import new_id
from shared.messaging.envelope import Outgoing
from shared.process import Core


@dataclass(frozen=True, slots=True)
class Runtime:
    """The core and the settings."""

    core: Core
    settings: SchedulerSettings

    def moment_of(self, subscription: Subscription) -> datetime:
        """Return what time it is for a subscription when a message about it comes."""
        return subscription.as_of or self.core.clock()

    def situation(self, plan: Plan, next_plan: Plan | None, now: datetime) -> Situation:
        """Return what a decision needs that may order a charge."""
        return Situation(plan, next_plan, now, new_id("pay", self.core.clock()))


async def write(
    connection: Connection,
    moves: Sequence[Move | None],
    *,
    actor: str | None = None,
    request_id: str | None = None,
    traces: Mapping[str, str | None] = NO_TRACES,
) -> list[Outgoing]:
    """Write what was decided about locked subscriptions; return what to publish after the commit.

    What follows from a move carries on the trace of its subscription, if `traces` holds one.
    Test clocks on which something happens are looked at by the scan until nothing is due there.

    Raises:
        ConflictError: a subscription is not as it was when its move was decided.
    """
    decided = [move for move in moves if move is not None]
    if not decided:
        return []
    outgoing = await save_moves(
        connection, decided, actor=actor, request_id=request_id, traces=traces
    )
    clocks = {move.after.clock_id for move in decided if move.after.clock_id is not None}
    if clocks:
        await set_going(connection, clocks)
    return outgoing
