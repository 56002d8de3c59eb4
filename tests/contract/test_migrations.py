"""Migrations run once, in order, whoever else runs them; afterwards each service has its own."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from deploy.local.migrate import migrate_service
from deploy.local.services import SERVICE_NAMES, load_service
from shared.clock import system_clock
from shared.database import Database, role_name
from shared.errors import DatabaseUnavailableError
from shared.migrations import Component, MigrationError, migrate


@pytest.fixture
def component(tmp_path: Path) -> Component:
    """Make a component of two migrations that may be changed."""
    (tmp_path / "0001_create_thing.sql").write_text("CREATE TABLE thing (id int)")
    (tmp_path / "0002_name_thing.sql").write_text("ALTER TABLE thing ADD name text")
    return Component("things", tmp_path)


async def columns(url: str, schema: str, table: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position",
            schema,
            table,
        )
    finally:
        await connection.close()
    return [row["column_name"] for row in rows]


@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_a_second_run_changes_nothing(new_database: str, service: str) -> None:
    today = system_clock().date()

    assert await migrate_service(load_service(service), new_database, today) == []


async def test_migrations_are_applied_in_order_and_named(
    new_database: str, component: Component
) -> None:
    applied = await migrate(new_database, "things", [component])

    assert applied == ["things/0001_create_thing.sql", "things/0002_name_thing.sql"]
    assert await columns(new_database, "things", "thing") == ["id", "name"]


async def test_a_new_file_is_applied_alone(new_database: str, component: Component) -> None:
    await migrate(new_database, "things", [component])
    (component.directory / "0003_size_thing.sql").write_text("ALTER TABLE thing ADD size int")

    assert await migrate(new_database, "things", [component]) == ["things/0003_size_thing.sql"]


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(
    new_database: str, component: Component
) -> None:
    await migrate(new_database, "things", [component])
    (component.directory / "0001_create_thing.sql").write_text("CREATE TABLE thing (id text)")

    with pytest.raises(MigrationError, match=r"things/0001_create_thing\.sql was changed"):
        await migrate(new_database, "things", [component])


async def test_a_file_that_fails_leaves_nothing_of_itself_and_all_before_it(
    new_database: str, component: Component
) -> None:
    (component.directory / "0002_name_thing.sql").write_text(
        "ALTER TABLE thing ADD name text; ALTER TABLE thing ADD id int"
    )
    with pytest.raises(asyncpg.DuplicateColumnError):
        await migrate(new_database, "things", [component])
    assert await columns(new_database, "things", "thing") == ["id"]

    (component.directory / "0002_name_thing.sql").write_text("ALTER TABLE thing ADD name text")
    assert await migrate(new_database, "things", [component]) == ["things/0002_name_thing.sql"]


async def test_of_several_at_once_one_applies_each_file(
    new_database: str, component: Component
) -> None:
    runs = await asyncio.gather(*(migrate(new_database, "things", [component]) for _ in range(4)))

    assert sorted(itertools.chain.from_iterable(runs)) == [
        "things/0001_create_thing.sql",
        "things/0002_name_thing.sql",
    ]


async def test_a_server_that_is_away_is_told_as_such(component: Component) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await migrate("postgresql://nobody:secret@127.0.0.1:1/none", "things", [component])


@pytest.fixture
def databases(new_database: str) -> list[Database]:
    """Return one database as each service sees it; opening them is the test's."""
    return [Database(new_database, name, pool_size_max=1) for name in SERVICE_NAMES]


async def test_a_service_works_under_a_role_of_its_own(databases: list[Database]) -> None:
    for database in databases:
        await database.open()
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT current_user") == role_name(database.schema)
        await database.close()


async def test_no_service_reads_or_changes_what_is_anothers(databases: list[Database]) -> None:
    for database, other in itertools.permutations(databases, 2):
        await database.open()
        async with database.connection() as connection:
            for statement in ("TABLE {}.migration", "DROP TABLE {}.migration", "TABLE {}.outbox"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement.format(other.schema))
        await database.close()


async def test_partitions_of_yesterday_and_the_coming_week_are_there(new_database: str) -> None:
    today = system_clock().date()
    database = Database(new_database, "webhook", pool_size_max=1)
    await database.open()
    async with database.connection() as connection:
        names = {
            row["relname"]
            for row in await connection.fetch(
                "SELECT relname FROM pg_class WHERE relname LIKE 'inbound_event_p%'"
                " AND relkind = 'r'"
            )
        }
    await database.close()

    # One day more at each end: midnight may pass between the migration and this test.
    expected = [f"inbound_event_p{today + timedelta(days=n):%Y%m%d}" for n in range(6)]
    assert names.issuperset(expected)
