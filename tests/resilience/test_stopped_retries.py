"""A worker is stopped with a charge in its hands, past its lease, and then goes on.

Real processes, the real clients, and the simulator, which keeps a ledger of its own. Gateways that
know a repetition get the same charge again; at the others another one is begun only when they know
nothing of the first, and whoever goes on late does not send it any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from services.payments.handlers import retry_worker
from services.payments.handlers.orders import Purchase
from services.payments.handlers.retries import process_payment
from services.payments.runtime import Runtime, open_runtime
from services.payments.settings import PaymentsSettings
from services.payments.store import attempts as attempt_store
from services.payments.store import payments as payment_store
from shared.clock import system_clock
from shared.gateways.interface import Declined, FailureKind, Order
from shared.gateways.registry import REGISTRY
from shared.identifiers import new_id
from shared.process import open_core
from tests.conformance.subjects import SUBJECTS, Way
from tests.conformance.world import World, open_world
from tests.support.fake_gateway import FakeGateway
from tests.support.polling import eventually
from tests.support.settings import service_settings

#: The shortest there is: a try may be sent for a quarter of it.
LEASE = timedelta(seconds=4)

#: How far the clock of whoever takes over is ahead: more than a sender may take.
AHEAD = timedelta(minutes=2)

WAYS = {
    "stripe": SUBJECTS["stripe"]["off session"],
    "x402": SUBJECTS["x402"]["wallet"],
    "fapshi": SUBJECTS["fapshi"]["prompt"],
    "campay": SUBJECTS["campay"]["prompt"],
}

#: Those at which the same call with the same name is the same charge.
KNOW_REPETITIONS = {"stripe", "x402"}

NEVER_MADE = Declined("no network", FailureKind.NETWORK_ERROR, is_final=True)


@dataclass
class Place:
    """A worker with the real clients of all gateways, and the simulator they speak to."""

    world: World
    runtime: Runtime
    environment: dict[str, str]
    workers: list[Process] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)

    async def failed(self, name: str, way: Way) -> None:
        """Create the payment of a gateway, whose first try failed without reaching anybody."""
        gateway = FakeGateway(name, self.runtime.gateways[name].capabilities)
        gateway.next_starts.append(NEVER_MADE)
        purchase = Purchase(
            gateway=name,
            method=way.method,
            amount=way.amount,
            customer={
                "id": f"cus_{name}",
                "name": "Ada",
                "email": "ada@shop.example",
                "phone": "237677123456",
            },
            product={"id": "course_1", "name": "Course"},
            return_url=None,
            metadata={},
        )
        payment_id = new_id("pay", system_clock())
        runtime = replace(self.runtime, gateways={name: gateway})
        view = await process_payment(runtime, payment_id, purchase)
        assert view.payment.state == "retry_scheduled"
        self.ids[name] = payment_id

    async def stopped_worker(self, name: str, *options: str) -> Process:
        """Start a worker, and wait until it has stopped with the retry in its hands."""
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.support.stopped_worker",
            name,
            *options,
            env=self.environment,
            stdout=PIPE,
        )
        self.workers.append(worker)
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"stopped\n"
        return worker

    async def take_over(self) -> int:
        """Carry on what others left behind, for as long as there is any."""
        taken = await retry_worker.take_over_left(self.runtime, 10)
        await asyncio.gather(*taken)
        return len(taken)

    async def orders(self, name: str) -> list[Order]:
        """Return every try of a gateway's payment, in order."""
        async with self.runtime.core.database.connection() as connection:
            references = await connection.fetch(
                "SELECT reference FROM attempt WHERE payment_id = $1 ORDER BY number",
                self.ids[name],
            )
            names = [row["reference"] for row in references]
            found = await attempt_store.find_orders(connection, names)
        return [found[each].order for each in names]

    async def state(self, name: str) -> str:
        payment_id = self.ids[name]
        async with self.runtime.core.database.connection() as connection:
            return (await payment_store.find_by_ids(connection, [payment_id]))[payment_id].state


@pytest.fixture
async def place(new_database: str, redis_url: str) -> AsyncIterator[Place]:
    async with open_world(new_database) as world, _place(world, new_database, redis_url) as place:
        yield place


@asynccontextmanager
async def _place(world: World, database_url: str, redis_url: str) -> AsyncIterator[Place]:
    settings = PaymentsSettings(
        database_url=database_url,
        redis_url=redis_url,
        gateways={name: REGISTRY[name].keys(**world.environment) for name in WAYS},
        retry_lock_timeout=LEASE,
    )

    def ahead() -> datetime:
        return system_clock() + AHEAD

    environment = {
        **os.environ,
        **world.environment,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "RETRY_LOCK_TIMEOUT": str(LEASE.total_seconds()),
    }
    async with open_core(service_settings(redis_url), "payments", database_url) as opened:
        core = replace(opened, clock=ahead)
        async with open_runtime(core, settings) as runtime:
            clients = {name: world.gateway(name) for name in WAYS}
            place = Place(world, replace(runtime, gateways=clients), environment)
            yield place
            for worker in place.workers:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()


async def go_on_late(place: Place, names: Collection[str], *options: str) -> dict[str, str]:
    """Stop a worker for each gateway, let another one take over, and let them go on.

    Returns what the calls of those became that were stopped.
    """
    for name in names:
        await place.failed(name, WAYS[name])
    async with place.runtime.core.database.connection() as connection:
        # Made by the clock that is ahead; the workers have the real one.
        await connection.execute(
            "UPDATE retry SET next_attempt_at = next_attempt_at - $1::interval", AHEAD
        )
    workers = await asyncio.gather(*(place.stopped_worker(name, *options) for name in names))
    taken = 0

    async def all_taken_over() -> bool:
        nonlocal taken
        taken += await place.take_over()
        return taken >= len(names)

    await eventually(all_taken_over)
    before = [order.reference for name in names for order in await place.orders(name)]
    for worker in workers:
        worker.send_signal(signal.SIGCONT)
    said = [(await worker.communicate())[0].decode() for worker in workers]
    after = [order.reference for name in names for order in await place.orders(name)]
    assert after == before, "whoever goes on late begins nothing"
    return dict(zip(names, said, strict=True))


async def test_a_worker_that_is_stopped_past_its_lease_charges_nobody_twice(place: Place) -> None:
    said = await go_on_late(place, WAYS)

    for name in WAYS:
        orders = await place.orders(name)
        if name in KNOW_REPETITIONS:
            assert len(orders) == 2, said[name]
            assert await place.state(name) == "succeeded"
        else:
            # The last one takes the place of the one that was never sent.
            assert len(orders) == 3, said[name]
            assert "not_sent_in_time" in said[name]
            assert await place.state(name) == "pending"
            await place.world.act(name, orders[-1])
        charges = await place.world.charges(name, *orders)
        assert len(charges) == 1, charges


async def test_without_the_deadline_a_phone_is_prompted_twice(place: Place) -> None:
    """The test above notices when the guard is missing."""
    await go_on_late(place, ["fapshi"], "unguarded")

    _, first, second = await place.orders("fapshi")
    for order in (first, second):
        await place.world.act("fapshi", order)
    assert len(await place.world.charges("fapshi", first, second)) == 2
