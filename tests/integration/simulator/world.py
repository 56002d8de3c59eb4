"""A running simulator over HTTP, and a merchant that records the notices it gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import aiohttp
import asyncpg
from aiohttp import web

from deploy.local.ports import free_port
from services.simulator.app import http_part
from services.simulator.settings import SimulatorSettings
from shared.clock import system_clock
from shared.web.application import build_application
from shared.web.health import health_routes
from shared.web.keys import Keyring
from shared.web.rate_limits import RateLimit
from tests.unit.simulator.forms import STORE, session_form

SESSION_PATH = "/gwprocess/v4/api.php"
VALIDATION_PATH = "/validator/api/validationserverAPI.php"
QUERY_PATH = "/validator/api/merchantTransIDvalidationAPI.php"
CONTROL_PATH = "/simulator/sslcommerz"

DEADLINE_SECONDS = 15.0

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T | None]], *, deadline_seconds: float = DEADLINE_SECONDS
) -> T:
    """Look again until there is something to see, or fail at the deadline."""
    async with asyncio.timeout(deadline_seconds):
        while True:
            if seen := await look():
                return seen
            await asyncio.sleep(0.02)


@dataclass
class Merchant:
    """An IPN listener."""

    url: str
    notices: list[dict[str, str]] = field(default_factory=list)
    #: What it answers, and whether it answers at all.
    status: int = 200
    is_open: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        assert request.content_type == "application/x-www-form-urlencoded"
        self.notices.append(dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True)))
        await self.is_open.wait()
        return web.Response(status=self.status)

    async def until_received(self, count: int) -> list[dict[str, str]]:
        async def enough() -> bool:
            return len(self.notices) >= count

        await eventually(enough)
        return self.notices


@dataclass
class Simulator:
    """A client of one running simulator."""

    url: str
    client: aiohttp.ClientSession
    merchant: Merchant
    settings: SimulatorSettings

    async def open(self, **changes: str) -> dict[str, Any]:
        """Open a session; its `tran_id` is added to the answer."""
        form = session_form(**{"ipn_url": self.merchant.url, **changes})
        async with self.client.post(self.url + SESSION_PATH, data=form) as response:
            assert response.status == 200
            return {**await response.json(), "tran_id": form["tran_id"]}

    async def pay(self, reference: str, fate: str = "paid") -> dict[str, Any]:
        """Act as the customer."""
        data = await self.control("POST", "pay", {"reference": reference, "fate": fate})
        assert isinstance(data, dict)
        return data

    async def paid(self, **changes: str) -> dict[str, Any]:
        """Open a session and press Pay."""
        return await self.pay((await self.open(**changes))["tran_id"])

    async def validate(self, val_id: str, **changes: str) -> dict[str, Any]:
        return await self.get(VALIDATION_PATH, val_id=val_id, **changes)

    async def query(self, **parameters: str) -> dict[str, Any]:
        return await self.get(QUERY_PATH, **parameters)

    async def get(self, path: str, **parameters: str) -> dict[str, Any]:
        parameters = {**STORE, "format": "json", **parameters}
        async with self.client.get(self.url + path, params=parameters) as response:
            assert response.status == 200
            answer = await response.json()
        assert isinstance(answer, dict)
        return answer

    async def status_of(self, path: str, **parameters: str) -> int:
        parameters = {**STORE, **parameters}
        async with self.client.get(self.url + path, params=parameters) as response:
            return response.status

    async def control(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, status: int = 0
    ) -> Any:
        """Use the control API; return the data, or the error when a status is expected."""
        address = f"{self.url}{'/simulator' if path == 'profile' else CONTROL_PATH}/{path}"
        async with self.client.request(method, address, json=body) as response:
            answer = await response.json()
            if status:
                assert status == response.status, answer
                return answer["error"]
            assert response.ok, answer
            return answer["data"]

    async def session(self, reference: str) -> dict[str, Any]:
        data = await self.control("GET", f"sessions/{reference}")
        assert isinstance(data, dict)
        return data

    async def charges(self, reference: str) -> list[dict[str, Any]]:
        data = await self.control("GET", f"ledger?reference={reference}")
        assert data["count"] == len(data["charges"])
        return list(data["charges"])

    async def sent_notices(self, reference: str) -> list[dict[str, Any]]:
        """Wait until every planned notice was sent, and return what came of them."""

        async def all_sent() -> list[dict[str, Any]] | None:
            notices: list[dict[str, Any]] = (await self.session(reference))["notices"]
            return notices if notices and all(each["sentAt"] for each in notices) else None

        return await eventually(all_sent)

    async def execute(self, statement: str, *arguments: Any) -> Any:
        """Change or read the simulator's database from outside; return the first value."""
        connection = await asyncpg.connect(
            self.settings.database_url, server_settings={"search_path": "simulator"}
        )
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()


@asynccontextmanager
async def serving(application: web.Application, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield
    await runner.cleanup()


@asynccontextmanager
async def running_merchant() -> AsyncIterator[Merchant]:
    port = free_port()
    merchant = Merchant(f"http://127.0.0.1:{port}/ipn")
    merchant.is_open.set()
    application = web.Application()
    application.router.add_post("/ipn", merchant.receive)
    async with serving(application, port):
        yield merchant


@asynccontextmanager
async def running_simulator(
    settings: SimulatorSettings, merchant: Merchant
) -> AsyncIterator[Simulator]:
    """Run the simulator as its process does: routes, health and background tasks."""
    port = free_port()
    async with http_part(settings) as part, aiohttp.ClientSession() as client:
        application = build_application(
            [*part.routes, *health_routes([part], system_clock)],
            keyring=Keyring(()),
            rate_limit=RateLimit(1),
        )
        async with serving(application, port):
            tasks = [asyncio.create_task(task()) for task in part.tasks]
            yield Simulator(f"http://127.0.0.1:{port}", client, merchant, settings)
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert not ended, f"a background task has ended: {outcomes}"
