"""Does what is due for subscriptions that are locked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime

from services.scheduler.domain.lifecycle import take_due
from services.scheduler.domain.model import Subscription
from services.scheduler.runtime import Runtime, write
from services.scheduler.store.subscriptions import find_plans, plan_ids
from shared.database import Connection
from shared.messaging.envelope import Outgoing


async def do_what_is_due(
    runtime: Runtime,
    connection: Connection,
    due: Sequence[Subscription],
    moment_of: Callable[[Subscription], datetime],
) -> list[Outgoing]:
    """Decide and write one move for each of `due`, and return what to publish after the commit.

    They are locked by the caller's transaction; `moment_of` says when each is decided about, which
    is not before it is due.
    """
    plans = await find_plans(connection, plan_ids(due))
    moves = [
        take_due(
            each,
            runtime.situation(
                plans[each.plan_id],
                None if each.next_plan_id is None else plans[each.next_plan_id],
                moment_of(each),
            ),
        )
        for each in due
    ]
    tracing = runtime.core.tracing
    if not tracing.is_on:
        return await write(connection, moves)
    with ExitStack() as spans:
        traces = {
            each.id: spans.enter_context(
                tracing.span("scheduler.due", attributes={"subscription": each.id})
            )
            for each in due
        }
        return await write(connection, moves, traces=traces)
