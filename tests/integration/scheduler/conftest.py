"""A running scheduler for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.scheduler.world import Scheduler, running_scheduler
from tests.support.reused_database import new_database, reused_database

__all__ = ["new_database", "reused_database", "service"]


@pytest.fixture
async def service(new_database: str, redis_url: str) -> AsyncIterator[Scheduler]:
    async with running_scheduler(new_database, redis_url) as service:
        yield service
