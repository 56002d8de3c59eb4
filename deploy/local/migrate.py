"""`sluice migrate`: schemas and partitions of all services, or of some, brought up to date."""

from __future__ import annotations

import argparse
import asyncio
import os
from datetime import date

import asyncpg

from deploy.local.environment import database_url_of, without_password
from deploy.local.errors import LocalStackError
from deploy.local.services import SERVICE_NAMES, Service, load_service
from shared import migrations, partitions
from shared.clock import system_clock
from shared.database import CONNECT_TIMEOUT_SECONDS, Database, unavailable_as_transient
from shared.errors import DatabaseUnavailableError


class DatabaseRefusedError(LocalStackError):
    """A database cannot be used as its address says."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "services",
        nargs="*",
        metavar="SERVICE",
        help=f"some of {', '.join(SERVICE_NAMES)} (all)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Migrate one service after the other; doing it again changes nothing.

    Raises:
        LocalStackError: a service is unknown, or its database cannot be used.
        MigrationError: files and database do not fit together.
    """
    unknown = sorted(set(arguments.services) - set(SERVICE_NAMES))
    if unknown:
        raise LocalStackError(f"no service is called {', '.join(unknown)}")
    today = system_clock().date()
    for name in arguments.services or SERVICE_NAMES:
        url = database_url_of(name, os.environ)
        if url is None:
            raise LocalStackError(f"set DATABASE_URL or {name.upper()}_DATABASE_URL")
        applied = asyncio.run(migrate_service(load_service(name), url, today))
        for migration in applied:
            print(f"{name}: applied {migration}")
        if not applied:
            print(f"{name}: up to date")
    return 0


async def migrate_service(service: Service, url: str, today: date) -> list[str]:
    """Bring one service's schema and partitions up to date; return the migrations applied.

    Raises:
        DatabaseRefusedError: the database does not let us in.
    """
    await _try_connection(url)
    applied = await migrations.migrate(url, service.name, service.migrations)
    if service.partitioned_tables:
        database = Database(url, service.name, pool_size_max=1)
        await database.open()
        try:
            await partitions.maintain(database, service.partitioned_tables, today)
        finally:
            await database.close()
    return applied


async def _try_connection(url: str) -> None:
    try:
        with unavailable_as_transient():
            connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
    except (DatabaseUnavailableError, asyncpg.PostgresError, ValueError) as error:
        # No more of a malformed address than its reason: it may contain a password.
        raise DatabaseRefusedError(f"cannot use the database {_name(url)}: {error}") from error
    await connection.close()


def _name(url: str) -> str:
    try:
        return without_password(url)
    except ValueError:
        return "that is given"
