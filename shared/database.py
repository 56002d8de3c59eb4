"""PostgreSQL: a pool whose connections live in one service's schema, and its transactions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeAlias

import asyncpg

from shared.errors import DatabaseUnavailableError

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

#: Longest wait for a new connection. Callers answer 503 rather than hang.
CONNECT_TIMEOUT_SECONDS: Final = 5.0

#: Longest pause between two statements of a transaction; ours do nothing else meanwhile.
IDLE_IN_TRANSACTION_SECONDS: Final = 10

#: What asyncpg raises when the server is away, going away or not answering.
UNAVAILABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    # Of two that waited for each other it ended one, which may simply try again.
    asyncpg.DeadlockDetectedError,
    asyncpg.InterfaceError,
    # Its word for a statement on a connection that the server has just ended.
    asyncpg.InternalClientError,
)

# Belongs to the role of the service when it exists, so that SQL cannot reach another's tables.
_TAKE_ROLE: Final = """
    SELECT set_config('role', rolname, false)
      FROM pg_roles
     WHERE rolname = $1
       AND pg_has_role(current_user, oid, 'member')
"""


def role_name(schema: str) -> str:
    """Return the database role that owns a service's schema."""
    return f"sluice_{schema}"


@contextmanager
def unavailable_as_transient() -> Iterator[None]:
    """Turn the driver's connection errors into `DatabaseUnavailableError`."""
    try:
        yield
    except UNAVAILABLE as error:
        if isinstance(error, ValueError):
            raise  # The driver's word for a value it cannot encode: our mistake, not its absence.
        raise DatabaseUnavailableError(
            f"PostgreSQL did not answer ({type(error).__name__})"
        ) from error


class Database:
    """A pool of connections to one service's schema."""

    def __init__(
        self,
        url: str,
        schema: str,
        *,
        pool_size_max: int = 10,
        command_timeout_seconds: float = 5.0,
    ) -> None:
        self.schema = schema
        self._url = url
        self._pool_size_max = pool_size_max
        self._command_timeout_seconds = command_timeout_seconds
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connect once, so that a wrong address fails at boot.

        Raises:
            DatabaseUnavailableError: the server does not answer.
        """
        with unavailable_as_transient():
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=1,
                max_size=self._pool_size_max,
                timeout=CONNECT_TIMEOUT_SECONDS,
                command_timeout=self._command_timeout_seconds,
                server_settings={
                    "search_path": self.schema,
                    "application_name": f"sluice-{self.schema}",
                    # A plan made once per connection is right for every batch size, and
                    # planning anew costs more than it can win on these tables.
                    "plan_cache_mode": "force_generic_plan",
                    # Such a plan outlives the emptiness of a new partition, where PostgreSQL
                    # would choose to read all of it. Every statement here has its index.
                    "enable_seqscan": "off",
                    # A process that is frozen, or whose machine is gone, holds its rows no longer.
                    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS}s",
                },
                init=self._take_role,
                # Nothing here leaves state in a session; the default reset is a round
                # trip of 120 microseconds at each release.
                reset=_keep_session,
            )

    async def close(self) -> None:
        """Close every connection; bounded, because the server may be away."""
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection without a transaction: each statement commits by itself.

        Raises:
            DatabaseUnavailableError: the server is away or did not answer in time.
        """
        with unavailable_as_transient():
            if self._pool is None:
                raise DatabaseUnavailableError("the database is not open")
            async with self._pool.acquire(timeout=CONNECT_TIMEOUT_SECONDS) as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction that commits when the block ends.

        Raises:
            DatabaseUnavailableError: the server is away or did not answer in time; whether
                the commit happened is then unknown.
        """
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def ping(self) -> bool:
        """Tell whether the server answers."""
        try:
            async with self.connection() as connection:
                return bool(await connection.fetchval("SELECT true"))
        except DatabaseUnavailableError:
            return False

    async def _take_role(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        await connection.fetchval(_TAKE_ROLE, role_name(self.schema))


async def _keep_session(_connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Leave the session as it is."""
