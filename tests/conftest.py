"""Servers, databases and cores for every test; each xdist worker has its own of all of them."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
import structlog

from deploy.local.migrate import migrate_service
from deploy.local.ports import free_port
from deploy.local.postgres_server import PostgresServer
from deploy.local.redis_server import RedisServer
from deploy.local.services import SERVICE_NAMES, load_service
from shared.clock import system_clock
from shared.process import Core, open_core
from tests.support.blocking import execute, run_blocking
from tests.support.databases import fresh_database
from tests.support.settings import service_settings

#: How many databases a Redis has unless it is told otherwise.
REDIS_DATABASES = 16

_numbers = itertools.count(1)

# How long an example takes says something about the machine and its load, nothing about the code.
hypothesis.settings.register_profile(
    "sluice", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sluice")

# Drawing a traceback with all its variables, as structlog does by default, holds up a test's event
# loop for longer than some of the time-outs it tests.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Make a directory that every user can enter; as root, PostgreSQL runs as another one."""
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[PostgresServer]:
    """Run a PostgreSQL for the session. Not durable: only the machine's end could show that."""
    server = PostgresServer(
        server_directory / "postgres",
        free_port(),
        relocation_base=server_directory / "relocated",
    )
    server.start()
    try:
        for setting in ("fsync", "full_page_writes", "autovacuum"):
            execute(server.url("postgres"), f"ALTER SYSTEM SET {setting} = off")
        execute(server.url("postgres"), "SELECT pg_reload_conf()")
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def redis_server(server_directory: Path) -> Iterator[RedisServer]:
    """Run a Redis for the session."""
    server = RedisServer(server_directory / "redis", free_port())
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def template_database(postgres: PostgresServer) -> str:
    """Make a database that holds every service's schema, to be copied; return its name."""
    name = "template_sluice"
    postgres.create_database(name)
    today = system_clock().date()
    for service in SERVICE_NAMES:
        run_blocking(migrate_service(load_service(service), postgres.url(name), today))
    return name


@pytest.fixture
def new_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Make a database with every service's schema for one test; return its URL."""
    with fresh_database(postgres, template_database) as url:
        yield url


@pytest.fixture
def database_url(new_database: str) -> str:
    """Return the URL of the test's own database, the one of `new_database`."""
    return new_database


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Return the URL of an empty Redis database that the tests just before did not use."""
    number = next(_numbers) % REDIS_DATABASES
    url = f"redis://127.0.0.1:{redis_server.port}/{number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
async def webhook_core(new_database: str, redis_url: str) -> AsyncIterator[Core]:
    """Open the core of the webhook service."""
    async with open_core(service_settings(redis_url), "webhook", new_database) as core:
        yield core


@pytest.fixture
async def payments_core(new_database: str, redis_url: str) -> AsyncIterator[Core]:
    """Open the core of the payments service."""
    async with open_core(service_settings(redis_url), "payments", new_database) as core:
        yield core


@pytest.fixture
async def enrollment_core(new_database: str, redis_url: str) -> AsyncIterator[Core]:
    """Open the core of the enrollment service."""
    async with open_core(service_settings(redis_url), "enrollment", new_database) as core:
        yield core
