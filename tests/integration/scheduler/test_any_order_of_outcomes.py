"""Whatever order the messages about a charge come in, and however often: the end is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.scheduler.worker import handlers_of
from shared.contracts.base import Message
from shared.contracts.scheduler import ChargeSubscription
from shared.messaging.receiver import Delivery, Handler
from tests.integration.scheduler.world import (
    Scheduler,
    failed,
    progressed,
    running_scheduler,
    succeeded,
)

T = TypeVar("T")


class Told(NamedTuple):
    """A message about a charge: what is said, about which try, and whether it may still be paid."""

    what: str
    attempts_made: int
    is_open: bool = False


#: How a charge may end: at once, looked at by a person before, left open and closed later, or paid
#: when it was given up.
ENDS: Final = ("succeeded", "failed", "held", "open", "late", "late_and_open")


@st.composite
def lives(draw: st.DrawFn) -> list[Told]:
    """Make up what payments says of one charge until its end, in the order in which it is true."""
    told = [Told("accepted", 0)]
    tries = draw(st.integers(1, 4))
    told_of = draw(st.sets(st.integers(1, tries)))
    for number in range(1, tries + 1):
        if number in told_of:
            told.append(Told("sent", number))
        if number < tries:
            told.append(Told("retried", number))
    end = draw(st.sampled_from(ENDS))
    if end == "held":
        told.append(Told("held", tries))
        end = draw(st.sampled_from(["succeeded", "failed"]))
    if end == "open":
        told += [Told("failed", tries, is_open=True), Told("failed", tries)]
    elif end in {"late", "late_and_open"}:
        is_open = end == "late_and_open"
        told += [Told("failed", tries, is_open=is_open), Told("succeeded", tries)]
    else:
        told.append(Told(end, tries))
    return told


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Told], list[list[Told]]]:
    """Make up a life, and batches in which all of it comes, some of it several times."""
    life = draw(lives())
    again = draw(st.lists(st.sampled_from(life), max_size=5))
    shuffled = draw(st.permutations(life + again))
    batches: list[list[Told]] = [[]]
    cuts = draw(st.lists(st.booleans(), min_size=len(shuffled), max_size=len(shuffled)))
    for told, begins_batch in zip(shuffled, cuts, strict=True):
        if batches[-1] and begins_batch:
            batches.append([])
        batches[-1].append(told)
    return life, batches


def message(order: ChargeSubscription, told: Told) -> Message:
    match told.what:
        case "succeeded":
            return succeeded(order, attempts_made=told.attempts_made)
        case "failed":
            return failed(order, attempts_made=told.attempts_made, may_still_be_paid=told.is_open)
        case "retried":
            return failed(order, attempts_made=told.attempts_made, retry_after_seconds=3_600.0)
        case step:
            return progressed(order, step, attempts_made=told.attempts_made)


class World:
    """One scheduler for all examples: each has a subscription of its own."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.service: Scheduler = self.run(
            self._stack.enter_async_context(running_scheduler(database_url, redis_url))
        )
        self.plan = self.run(self.service.plan())
        self.handlers: dict[type[Message], Handler] = handlers_of(self.service.runtime)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    async def end_of(self, batches: list[list[Told]]) -> dict[str, Any]:
        """Charge a new subscription, tell the scheduler, and return how all stands then."""
        subscription = await self.service.subscribe(self.plan)
        assert await self.service.bill_due() == 1
        (order,) = await self.service.orders()
        for batch in batches:
            await asyncio.gather(*(self.tell(message(order, told)) for told in batch))
        (row,) = await self.service.rows(
            "SELECT * FROM subscription WHERE id = $1", subscription["id"]
        )
        (cycle,) = await self.service.cycles(subscription)
        (job,) = await self.service.jobs(subscription)
        return {
            "subscription": {name: row[name] for name in SAME if name in row},
            "cycle": {name: cycle[name] for name in ("state", "reason", "paid_at")},
            "job": {name: value for name, value in job.items() if name not in OF_ITS_OWN},
        }

    async def tell(self, said: Message) -> None:
        delivery = Delivery(self, "scheduler.outcomes", "payments", 0, said, None)
        await self.handlers[type(said)]([delivery])

    def finish(self, delivery: Delivery[Any]) -> None:
        """Hear that a message is handled."""

    def put_back(self, _delivery: Delivery[Any], error: Exception) -> None:
        raise error


#: What of a subscription must be the same. Not why it is active: it may or may not have been late.
SAME: Final = (
    *("state", "is_unpaid", "charging", "charges_made", "retry_at", "may_still_be_paid"),
    *("failed_at", "dunning_step", "grace_until", "has_access", "access_sequence", "due_at"),
)

#: What each job has for itself.
OF_ITS_OWN: Final = (
    *("id", "subscription_id", "payment_id", "payment_method_id", "gateway_reference"),
    *("created_at", "updated_at"),
)


@pytest.fixture
def world(new_database: str, redis_url: str) -> Iterator[World]:
    world = World(new_database, redis_url)
    yield world
    world.close()


def test_the_end_of_a_charge_does_not_depend_on_the_order_of_its_messages(world: World) -> None:
    @settings(
        max_examples=30,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(deliveries())
    def holds(made_up: tuple[list[Told], list[list[Told]]]) -> None:
        life, batches = made_up
        expected = world.run(world.end_of([[told] for told in life]))

        assert world.run(world.end_of(batches)) == expected

    holds()
