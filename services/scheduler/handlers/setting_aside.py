"""Keeps what cannot be done for one subscription from holding up others: it is set aside."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Final

import asyncpg
import structlog

from services.scheduler import metrics
from services.scheduler.runtime import Runtime
from services.scheduler.store import due as due_store
from shared.errors import ConflictError, DatabaseUnavailableError, TransientError

log = structlog.get_logger()

#: Subscriptions that one scan may set aside. When more fail it is most likely not their fault, but
#: that of what was installed last, and waiting for it to be mended does less harm.
SET_ASIDE_MAX: Final = 100

#: Characters of the reason that are kept.
PROBLEM_MAX: Final = 500

#: Errors of PostgreSQL about what is written. All others are about the server, or the schema.
_ABOUT_THE_ROW: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.PLPGSQLError,
)


class ScanGivesUpError(TransientError):
    """So many subscriptions fail that no more are set aside."""

    code: ClassVar[str] = "scan_gives_up"


def raise_unless_its_fault(error: Exception) -> None:
    """Raise what is not about a subscription: to set one aside for it would help nobody."""
    is_transient = isinstance(error, (DatabaseUnavailableError, ConflictError, ScanGivesUpError))
    is_about_server = isinstance(error, asyncpg.PostgresError)
    if is_transient or (is_about_server and not isinstance(error, _ABOUT_THE_ROW)):
        raise error


class Asides:
    """What one scan sets aside."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._count = 0

    async def put(self, subscription_id: str, error: Exception, until: datetime) -> int:
        """Set a subscription aside that was due by `until`; return 1, or 0 if somebody has it.

        Raises:
            ScanGivesUpError: more fail than can be their fault.
        """
        if self._count >= SET_ASIDE_MAX:
            raise ScanGivesUpError(f"{self._count} subscriptions were set aside in one scan")
        problem = f"{type(error).__name__}: {error}"[:PROBLEM_MAX]
        async with self._runtime.core.database.transaction() as connection:
            if not await due_store.set_aside(connection, subscription_id, problem, until):
                return 0
        self._count += 1
        metrics.SET_ASIDE_BY_SCANS.inc()
        log.error("subscription_set_aside", subscription=subscription_id, exc_info=error)
        return 1
