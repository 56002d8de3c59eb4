"""The roles of `database-roles.sql` are enough for services, and for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local.migrate import migrate_service
from deploy.local.ports import free_port
from deploy.local.postgres_server import PostgresServer
from deploy.local.services import WORKER_NAMES, load_service
from shared.clock import system_clock
from shared.database import Database
from tests.support.blocking import execute, run_blocking
from tests.support.manifests import KUBERNETES

PASSWORD = "made-for-this-test"

SCRIPT = (KUBERNETES / "database-roles.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(server_directory: Path) -> Iterator[PostgresServer]:
    """Run a PostgreSQL of its own: roles belong to a whole server."""
    server = PostgresServer(
        server_directory / "roles", free_port(), relocation_base=server_directory / "relocated"
    )
    server.start()
    try:
        server.create_database("sluice")
        logins = re.findall(r"CREATE ROLE (\w+) LOGIN", SCRIPT)
        passwords = [f"ALTER ROLE {name} PASSWORD '{PASSWORD}'" for name in logins]
        execute(server.url(), SCRIPT, *passwords)
        for name in WORKER_NAMES:
            url = as_role(server, "sluice_migration")
            run_blocking(migrate_service(load_service(name), url, system_clock().date()))
        yield server
    finally:
        server.kill()


def as_role(server: PostgresServer, role: str) -> str:
    return re.sub(r"//[^@]+@", f"//{role}:{PASSWORD}@", server.url())


@pytest.mark.parametrize("service", WORKER_NAMES)
async def test_a_service_works_with_its_own_tables_and_sees_no_others(
    server: PostgresServer, service: str
) -> None:
    database = Database(as_role(server, f"{service}_login"), service, pool_size_max=1)
    await database.open()
    try:
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT current_user") == f"sluice_{service}"
            assert await connection.fetchval("SELECT count(*) FROM outbox") == 0
            for other in set(WORKER_NAMES) - {service}:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.fetchval(f"TABLE {other}.outbox")
    finally:
        await database.close()


async def test_a_migration_is_repeated_by_the_same_role(server: PostgresServer) -> None:
    applied = await migrate_service(
        load_service("webhook"), as_role(server, "sluice_migration"), system_clock().date()
    )

    assert applied == []
