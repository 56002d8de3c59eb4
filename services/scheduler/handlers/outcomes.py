"""Hears what became of charges."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias

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


class Outcomes:
    """Writes what became of charges, many in one transaction, in the order in which they come.

    One transaction at a time: what is said of one charge is seldom out of order then.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batcher: Batcher[Outcome, NotFoundError | None] = Batcher(
            self._write, size_max=BATCH_MAX
        )

    async def hear(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Handle messages; what is known already changes nothing.

        A message about a charge that was never ordered fails for good.
        """
        tracing = self._runtime.core.tracing
        with ExitStack() as spans:
            if tracing.is_on:
                for delivery in deliveries:
                    span = tracing.span(
                        "scheduler.outcome",
                        traceparent=delivery.traceparent,
                        kind=SpanKind.CONSUMER,
                        attributes={"payment": delivery.message.payment_id},
                    )
                    spans.enter_context(span)
            # Futures, not tasks: nothing is done for one before its batch is committed.
            problems = await asyncio.gather(
                *(self._batcher.submit(each.message) for each in deliveries)
            )
        for delivery, problem in zip(deliveries, problems, strict=True):
            if problem is not None:
                delivery.fail(problem)

    async def _write(self, messages: Sequence[Outcome]) -> Sequence[NotFoundError | None]:
        outgoing: list[Outgoing] = []
        problems: list[NotFoundError | None] = []
        effects: list[str] = []
        async with self._runtime.core.database.transaction() as connection:
            batch = await _read(connection, self._runtime, messages)
            known = [each for each in messages if each.payment_id in batch.billed]
            for turn in _turns(known):
                moves = [batch.decide(each) for each in turn]
                outgoing += await write(connection, moves)
                effects += ["known" if move is None else move.event for move in moves]
        self._runtime.core.publisher.publish(outgoing)
        for effect in effects:
            metrics.OUTCOMES.labels(effect).inc()
        for message in messages:
            is_known = message.payment_id in batch.billed
            problems.append(None if is_known else _never_ordered(message))
        return problems


def _never_ordered(message: Outcome) -> NotFoundError:
    metrics.OUTCOMES.labels("never_ordered").inc()
    return NotFoundError(
        f"subscription {message.subscription_id} never ordered payment {message.payment_id}"
    )


def _turns(messages: Sequence[Outcome]) -> list[list[Outcome]]:
    """Deal out messages so that no turn has two of one subscription, keeping their order."""
    turns: list[list[Outcome]] = []
    counts: dict[str, int] = {}
    for message in messages:
        number = counts.get(message.subscription_id, 0)
        counts[message.subscription_id] = number + 1
        if number == len(turns):
            turns.append([])
        turns[number].append(message)
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
