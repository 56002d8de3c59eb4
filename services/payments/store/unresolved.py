"""The SQL statement that counts payments which should have ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from shared.database import Connection
from shared.identifiers import first_id_at

#: How long after its time a payment may take to end: the next look ends it, and looks are an hour
#: apart at the most.
GRACE: Final = timedelta(hours=2)

#: Past this a precise number helps nobody.
COUNTED_MAX: Final = 10_000

# By state and id, so that what is young is never read. One that was tried again has more time.
_COUNT: Final = """
    SELECT count(*)
      FROM (SELECT
              FROM payment
             WHERE state IN ('created', 'pending', 'processing', 'unknown')
               AND id < $1
               AND expires_at < $2
             LIMIT $3) AS unresolved
"""


async def count_unresolved(connection: Connection, now: datetime, expires_after: timedelta) -> int:
    """Count payments that are neither paid nor ended, although their time is over."""
    created_before = first_id_at("pay", now - expires_after - GRACE)
    return int(await connection.fetchval(_COUNT, created_before, now - GRACE, COUNTED_MAX))
