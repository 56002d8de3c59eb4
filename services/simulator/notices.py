"""The background tasks: sending notices, letting customers act, ending payments in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
import structlog

from services.simulator import notice_store
from services.simulator.core import Core
from services.simulator.gateway import LAPSED_MAX, GatewaySimulator
from services.simulator.notice_store import DueAct, DueNotice, Message
from shared.errors import DatabaseUnavailableError, PermanentError

log = structlog.get_logger()

#: How long a merchant may take to answer. The real gateways' values are not documented.
TIMEOUT_SECONDS: Final = 10.0

#: Longer than a delivery and its record take, so that only a dead process loses a lease.
LEASE_SECONDS: Final = 30.0

#: Notices in flight at once. At 100 payments a second a merchant that answers nothing holds 1,000
#: of them for `TIMEOUT_SECONDS`; the others wait, as long as that one is silent.
IN_FLIGHT_MAX: Final = 500

#: Customers that act at once; more would only wait for connections to the database.
ACTING_MAX: Final = 8

#: How often to look for what no handler of this process has announced: what was late, and that of
#: other processes.
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

    def __init__(self, core: Core, client: aiohttp.ClientSession) -> None:
        self._core = core
        self._client = client
        self._in_flight = 0

    async def run(self) -> None:
        """Send for ever, also after PostgreSQL was away."""
        async with asyncio.TaskGroup() as deliveries:
            while True:
                self._core.notices_due.clear()
                for notice in await self._claim():
                    self._in_flight += 1
                    deliveries.create_task(self._deliver(notice))
                await _until(self._core.notices_due)

    async def _claim(self) -> Sequence[DueNotice]:
        free = IN_FLIGHT_MAX - self._in_flight
        if free == 0:
            return ()
        try:
            async with self._core.database.connection() as connection:
                return await notice_store.claim_due_notices(connection, free, LEASE_SECONDS)
        except DatabaseUnavailableError as error:
            log.warning("notices_wait", reason=error.message)
            return ()

    async def _deliver(self, notice: DueNotice) -> None:
        message = notice.message
        status, problem = await self._send(message)
        log.info(
            "notice_sent",
            gateway=message.gateway,
            reference=message.reference,
            status=status,
            problem=problem,
        )
        try:
            async with self._core.database.connection() as connection:
                await notice_store.save_sent(connection, notice.id, status, problem)
        except DatabaseUnavailableError as error:
            log.warning(
                "notice_will_be_sent_again", reference=message.reference, reason=error.message
            )
        if self._in_flight == IN_FLIGHT_MAX:
            self._core.notices_due.set()
        self._in_flight -= 1

    async def _send(self, message: Message) -> tuple[int | None, str | None]:
        try:
            async with self._client.request(
                message.method,
                message.url,
                data=message.body.encode() or None,
                headers=message.headers,
                allow_redirects=False,
            ) as response:
                return response.status, None
        except (aiohttp.ClientError, TimeoutError) as error:
            return None, type(error).__name__
        except ValueError as error:
            # A host name that cannot be encoded for the resolver, such as one with two dots.
            return None, type(error).__name__


class Customers:
    """Lets customers do what is planned for them, when it is due."""

    def __init__(self, core: Core, gateways: Mapping[str, GatewaySimulator]) -> None:
        self._core = core
        self._gateways = gateways

    async def run(self) -> None:
        """Act for ever, also after PostgreSQL was away."""
        while True:
            self._core.acts_due.clear()
            due = await self._claim()
            await asyncio.gather(*(self._act(act) for act in due))
            if len(due) < ACTING_MAX:
                await _until(self._core.acts_due)

    async def _claim(self) -> Sequence[DueAct]:
        try:
            async with self._core.database.connection() as connection:
                return await notice_store.claim_due_acts(connection, ACTING_MAX, LEASE_SECONDS)
        except DatabaseUnavailableError as error:
            log.warning("customers_wait", reason=error.message)
            return ()

    async def _act(self, act: DueAct) -> None:
        try:
            await self._carry_out(act)
            async with self._core.database.connection() as connection:
                await notice_store.delete_act(connection, act.id)
        except DatabaseUnavailableError as error:
            log.warning("customer_will_act_again", reference=act.reference, reason=error.message)

    async def _carry_out(self, act: DueAct) -> None:
        gateway = self._gateways.get(act.gateway)
        if gateway is None:
            return  # One of another version's; nobody here knows what to do.
        try:
            await gateway.act(act.reference, act.wish)
        except PermanentError as error:
            # Somebody was faster, or the payment has ended in another way.
            log.info("customer_came_too_late", reference=act.reference, reason=error.message)


async def end_sessions(core: Core, gateways: Sequence[GatewaySimulator]) -> None:
    """End lapsed payments for ever, also after PostgreSQL was away."""
    while True:
        most = 0
        for gateway in gateways:
            try:
                ended = await gateway.end_lapsed()
            except DatabaseUnavailableError as error:
                log.warning("expiry_waits", gateway=gateway.name, reason=error.message)
                ended = 0
            if ended:
                core.wake()
            most = max(most, ended)
        if most < LAPSED_MAX:
            await asyncio.sleep(EXPIRY_INTERVAL_SECONDS)


async def _until(event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL_SECONDS):
            await event.wait()
