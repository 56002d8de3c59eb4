"""Of every gateway an outage is told from an answer, and its wish to be left alone is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from deploy.local.postgres_server import PostgresServer
from services.payments.domain.call_health import judge
from services.simulator.faults import RETRY_AFTER_SECONDS
from tests.conformance.subjects import SUBJECTS, Way
from tests.conformance.world import World, handle_of, new_order, open_world
from tests.support.databases import fresh_database

LAST_WAYS = [
    pytest.param(gateway, [*ways.values()][-1], id=gateway) for gateway, ways in SUBJECTS.items()
]

# One simulator for all of these tests: each has payments of its own.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def shared_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    with fresh_database(postgres, template_database) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(shared_database: str) -> AsyncIterator[World]:
    async with open_world(shared_database) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared_world: World) -> AsyncIterator[World]:
    yield shared_world
    await shared_world.forget_scripts()


async def judged(world: World, gateway: str, way: Way, behaviour: str | None) -> tuple[bool, float]:
    """Return what is made of a look-up that the gateway answers in a certain way."""
    client = world.gateway(gateway)
    order = new_order(way.method, way.amount)
    order = replace(order, handle=handle_of(await client.start(order)))
    if behaviour is not None:
        for operation in way.looks[0]:
            await world.spoil(gateway, operation, behaviour, times=10)
    return judge(await client.look_up(order))


@pytest.mark.parametrize(("gateway", "way"), LAST_WAYS)
async def test_an_ordinary_answer_says_that_it_works(world: World, gateway: str, way: Way) -> None:
    assert await judged(world, gateway, way, None) == (False, 0)


@pytest.mark.parametrize("fault", ["drop", "error", "malformed"])
@pytest.mark.parametrize(("gateway", "way"), LAST_WAYS)
async def test_no_usable_answer_is_a_failure(
    world: World, gateway: str, way: Way, fault: str
) -> None:
    assert await judged(world, gateway, way, fault) == (True, 0)


@pytest.mark.parametrize(("gateway", "way"), LAST_WAYS)
async def test_what_it_asks_us_to_wait_is_heard(world: World, gateway: str, way: Way) -> None:
    expected = (False, RETRY_AFTER_SECONDS)

    assert await judged(world, gateway, way, "too_many_requests") == expected
