"""A scheduler that stops itself in its scan, when a batch is written and not yet committed.

Run as a process: `python -m tests.support.stopped_scan DATABASE_URL REDIS_URL NOW`. It says
"claimed" and how many just before it stops, and after a SIGCONT what became of the batch.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from services.scheduler.domain.model import Subscription
from services.scheduler.handlers import billing, scan
from services.scheduler.runtime import Runtime
from services.scheduler.settings import SchedulerSettings
from shared.database import Connection
from shared.errors import DatabaseUnavailableError
from shared.messaging.envelope import Outgoing
from shared.process import open_core
from tests.support.clocks import ManualClock


async def _stop_before_commit(
    runtime: Runtime,
    connection: Connection,
    due: Sequence[Subscription],
    moment_of: Callable[[Subscription], datetime],
) -> list[Outgoing]:
    outgoing = await billing.do_what_is_due(runtime, connection, due, moment_of)
    print("claimed", len(due), flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return outgoing


async def main(database_url: str, redis_url: str, now: str) -> None:
    """Scan with one lane."""
    scan.LANES = 1  # type: ignore[misc]
    scan.do_what_is_due = _stop_before_commit  # type: ignore[attr-defined]
    settings = SchedulerSettings(database_url=database_url, redis_url=redis_url)
    async with open_core(settings, "scheduler", database_url) as opened:
        core = replace(opened, clock=ManualClock(datetime.fromisoformat(now)))
        try:
            taken = await scan.scan(Runtime(core, settings))
        except DatabaseUnavailableError as error:
            print("given up", error.message, flush=True)
        else:
            print("taken", taken, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
