"""Fixtures of the tests of what is told about subscriptions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.local.stored_payments import Tables, open_tables
from tests.integration.local.subscriptions.stored import Subscribed, subscribe
from tests.support.reused_database import new_database, reused_database

__all__ = ["new_database", "reused_database", "subscribed", "tables"]


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    """Open the tables of all services; no trigger keeps a test from writing what must not be."""
    async with open_tables(new_database) as tables:
        for connection in tables.connections.values():
            await connection.execute("SET session_replication_role = replica")
        yield tables


@pytest.fixture
async def subscribed(tables: Tables) -> Subscribed:
    """Store a subscription of three paid periods."""
    return await subscribe(tables)
