"""A running enrollment service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.enrollment.world import Enrollments, running_enrollments
from tests.support.reused_database import new_database, reused_database

__all__ = ["new_database", "reused_database", "service"]


@pytest.fixture
async def service(new_database: str, redis_url: str) -> AsyncIterator[Enrollments]:
    async with running_enrollments(new_database, redis_url) as service:
        yield service
