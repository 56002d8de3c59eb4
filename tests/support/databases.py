"""Databases for tests, copied from a template that holds every service's schema."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.local.postgres_server import PostgresServer
from tests.support.blocking import execute

_numbers = itertools.count(1)


@contextmanager
def fresh_database(postgres: PostgresServer, template: str = "template0") -> Iterator[str]:
    """Make a database, yield its URL, drop it."""
    name = f"test_{next(_numbers)}"
    administration = postgres.url("postgres")
    execute(administration, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield postgres.url(name)
    finally:
        execute(administration, f"DROP DATABASE {name} WITH (FORCE)")
