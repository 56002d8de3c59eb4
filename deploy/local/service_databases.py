"""Looks into the databases of all services at once, for commands beside a running Sluice.

Only reads, and no join across services: each may have a database of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from deploy.local.environment import database_url_of, environment_beside, given_in
from deploy.local.errors import LocalStackError
from deploy.local.services import SERVICE_NAMES
from deploy.local.simulator_names import NamesAtSimulator
from shared.database import Database

#: The simulator is left out where there is none: real gateways keep their ledgers to themselves.
REQUIRED: Final = ("webhook", "payments", "enrollment", "scheduler")

#: Rows in memory at a time, so that a table of any length can be checked.
PAGE_ROWS_MAX: Final = 10_000

#: Some checks read a whole table in one statement.
QUERY_SECONDS_MAX: Final = 600.0


class DatabaseUnusableError(LocalStackError):
    """A service's database does not let us in, or has not been migrated."""


class ServiceDatabases:
    """The open databases of the services, by name of the service.

    `names_at_simulator` tells what the simulator calls a payment of theirs.
    """

    def __init__(self, databases: Mapping[str, Database], names: NamesAtSimulator) -> None:
        self._databases = databases
        self.names_at_simulator = names

    @property
    def names(self) -> frozenset[str]:
        """Return the services whose tables are there."""
        return frozenset(self._databases)

    async def fetch(self, service: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one query, which sees everything committed before it began.

        Raises:
            DatabaseUnavailableError: the server is away.
            DatabaseUnusableError: the tables are not those of this version of Sluice.
        """
        try:
            async with (
                self._databases[service].connection() as connection,
                connection.transaction(readonly=True),
            ):
                return await connection.fetch(query, *arguments)
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
            raise DatabaseUnusableError(
                f"the database of {service} is not up to date ({error}): run `sluice migrate`"
            ) from error

    async def pages(
        self, service: str, query: str, *, after: Iterable[Any], key_length: int = 1
    ) -> AsyncIterator[list[asyncpg.Record]]:
        """Read a table in the order of its key, `PAGE_ROWS_MAX` rows at a time.

        Args:
            service: Whose table it is.
            query: Takes the last key of the page before, then the number of rows; returns the key
                first.
            after: What sorts before every key.
            key_length: Columns of the key.
        """
        key = tuple(after)
        while True:
            page = await self.fetch(service, query, *key, PAGE_ROWS_MAX)
            if page:
                yield page
            if len(page) < PAGE_ROWS_MAX:
                return
            key = tuple(page[-1])[:key_length]


def environment_of(data_directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return where the databases are: as the environment says, else as a running stack does.

    Raises:
        LocalStackError: neither says so.
    """
    given = given_in(environment)
    if all(database_url_of(service, given) for service in REQUIRED):
        return given
    return environment_beside(data_directory, environment)


@asynccontextmanager
async def open_databases(environment: Mapping[str, str]) -> AsyncIterator[ServiceDatabases]:
    """Open every service's database.

    Raises:
        DatabaseUnavailableError: a server does not answer.
        DatabaseUnusableError: a database lets us not in, or lacks a service's tables.
    """
    async with AsyncExitStack() as stack:
        databases: dict[str, Database] = {}
        for service in SERVICE_NAMES:
            url = database_url_of(service, environment)
            if url is None:
                continue
            database = Database(
                url, service, pool_size_max=1, command_timeout_seconds=QUERY_SECONDS_MAX
            )
            stack.push_async_callback(database.close)
            if await _open(database):
                databases[service] = database
            elif service in REQUIRED:
                raise DatabaseUnusableError(
                    f"the database of {service} has no tables yet: run `sluice migrate`"
                )
        yield ServiceDatabases(databases, NamesAtSimulator(environment))


async def _open(database: Database) -> bool:
    """Open a database and tell whether its service has tables there."""
    try:
        await database.open()
        async with database.connection() as connection:
            return bool(await connection.fetchval("SELECT to_regclass('migration') IS NOT NULL"))
    except (asyncpg.PostgresError, ValueError) as error:
        # Only the kind of a malformed address: it may contain a password.
        reason = error if isinstance(error, asyncpg.PostgresError) else type(error).__name__
        raise DatabaseUnusableError(
            f"cannot use the database of {database.schema}: {reason}"
        ) from error
