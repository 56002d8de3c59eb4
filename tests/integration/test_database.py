"""The pool of connections, when the server ends one of them, or a transaction on it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from shared.database import Database
from shared.errors import DatabaseUnavailableError
from tests.support.tcp_proxy import proxied


async def test_a_statement_on_a_connection_that_was_just_ended_meets_a_database_away(
    new_database: str,
) -> None:
    async with proxied(new_database) as (proxy, url):
        proxy.tells_ends = False
        database = Database(url, "payments", pool_size_max=1)
        await database.open()
        administration = await asyncpg.connect(new_database)
        ended = []

        async def speak_after_the_end() -> None:
            async with database.connection() as connection:
                ended.append(await connection.fetchval("SELECT pg_backend_pid()"))
                await administration.execute("SELECT pg_terminate_backend($1, 5000)", ended[0])
                await connection.fetchval("SELECT true")

        with pytest.raises(DatabaseUnavailableError):
            await speak_after_the_end()

        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT pg_backend_pid()") not in ended
        await administration.close()
        await database.close()


async def test_of_two_that_wait_for_each_other_one_may_try_again(new_database: str) -> None:
    database = Database(new_database, "payments")
    await database.open()
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", first)
            await both_hold_one.wait()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", second)

    ends = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    await database.close()

    assert [type(end) for end in ends if end is not None] == [DatabaseUnavailableError]
