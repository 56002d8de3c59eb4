"""The one PostgreSQL and the one Redis that both sides use in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import asyncpg
from redis import Redis

from deploy.local.ports import free_port
from deploy.local.postgres_server import PostgresServer
from deploy.local.redis_server import RedisServer
from tests.benchmark.errors import BenchmarkError
from tests.benchmark.machine import parent_of

MAINTENANCE_DATABASE: Final = "postgres"
# What a comparison of guarantees needs; a server set up otherwise would flatter somebody.
POSTGRES_SETTINGS: Final[Mapping[str, str]] = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
REDIS_SETTINGS: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
}


class Servers:
    """Both servers, started on entering and stopped on leaving the context."""

    def __init__(self, directory: Path) -> None:
        self._stack = ExitStack()
        self._postgres = PostgresServer(directory / "postgres", free_port())
        self._redis = RedisServer(directory / "redis", free_port())
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._runner.close)
            stack.callback(self._postgres.stop)
            self._postgres.start()
            stack.callback(self._redis.stop)
            self._redis.start()
            self._check_settings()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def redis_url(self) -> str:
        """The address of Redis."""
        return self._redis.url()

    @property
    def redis_port(self) -> int:
        """The port of Redis, for clients that take no URL."""
        port = urlsplit(self.redis_url).port
        assert port is not None
        return port

    def postgres_url(self, database: str) -> str:
        """The address of a database."""
        return self._postgres.url(database)

    def process_ids(self) -> list[int]:
        """The roots of both servers' process trees."""
        with Database(self._runner, self.postgres_url(MAINTENANCE_DATABASE)) as database:
            backend = database.value("SELECT pg_backend_pid()")
            assert isinstance(backend, int)
            postmaster = parent_of(backend)
        with Redis.from_url(self.redis_url) as redis:
            return [postmaster, int(redis.info("server")["process_id"])]

    def versions(self) -> dict[str, str]:
        """What both servers say they are."""
        with Database(self._runner, self.postgres_url(MAINTENANCE_DATABASE)) as database:
            postgres = str(database.value("SHOW server_version"))
        with Redis.from_url(self.redis_url) as redis:
            information = redis.info("server")
        name = str(information.get("server_name", "redis"))
        version = str(information.get(f"{name}_version", information["redis_version"]))
        return {"postgresql": postgres, name: version}

    def empty_database(self, name: str) -> Database:
        """Make the database anew, empty Redis, and connect to the database."""
        with Redis.from_url(self.redis_url) as redis:
            redis.flushall()
        with Database(self._runner, self.postgres_url(MAINTENANCE_DATABASE)) as maintenance:
            # The name is one of our constants; identifiers cannot be parameters.
            maintenance.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            maintenance.execute(f'CREATE DATABASE "{name}"')
        return Database(self._runner, self.postgres_url(name))

    def _check_settings(self) -> None:
        found: dict[str, str] = {}
        with Database(self._runner, self.postgres_url(MAINTENANCE_DATABASE)) as database:
            for setting in POSTGRES_SETTINGS:
                found[setting] = str(
                    database.value("SELECT current_setting($1)", setting),
                )
        with Redis.from_url(self.redis_url, decode_responses=True) as redis:
            for setting in REDIS_SETTINGS:
                found |= redis.config_get(setting)
        if found != {**POSTGRES_SETTINGS, **REDIS_SETTINGS}:
            raise BenchmarkError(f"the servers are not set up as a comparison needs: {found}")


class Database:
    """One connection for a program without an event loop; a context manager."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        self._runner = runner
        self._connection: asyncpg.Connection[asyncpg.Record] = runner.run(_connect(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; again is no harm."""
        if not self._connection.is_closed():
            self._runner.run(self._connection.close())

    def execute(self, statement: str, *arguments: object) -> None:
        """Run a statement, or without arguments several."""
        self._runner.run(self._connection.execute(statement, *arguments, timeout=300))

    def value(self, query: str, *arguments: object) -> object:
        """Return the first column of the first row."""
        value: object = self._runner.run(self._connection.fetchval(query, *arguments))
        return value

    def rows(self, query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Return all rows."""
        return self._runner.run(self._connection.fetch(query, *arguments))

    def settle(self) -> None:
        """Vacuum, analyse and checkpoint, so that no run pays for the one before it."""
        self.execute("VACUUM (ANALYZE)")
        self.execute("CHECKPOINT")


async def _connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(url, ssl=False)
