"""PostgreSQL itself checks every SQL constant against the migrated schema, without running it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import asyncpg
import pytest

from deploy.local.postgres_server import PostgresServer
from deploy.local.services import SERVICE_NAMES, load_service
from shared.migrations import MESSAGING, WEB
from tests.support.databases import fresh_database
from tests.support.modules import module_names

_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s")

#: Modules whose tables lie in the schema of every service that migrates the component.
_COMPONENTS = {"shared.messaging": MESSAGING, "shared.web": WEB}


def schemas_of(module: str) -> list[str]:
    """Return the schemas in which a module's SQL is meant to run."""
    package, _, _ = module.rpartition(".")
    if module.startswith("services."):
        return [module.split(".")[1]]
    component = _COMPONENTS.get(package)
    return [
        name
        for name in SERVICE_NAMES
        if component is None or component in load_service(name).migrations
    ]


#: A store is a module, or each module of a package but those without SQL: one only lists its
#: tables, another one reads rows.
_STORE = re.compile(
    r"^services\.(?!(?:payments|enrollment|scheduler)\.store$)(\w+\.)+"
    r"(\w*store|store\.(?!(?:tables|rows)$)\w+)$"
)

QUERIES = [
    pytest.param(schema, text, id=f"{module}.{name} in {schema}")
    for module in module_names()
    if module.startswith(("services.", "shared."))
    for name, text in vars(importlib.import_module(module)).items()
    if name.lstrip("_").isupper() and isinstance(text, str) and _STATEMENT.match(text)
    for schema in schemas_of(module)
]


@pytest.fixture(scope="module")
def migrated_url(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Make one database for all queries: preparing changes nothing."""
    with fresh_database(postgres, template_database) as url:
        yield url


@pytest.mark.parametrize(("schema", "query"), QUERIES)
async def test_a_query_prepares(migrated_url: str, schema: str, query: str) -> None:
    connection = await asyncpg.connect(migrated_url, server_settings={"search_path": schema})
    try:
        await connection.prepare(query)
    finally:
        await connection.close()


def test_the_queries_of_every_store_are_among_them() -> None:
    found = {str(query.id).partition("._")[0] for query in QUERIES}
    stores = {name for name in module_names() if _STORE.search(name)}

    assert found >= stores
    assert {name.split(".")[1] for name in stores} == set(SERVICE_NAMES)
    assert found >= {"shared.messaging.outbox", "shared.web.idempotency"}
