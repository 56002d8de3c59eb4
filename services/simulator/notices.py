"""The background tasks: sending notices that are due, ending sessions whose time is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import aiohttp
import structlog

from services.simulator import handlers, notice_store
from services.simulator.handlers import Runtime
from services.simulator.notice_store import DueNotice
from shared.errors import DatabaseUnavailableError

log = structlog.get_logger()

#: How long a merchant may take to answer. The real gateway's value is not documented.
TIMEOUT_SECONDS: Final = 10.0

#: Longer than a delivery and its record take, so that only a dead process loses a lease.
LEASE_SECONDS: Final = 30.0

#: Notices in flight at once. At 100 payments a second a merchant that answers nothing holds 1,000
#: of them for `TIMEOUT_SECONDS`; the others wait, as long as that one is silent.
IN_FLIGHT_MAX: Final = 500

#: How often to look for notices that no handler of this process has announced: late ones, and
#: those of other processes.
POLL_SECONDS: Final = 0.25

EXPIRY_INTERVAL_SECONDS: Final = 1.0


def open_client() -> aiohttp.ClientSession:
    """Make the HTTP client that sends notices; each has a connection of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=IN_FLIGHT_MAX, force_close=True),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Sender:
    """Sends each notice once, when it is due; several processes may share the table."""

    def __init__(self, runtime: Runtime, client: aiohttp.ClientSession) -> None:
        self._runtime = runtime
        self._client = client
        self._in_flight = 0

    async def run(self) -> None:
        """Send for ever, also after PostgreSQL was away."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                self._runtime.notices_due.clear()
                for notice in await self._claim():
                    self._in_flight += 1
                    deliveries.create_task(self._deliver(notice))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._runtime.notices_due.wait()

    async def _claim(self) -> Sequence[DueNotice]:
        free = IN_FLIGHT_MAX - self._in_flight
        if free == 0:
            return ()
        try:
            async with self._runtime.database.connection() as connection:
                return await notice_store.claim_due_notices(connection, free, LEASE_SECONDS)
        except DatabaseUnavailableError as error:
            log.warning("notices_wait", reason=error.message)
            return ()

    async def _deliver(self, notice: DueNotice) -> None:
        status, problem = await self._post(notice)
        log.info("notice_sent", tran_id=notice.tran_id, status=status, problem=problem)
        try:
            async with self._runtime.database.connection() as connection:
                await notice_store.save_sent(connection, notice.id, status, problem)
        except DatabaseUnavailableError as error:
            log.warning("notice_will_be_sent_again", tran_id=notice.tran_id, reason=error.message)
        if self._in_flight == IN_FLIGHT_MAX:
            self._runtime.notices_due.set()
        self._in_flight -= 1

    async def _post(self, notice: DueNotice) -> tuple[int | None, str | None]:
        try:
            async with self._client.post(
                notice.url,
                data=notice.body.encode(),
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                allow_redirects=False,
            ) as response:
                return response.status, None
        except (aiohttp.ClientError, TimeoutError) as error:
            return None, type(error).__name__
        except ValueError as error:
            # A host name that cannot be encoded for the resolver, such as one with two dots.
            return None, type(error).__name__


async def end_sessions(runtime: Runtime) -> None:
    """End lapsed sessions for ever, also after PostgreSQL was away."""
    while True:
        try:
            ended = await handlers.end_lapsed_sessions(runtime)
        except DatabaseUnavailableError as error:
            log.warning("expiry_waits", reason=error.message)
            ended = 0
        if ended < handlers.LAPSED_MAX:
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS)
