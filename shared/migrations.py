"""Forward-only migrations: numbered `.sql` files, each applied once under a lock."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from shared.database import CONNECT_TIMEOUT_SECONDS, role_name, unavailable_as_transient
from shared.errors import PermanentError


class MigrationError(PermanentError):
    """The migrations on disk and those in the database do not fit together."""


@dataclass(frozen=True, slots=True)
class Component:
    """A directory of migrations; a schema may hold several (its own, messaging, web)."""

    name: str
    directory: Path


_ROOT: Final = Path(__file__).resolve().parent

#: Tables that several services have in their own schemas.
MESSAGING: Final = Component("messaging", _ROOT / "messaging" / "migrations")
WEB: Final = Component("web", _ROOT / "web" / "migrations")

# One number for every schema: roles belong to the whole server, so migrations of two
# services must not run at once. The digits spell nothing; they only have to be ours.
_LOCK: Final = "SELECT pg_advisory_lock(7218402356)"

_MAY_CREATE_ROLES: Final = """
    SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user
"""

_CREATE_LEDGER: Final = """
    CREATE TABLE IF NOT EXISTS migration (
        component  text        NOT NULL,
        name       text        NOT NULL,
        digest     text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (component, name)
    )
"""


async def migrate(url: str, schema: str, components: Sequence[Component]) -> list[str]:
    """Bring a schema up to date and return the names of what was applied.

    Safe to run by several processes at once, and again. Each file is one transaction.

    Raises:
        MigrationError: a file that was applied has changed since.
        DatabaseUnavailableError: the server does not answer.
    """
    with unavailable_as_transient():
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            await connection.execute(_LOCK)
            await _enter_schema(connection, schema)
            await connection.execute(_CREATE_LEDGER)
            applied: list[str] = []
            for component in components:
                applied += await _apply(connection, component)
            return applied
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)


async def _enter_schema(connection: asyncpg.Connection[asyncpg.Record], schema: str) -> None:
    role = role_name(schema)
    if await connection.fetchval(_MAY_CREATE_ROLES):
        await connection.execute(
            f"""
            DO $$ BEGIN
                CREATE ROLE {role} NOLOGIN;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END $$;
            DO $$ BEGIN
                IF NOT pg_has_role(current_user, '{role}', 'member') THEN
                    EXECUTE 'GRANT {role} TO ' || quote_ident(current_user);
                END IF;
            END $$;
            CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role};
            """
        )
    else:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    await connection.execute(f"SET search_path TO {schema}")
    await connection.fetchval(
        "SELECT set_config('role', nspowner::regrole::text, false)"
        "  FROM pg_namespace WHERE nspname = $1",
        schema,
    )


async def _apply(connection: asyncpg.Connection[asyncpg.Record], component: Component) -> list[str]:
    known = {
        row["name"]: row["digest"]
        for row in await connection.fetch(
            "SELECT name, digest FROM migration WHERE component = $1", component.name
        )
    }
    applied = []
    for path in sorted(component.directory.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        if path.name in known:
            if known[path.name] != digest:
                raise MigrationError(f"migration {component.name}/{path.name} was changed later")
            continue
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute(
                "INSERT INTO migration (component, name, digest) VALUES ($1, $2, $3)",
                component.name,
                path.name,
                digest,
            )
        applied.append(f"{component.name}/{path.name}")
    return applied
