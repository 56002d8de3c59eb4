"""Asynchronous work from synchronous fixtures, on an event loop that nothing else sees."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg

T = TypeVar("T")


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end. Unlike `asyncio.run` it leaves pytest-asyncio's loop in place."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def execute(url: str, *statements: str) -> None:
    """Run SQL statements, each by itself: CREATE DATABASE refuses a transaction."""
    run_blocking(_execute(url, statements))


async def _execute(url: str, statements: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
