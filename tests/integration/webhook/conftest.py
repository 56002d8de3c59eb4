"""A running webhook service for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.webhook.world import Webhook, running_webhook
from tests.support.reused_database import new_database, reused_database

__all__ = ["new_database", "reused_database", "webhook"]


@pytest.fixture
async def webhook(new_database: str, redis_url: str) -> AsyncIterator[Webhook]:
    async with running_webhook(new_database, redis_url) as webhook:
        yield webhook
