"""The real simulator over HTTP, our clients of it, and whoever it sends its notices to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

from deploy.local.environment import gateways_at_simulator
from deploy.local.ports import free_port
from deploy.local.simulator_names import NamesAtSimulator
from services.simulator.app import http_part
from services.simulator.settings import SimulatorSettings
from shared.clock import system_clock
from shared.gateways.interface import (
    ActionRequired,
    Customer,
    Method,
    Notice,
    NoticeReader,
    Order,
    Outcome,
    PaymentGateway,
    Pending,
)
from shared.gateways.registration import GatewayKeys, Surroundings
from shared.gateways.registry import REGISTRY
from shared.identifiers import new_id
from shared.money import Money
from shared.web.application import build_application
from shared.web.health import health_routes
from shared.web.keys import Keyring
from shared.web.rate_limits import RateLimit
from tests.support.polling import eventually

#: One call of ours. Faults that hang do so for longer.
TIMEOUT_SECONDS = 1.5
HANGING_SECONDS = 1.5

CUSTOMER = Customer("customer-1", "Rahim Uddin", "rahim@example.com", "237677123456")


@dataclass(frozen=True)
class Received:
    """A notice as it came in: what a reader is given."""

    gateway: str
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass
class World:
    """One simulator, and a client for each gateway that it plays."""

    url: str
    session: aiohttp.ClientSession
    environment: Mapping[str, str]
    received: list[Received]
    gateways: dict[str, PaymentGateway] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)

    def gateway(self, name: str) -> PaymentGateway:
        """Return our client, built from the registry as the payments service builds it."""
        if name not in self.gateways:
            surroundings = Surroundings(
                public_url=self.environment["PUBLIC_URL"],
                timeout_seconds=TIMEOUT_SECONDS,
                calls_max=16,
                clock=system_clock,
            )
            self.gateways[name] = REGISTRY[name].client(self._keys(name), surroundings)
        return self.gateways[name]

    def reader(self, name: str) -> NoticeReader:
        make = REGISTRY[name].notices
        assert make is not None
        return make(self._keys(name), system_clock)

    def name_of(self, order: Order, gateway: str) -> str:
        """Return what the simulator calls an order."""
        return NamesAtSimulator(self.environment).of(gateway, order.reference)

    async def act(self, gateway: str, order: Order, wish: str = "paid") -> dict[str, Any]:
        """Do what the customer does, on the page or the phone."""
        reference = self.name_of(order, gateway)
        return await self.control("POST", gateway, "pay", {"reference": reference, "fate": wish})

    async def spoil(self, gateway: str, operation: str, behaviour: str, times: int = 1) -> None:
        """Make the next calls of an operation go wrong."""
        script = {"operation": operation, "behaviour": behaviour, "times": times}
        if behaviour in {"timeout", "timeout_before"}:
            script["delaySeconds"] = HANGING_SECONDS
        self.spoilt.add(gateway)
        await self.control("POST", gateway, "script", script)

    async def charges(self, gateway: str, *orders: Order) -> list[dict[str, Any]]:
        """Return what the simulator's ledger says of some orders."""
        found = []
        for name in {self.name_of(order, gateway) for order in orders}:
            path = f"ledger?reference={name}"
            found += (await self.control("GET", gateway, path))["charges"]
        return found

    async def control(
        self, method: str, gateway: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        address = f"{self.url}/simulator/{gateway}/{path}"
        async with self.session.request(method, address, json=body) as response:
            answer = await response.json()
            assert response.ok, answer
            data = answer["data"]
        assert isinstance(data, dict)
        return data

    async def notices_of(self, gateway: str, order: Order) -> list[Received]:
        """Wait for the first notices that name an order, and return those."""
        name = self.name_of(order, gateway).encode()

        async def any_of_them() -> list[Received]:
            return [each for each in self.received if each.gateway == gateway and name in each.body]

        return await eventually(any_of_them)

    async def paid_notices_of(self, gateway: str, order: Order, count: int) -> list[Notice]:
        """Wait until so many notices have said that an order was paid; each must be authentic."""
        reader = self.reader(gateway)

        async def enough() -> list[Notice]:
            received = await self.notices_of(gateway, order)
            notices = [reader.read(each.headers, each.body) for each in received]
            paid = [notice for notice in notices if notice.claim == "paid"]
            return paid if len(paid) >= count else []

        return await eventually(enough)

    async def dispute_notice_of(self, gateway: str, order: Order) -> Notice:
        """Wait for a notice that a payment of ours is disputed; it names only the gateway's."""
        reader = self.reader(gateway)
        charges = await self.charges(gateway, order)
        names = {charge["gatewayPaymentId"] for charge in charges}

        async def disputed() -> list[Notice]:
            received = [each for each in self.received if each.gateway == gateway]
            notices = [reader.read(each.headers, each.body) for each in received]
            return [each for each in notices if each.claim == "dispute" and each.reference in names]

        return (await eventually(disputed))[0]

    async def forget_scripts(self) -> None:
        """Let every call work again."""
        while self.spoilt:
            await self.control("DELETE", self.spoilt.pop(), "script")

    def _keys(self, name: str) -> GatewayKeys:
        keys: GatewayKeys = REGISTRY[name].keys(**self.environment)
        return keys


def new_order(method: Method, amount: Money) -> Order:
    """Make an order that is old enough for what is not listed at a gateway not to exist there."""
    started_at = system_clock() - 2 * timedelta(seconds=TIMEOUT_SECONDS)
    reference = new_id("att", started_at)
    return Order(reference, amount, method, CUSTOMER, "Bangla for beginners", started_at)


def handle_of(outcome: Outcome) -> str | None:
    return outcome.handle if isinstance(outcome, (ActionRequired, Pending)) else None


@asynccontextmanager
async def open_world(database_url: str) -> AsyncIterator[World]:
    """Run the simulator as its process does, and a listener for what it sends."""
    received: list[Received] = []

    async def receive(request: web.Request) -> web.Response:
        body = request.query_string.encode() if request.method == "GET" else await request.read()
        received.append(Received(request.match_info["gateway"], request.headers, body))
        return web.Response()

    listener = web.Application()
    listener.router.add_route("*", "/webhooks/{gateway}", receive)
    url, public_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        **gateways_at_simulator(url, {}),
        "PUBLIC_URL": public_url,
        # What is not listed by the simulator does not exist.
        "FAPSHI_VISIBLE_AFTER_SECONDS": "0",
        "CAMPAY_VISIBLE_AFTER_SECONDS": "0",
    }
    settings = SimulatorSettings(database_url=database_url, public_url=url, notice_url=public_url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_serving(listener, public_url))
        part = await stack.enter_async_context(http_part(settings))
        application = build_application(
            [*part.routes, *health_routes([part], system_clock)],
            keyring=Keyring(()),
            rate_limit=RateLimit(1),
        )
        await stack.enter_async_context(_serving(application, url))
        tasks = [asyncio.create_task(task()) for task in part.tasks]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        world = World(url, session, environment, received)
        yield world
        for gateway in world.gateways.values():
            await gateway.close()
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not ended, f"a background task has ended: {outcomes}"


@asynccontextmanager
async def _serving(application: web.Application, url: str) -> AsyncIterator[None]:
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(url.rpartition(":")[2])).start()
    yield
    await runner.cleanup()
