"""Idempotency keys: the same key and body give the first answer again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import ClassVar, Final

import asyncpg
import structlog
from aiohttp import web

from shared.clock import Clock
from shared.database import Database
from shared.errors import (
    ConflictError,
    DatabaseUnavailableError,
    IdempotencyConflictError,
    InvalidInputError,
    PermanentError,
    SluiceError,
)
from shared.identifiers import new_id
from shared.web.errors import error_body, status_of
from shared.web.routes import Answer, json_response

KEY_LENGTH_MAX: Final = 255

log = structlog.get_logger()

#: How long a request may hold its key. Longer than the slowest gateway call, so that a repeated
#: request never runs beside the first.
LEASE_SECONDS: Final = 60

#: Pause between two tries to release a key while PostgreSQL is away.
RELEASE_INTERVAL_SECONDS: Final = 0.5

#: Keys are forgotten after this many days.
KEEP_DAYS: Final = 7
FORGET_INTERVAL_SECONDS: Final = 3_600


class KeyInUseError(ConflictError):
    """A request with the same key is still running."""

    code = "idempotency_key_in_use"

    #: What `Retry-After` says. After a crash the key is free when its lease has run out.
    retry_after_seconds: ClassVar[int] = 5


_CLAIM: Final = """
    INSERT INTO idempotency_key (caller, key, fingerprint, resource_id, leased_until)
    VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5))
        ON CONFLICT (caller, key) DO UPDATE
       SET leased_until = clock_timestamp() + make_interval(secs => $5)
     WHERE idempotency_key.status IS NULL
       AND idempotency_key.fingerprint = excluded.fingerprint
       AND idempotency_key.leased_until <= clock_timestamp()
 RETURNING resource_id, leased_until
"""

_FIND: Final = """
    SELECT fingerprint, status, body FROM idempotency_key WHERE caller = $1 AND key = $2
"""

_STORE: Final = """
    UPDATE idempotency_key SET status = $3, body = $4 WHERE caller = $1 AND key = $2
"""

# Only the lease that was ours: it may have run out meanwhile, and another request may hold the key.
_RELEASE: Final = """
    UPDATE idempotency_key
       SET leased_until = clock_timestamp()
     WHERE caller = $1
       AND key = $2
       AND leased_until = $3
"""

_FORGET_OLD: Final = """
    DELETE FROM idempotency_key WHERE created_at < clock_timestamp() - make_interval(days => $1)
"""


class IdempotencyKeys:
    """Runs a write once per key; the answers are kept in the service's own schema."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._releases: set[asyncio.Task[None]] = set()

    async def run(
        self,
        request: web.Request,
        body: bytes,
        *,
        caller: str,
        prefix: str,
        work: Callable[[str], Awaitable[Answer]],
    ) -> web.Response:
        """Answer a write, from memory when its `Idempotency-Key` was answered before.

        `work` receives the id of the resource to make. After a crash or an outage a repeated
        request calls it again with the same id, so it must carry on what it finds. Final answers,
        refusals included, are kept; those worth repeating are not.

        Raises:
            IdempotencyConflictError: the key was used with another method, path or body.
            KeyInUseError: the first request with this key is still running.
        """
        resource_id = new_id(prefix, self._clock())
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return (await work(resource_id)).response()
        if not 1 <= len(key) <= KEY_LENGTH_MAX or not key.isascii() or not key.isprintable():
            raise InvalidInputError(
                f"Idempotency-Key must be 1 to {KEY_LENGTH_MAX} printable ASCII characters",
                details={"Idempotency-Key": "wrong length or characters"},
            )
        fingerprint = hashlib.sha256(f"{request.method} {request.path}\n".encode() + body).digest()
        async with self._database.connection() as connection:
            claimed = await connection.fetchrow(
                _CLAIM, caller, key, fingerprint, resource_id, LEASE_SECONDS
            )
            known = None
            if claimed is None:
                known = await connection.fetchrow(_FIND, caller, key)
        if claimed is None:
            return _replay(known, fingerprint)
        resource_id, leased_until = claimed
        try:
            return await self._work(caller, key, resource_id, work)
        except SluiceError:
            await self._release(caller, key, leased_until)
            raise

    async def _work(
        self, caller: str, key: str, resource_id: str, work: Callable[[str], Awaitable[Answer]]
    ) -> web.Response:
        try:
            answer = await work(resource_id)
            status, body = answer.status, answer.body()
        except PermanentError as error:
            status, body = status_of(error), error_body(error)
        async with self._database.connection() as connection:
            await connection.execute(_STORE, caller, key, status, body)
        return json_response(body, status=status)

    async def _release(self, caller: str, key: str, leased_until: datetime) -> None:
        """Let the request be repeated at once; while PostgreSQL is away, as soon as it is back."""
        try:
            await self._release_once(caller, key, leased_until)
        except DatabaseUnavailableError:
            task = asyncio.create_task(self._release_later(caller, key, leased_until))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release_later(self, caller: str, key: str, leased_until: datetime) -> None:
        with contextlib.suppress(TimeoutError):  # Then the lease has run out by itself.
            async with asyncio.timeout(LEASE_SECONDS):
                while True:
                    await asyncio.sleep(RELEASE_INTERVAL_SECONDS)
                    with contextlib.suppress(DatabaseUnavailableError):
                        return await self._release_once(caller, key, leased_until)

    async def _release_once(self, caller: str, key: str, leased_until: datetime) -> None:
        async with self._database.connection() as connection:
            await connection.execute(_RELEASE, caller, key, leased_until)

    async def forget_old_for_ever(self) -> None:
        """Delete, once an hour, keys past `KEEP_DAYS`."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await connection.execute(_FORGET_OLD, KEEP_DAYS)
            except DatabaseUnavailableError as error:
                log.warning("old_keys_wait", reason=error.message)
            await asyncio.sleep(FORGET_INTERVAL_SECONDS)


def _replay(known: asyncpg.Record | None, fingerprint: bytes) -> web.Response:
    if known is None:
        raise KeyInUseError("the idempotency key was just given up; send the request again")
    if known["fingerprint"] != fingerprint:
        raise IdempotencyConflictError("the idempotency key was used with another request")
    if known["status"] is None:
        raise KeyInUseError("a request with this idempotency key is still running")
    return json_response(
        known["body"],
        status=known["status"],
        headers={"Idempotent-Replayed": "true"},
    )
