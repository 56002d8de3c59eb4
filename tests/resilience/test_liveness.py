"""A worker whose threads die says so, so that it is started anew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from deploy.local.composition import make_application
from services.enrollment.settings import EnrollmentSettings
from shared.contracts.payments import PaymentSucceeded
from shared.messaging.consumption import consume
from shared.messaging.receiver import Delivery
from shared.messaging.worker import QueueWorker
from shared.process import Core, Part
from tests.support.polling import eventually


async def leave(deliveries: Sequence[Delivery[Any]]) -> None:
    """Handle messages by doing nothing."""


@pytest.fixture
async def part(enrollment_core: Core, redis_url: str) -> AsyncIterator[Part]:
    """Run a worker of enrollment."""
    async with consume(
        enrollment_core,
        redis_url,
        handlers={PaymentSucceeded: leave},
        priorities={"enrollment.grants": 0, "enrollment.access": 5, "enrollment.revocations": 10},
    ) as part:
        yield part


@pytest.mark.parametrize("kind", ["consumers", "workers"])
async def test_a_dead_thread_makes_the_process_not_live(
    part: Part, new_database: str, redis_url: str, kind: str
) -> None:
    settings = EnrollmentSettings(database_url=new_database, redis_url=redis_url)
    worker: QueueWorker = getattr(part.problems, "__self__")  # noqa: B009 - mypy sees a Callable
    threads = getattr(worker._worker, kind)
    victim = next(iter(threads.values())) if kind == "consumers" else threads[0]

    async with TestClient(TestServer(make_application(settings, [], [part]))) as client:

        async def status() -> int:
            async with client.get("/livez") as response:
                return response.status

        async def is_running() -> bool:
            return bool(victim.running)  # Set by the thread itself, once.

        await eventually(is_running)
        assert await status() == 200
        victim.running = False

        async def is_failing() -> bool:
            return await status() == 503

        await eventually(is_failing)
        async with client.get("/health") as response:
            assert "is dead" in str((await response.json())["problems"])
