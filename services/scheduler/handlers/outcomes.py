"""Hears what became of charges."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.trace import SpanKind

from services.scheduler import metrics
from services.scheduler.domain.model import Charged, Move, Plan, Subscription
from services.scheduler.domain.outcomes import failed, progressed, succeeded
from services.scheduler.runtime import Runtime, write
from services.scheduler.store.jobs import Billed, find_billed, find_gone
from services.scheduler.store.subscriptions import find_plans, lock_subscriptions, plan_ids
from shared.batching import Batcher
from shared.contracts.payments import ChargeFailed, ChargeProgressed, ChargeSucceeded
from shared.database import Connection
from shared.errors import NotFoundError
from shared.messaging.envelope import Outgoing
from shared.messaging.receiver import Delivery

Outcome: TypeAlias = ChargeProgressed | ChargeSucceeded | ChargeFailed

#: Messages of one transaction.
BATCH_MAX: Final = 200


class Heard(NamedTuple):
    """A message, and the traceparent of what follows from it."""

    message: Outcome
    traceparent: str | None


class Outcomes:
    """Writes what became of charges, many in one transaction, in the order in which they come.

    One transaction at a time: what is said of one charge is seldom out of order then.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batcher: Batcher[Heard, NotFoundError | None] = Batcher(
            self._write, size_max=BATCH_MAX
        )

    async def hear(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Handle messages; what is known already changes nothing.

        A message about a charge that was never ordered fails for good.
        """
        tracing = self._runtime.core.tracing
        with ExitStack() as spans:
            heard = [
                Heard(
                    delivery.message,
                    spans.enter_context(
                        tracing.span(
                            "scheduler.outcome",
                            traceparent=delivery.traceparent,
                            kind=SpanKind.CONSUMER,
                            attributes={"payment": delivery.message.payment_id},
                        )
                    ),
                )
                for delivery in deliveries
            ]
            # Futures, not tasks: nothing is done for one before its batch is committed.
            problems = await asyncio.gather(*(self._batcher.submit(each) for each in heard))
        for delivery, problem in zip(deliveries, problems, strict=True):
            if problem is not None:
                delivery.fail(problem)

    async def _write(self, batch: Sequence[Heard]) -> Sequence[NotFoundError | None]:
        outgoing: list[Outgoing] = []
        effects: list[str] = []
        async with self._runtime.core.database.transaction() as connection:
            known = await _read(connection, self._runtime, [each.message for each in batch])
            for turn in _turns([each for each in batch if each.message.payment_id in known.billed]):
                moves = [known.decide(each.message) for each in turn]
                traces = {each.message.subscription_id: each.traceparent for each in turn}
                outgoing += await write(connection, moves, traces=traces)
                effects += ["known" if move is None else move.event for move in moves]
        self._runtime.core.publisher.publish(outgoing)
        for effect in effects:
            metrics.OUTCOMES.labels(effect).inc()
        return [
            None if each.message.payment_id in known.billed else _never_ordered(each.message)
            for each in batch
        ]


def _never_ordered(message: Outcome) -> NotFoundError:
    metrics.OUTCOMES.labels("never_ordered").inc()
    return NotFoundError(
        f"subscription {message.subscription_id} never ordered payment {message.payment_id}"
    )


def _turns(batch: Sequence[Heard]) -> list[list[Heard]]:
    """Deal out messages so that no turn has two of one subscription, keeping their order."""
    turns: list[list[Heard]] = []
    counts: dict[str, int] = {}
    for each in batch:
        number = counts.get(each.message.subscription_id, 0)
        counts[each.message.subscription_id] = number + 1
        if number == len(turns):
            turns.append([])
        turns[number].append(each)
    return turns


async def _read(connection: Connection, runtime: Runtime, messages: Sequence[Outcome]) -> _Batch:
    """Lock the subscriptions of messages, and read what deciding needs."""
    subscriptions = await lock_subscriptions(
        connection, {message.subscription_id for message in messages}
    )
    wanted = {
        (message.payment_id, message.subscription_id)
        for message in messages
        if message.subscription_id in subscriptions
    }
    billed = await find_billed(connection, list(wanted))
    for payment_id, subscription_id in sorted(wanted):
        if payment_id not in billed:
            gone = await find_gone(connection, payment_id, subscription_id)
            if gone is not None:
                billed[payment_id] = gone
    payments: defaultdict[str, list[str]] = defaultdict(list)
    for payment_id, each in billed.items():
        payments[each.charged.job.subscription_id].append(payment_id)
    needed = plan_ids(subscriptions.values()) | {each.plan_id for each in billed.values()}
    plans = await find_plans(connection, needed)
    return _Batch(runtime, subscriptions, billed, payments, plans)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is read for a batch, kept as it stands after each decision."""

    runtime: Runtime
    subscriptions: dict[str, Subscription]
    billed: dict[str, Billed]
    #: The payments of each subscription.
    payments: Mapping[str, Sequence[str]]
    plans: Mapping[str, Plan]

    def decide(self, message: Outcome) -> Move | None:
        """Return what a message changes; the next decision is made from what it leaves."""
        subscription = self.subscriptions[message.subscription_id]
        billed = self.billed[message.payment_id]
        plan = self.plans[subscription.plan_id]
        now = self.runtime.moment_of(subscription)
        move = _decide(subscription, plan, billed.charged, message, now)
        if move is None:
            return None
        if billed.plan_id != subscription.plan_id:
            # Late money is counted for the plan that billed it; all else is decided by the present.
            move = replace(move, plan=self.plans[billed.plan_id])
        self._keep(move)
        return move

    def _keep(self, move: Move) -> None:
        after = move.after
        if after is not move.before:
            self.subscriptions[after.id] = after._replace(version=move.before.version + 1)
        cycles = {cycle.period_start: cycle for cycle in move.cycles}
        for payment_id in self.payments[after.id]:
            billed = self.billed[payment_id]
            job, cycle = billed.charged
            if move.job is not None and move.job.id == job.id:
                job = move.job
            charged = Charged(job, cycles.get(job.period_start, cycle))
            self.billed[payment_id] = billed._replace(charged=charged)


def _decide(
    s: Subscription, plan: Plan, charged: Charged, message: Outcome, now: datetime
) -> Move | None:
    match message:
        case ChargeProgressed():
            return progressed(s, plan, charged.job, message, now)
        case ChargeSucceeded():
            return succeeded(s, plan, charged, message, now)
        case ChargeFailed():
            return failed(s, plan, charged, message, now)
