"""Idempotency keys: the first answer for a key is stored, and given again to whoever repeats it.

A key is claimed before the work in a transaction of its own, so that a second request sees it in
use. The answer is stored in the transaction of the work. A process that dies between leaves a
lease; when that is over, the next request with the key does the work.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import orjson

from services.simulator.stripe.errors import key_in_use, mismatch
from services.simulator.stripe.form import Tree, flatten
from shared.database import Connection

KEY_LENGTH_MAX: Final = 255

#: After this a key may be used for something new, and is forgotten.
KEPT: Final = timedelta(hours=24)

#: How long a request may take. One that takes longer loses its key to whoever repeats it, and then
#: its work is undone: `save_answer` tells.
LEASE: Final = timedelta(seconds=60)

#: Forgotten keys that one statement deletes.
PRUNED_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was given before."""

    status: int
    body: bytes
    request_id: str


def fingerprint(tree: Tree) -> bytes:
    """Return what tells whether two requests have the same parameters, in whatever order."""
    return hashlib.sha256(orjson.dumps(flatten(tree), option=orjson.OPT_SORT_KEYS)).digest()


# Somebody else's row is taken over when nobody remembers it, or when it was never answered.
_CLAIM_KEY: Final = """
    INSERT INTO stripe_idempotency AS stored (
               key, path, fingerprint, request_id, created_at, leased_until)
    VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (key) DO UPDATE
       SET path = excluded.path, fingerprint = excluded.fingerprint,
           request_id = excluded.request_id, status = NULL, body = NULL,
           created_at = excluded.created_at, leased_until = excluded.leased_until
     WHERE stored.created_at <= $7
        OR (stored.status IS NULL AND stored.leased_until <= $5)
 RETURNING true
"""

_FIND_KEY: Final = """
    SELECT path, fingerprint, request_id, status, body
      FROM stripe_idempotency
     WHERE key = $1
"""


async def claim_key(
    connection: Connection, key: str, path: str, tree: Tree, *, request_id: str, now: datetime
) -> Stored | None:
    """Claim a key, or return what was answered for it.

    Raises:
        ApiError: the key is in use, or was used for something else.
    """
    same = fingerprint(tree)
    while True:
        claimed = await connection.fetchval(
            _CLAIM_KEY, key, path, same, request_id, now, now + LEASE, now - KEPT
        )
        if claimed is True:
            return None
        row = await connection.fetchrow(_FIND_KEY, key)
        if row is None:
            continue  # Freed meanwhile: its request turned out to store nothing.
        if row["path"] != path or row["fingerprint"] != same:
            raise mismatch(key, row["path"], path)
        if row["status"] is None:
            raise key_in_use(key)
        return Stored(row["status"], row["body"], row["request_id"])


_SAVE_ANSWER: Final = """
    UPDATE stripe_idempotency
       SET status = $3, body = $4
     WHERE key = $1
       AND request_id = $2
       AND status IS NULL
 RETURNING true
"""


async def save_answer(
    connection: Connection, key: str, request_id: str, status: int, body: bytes
) -> bool:
    """Store the answer; tell whether the claim was still this request's."""
    return await connection.fetchval(_SAVE_ANSWER, key, request_id, status, body) is True


_FREE_KEY: Final = """
    DELETE FROM stripe_idempotency
     WHERE key = $1
       AND request_id = $2
       AND status IS NULL
"""


async def free_key(connection: Connection, key: str, request_id: str) -> None:
    """Forget a claim whose request stored nothing."""
    await connection.execute(_FREE_KEY, key, request_id)


_AGE_KEYS: Final = """
    WITH aged AS (
             UPDATE stripe_idempotency
                SET created_at = created_at - $1::interval
          RETURNING key
         )
  SELECT count(*) FROM aged
"""


async def age_keys(connection: Connection, by: timedelta) -> int:
    """Make every key older than it is, and return how many there are."""
    count = await connection.fetchval(_AGE_KEYS, by)
    assert isinstance(count, int)
    return count


_PRUNE_KEYS: Final = """
    WITH pruned AS (
             DELETE FROM stripe_idempotency
              WHERE key IN (
                        SELECT key
                          FROM stripe_idempotency
                         WHERE created_at <= $1
                         ORDER BY created_at
                         LIMIT $2
                           FOR UPDATE SKIP LOCKED
                    )
          RETURNING key
         )
  SELECT count(*) FROM pruned
"""


async def prune_keys(connection: Connection, now: datetime) -> int:
    """Forget keys that are over 24 hours old, and return how many."""
    count = await connection.fetchval(_PRUNE_KEYS, now - KEPT, PRUNED_MAX)
    assert isinstance(count, int)
    return count
