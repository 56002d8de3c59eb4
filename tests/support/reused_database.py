"""One database for all tests of a directory and worker, emptied before each.

Making one from the template takes half a second, emptying it a few milliseconds. A `conftest.py`
imports both fixtures; a test that changes the schema asks for `fresh_database` instead.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.local.postgres_server import PostgresServer
from tests.support.blocking import execute
from tests.support.databases import fresh_database

# In any order: as a replica the session checks no foreign keys.
_EMPTY = """
    DO $$
    DECLARE
        name text;
    BEGIN
        SET LOCAL session_replication_role = replica;
        FOR name IN
            SELECT oid::regclass::text
              FROM pg_class
             WHERE relkind IN ('r', 'p')
               AND NOT relispartition
               AND relnamespace::regnamespace::text IN (
                       'webhook', 'payments', 'enrollment', 'scheduler', 'simulator')
               AND relname NOT IN ('migration', 'transition')
        LOOP
            EXECUTE format('DELETE FROM %s', name);
        END LOOP;
    END
    $$
"""


@pytest.fixture(scope="session")
def reused_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Make the database that `new_database` empties; return its URL."""
    with fresh_database(postgres, template_database) as url:
        yield url


@pytest.fixture
def new_database(reused_database: str) -> str:
    """Empty the database and return its URL. Nothing of the test before uses it any more."""
    execute(reused_database, _EMPTY)
    return reused_database
