"""A running payments service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.payments.world import Payments, running_payments
from tests.support.reused_database import new_database, reused_database

__all__ = ["new_database", "payments", "reused_database"]


@pytest.fixture
async def payments(new_database: str, redis_url: str) -> AsyncIterator[Payments]:
    async with running_payments(new_database, redis_url) as payments:
        yield payments
