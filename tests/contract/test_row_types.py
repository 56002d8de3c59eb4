"""Rows are sent to PostgreSQL as tuples: code and schema name their fields in the same order."""

from __future__ import annotations

import asyncpg

from services.scheduler.store.moves import ROW_TYPES

_FIELDS = """
    SELECT array_agg(attname::text ORDER BY attnum)
      FROM pg_attribute
     WHERE attrelid = (SELECT typrelid FROM pg_type WHERE oid = $1::text::regtype)
       AND attnum > 0
       AND NOT attisdropped
"""


async def test_the_row_types_of_moves_are_those_of_the_schema(new_database: str) -> None:
    connection = await asyncpg.connect(new_database, server_settings={"search_path": "scheduler"})
    try:
        found = {name: await connection.fetchval(_FIELDS, name) for name in ROW_TYPES}
    finally:
        await connection.close()

    assert found == {name: list(fields) for name, fields in ROW_TYPES.items()}
