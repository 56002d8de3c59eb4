"""SQL of the pace at which all scans together may order charges."""

from __future__ import annotations

from typing import Final

from shared.database import Connection

_BEGIN: Final = "INSERT INTO scan_pace DEFAULT VALUES ON CONFLICT DO NOTHING"


async def begin(connection: Connection) -> None:
    """Have a pace to keep; it is there after the first time."""
    await connection.execute(_BEGIN)


# Whoever comes second waits for the row, and finds what the first one has left. What was not used
# for over a second is lost, so that nothing is saved up for a burst.
_TAKE: Final = """
    WITH pace AS MATERIALIZED (
        SELECT greatest(spent_until, clock_timestamp() - interval '1 second') AS since
          FROM scan_pace
         WHERE is_only
           FOR UPDATE),
    granted AS MATERIALIZED (
        SELECT since,
               least($1::integer, floor(extract(epoch FROM clock_timestamp() - since) * $2::integer)
                   )::integer AS orders
          FROM pace)
    UPDATE scan_pace
       SET spent_until = since + make_interval(secs => orders::float / $2::integer)
      FROM granted
     WHERE is_only
 RETURNING orders
"""


async def take_orders(connection: Connection, most: int, per_second: int) -> int:
    """Take leave to order up to `most` charges now, and return how many are granted."""
    granted: int | None = await connection.fetchval(_TAKE, most, per_second)
    return granted or 0


_GIVE_BACK: Final = """
    UPDATE scan_pace
       SET spent_until = spent_until - make_interval(secs => $1::integer::float / $2::integer)
     WHERE is_only
"""


async def give_back(connection: Connection, orders: int, per_second: int) -> None:
    """Return what was granted and not needed."""
    await connection.execute(_GIVE_BACK, orders, per_second)
