"""A merchant's listener for notices of any gateway, and what scripting one gateway needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from deploy.local.ports import free_port
from tests.integration.simulator.world import eventually, serving


@dataclass(frozen=True)
class Received:
    """One notice as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    content_type: str
    body: bytes


@dataclass
class Inbox:
    """What came so far."""

    url: str
    received: list[Received] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        self.received.append(
            Received(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers=dict(request.headers),
                content_type=request.content_type,
                body=await request.read(),
            )
        )
        return web.Response()

    async def until(self, count: int) -> list[Received]:
        async def enough() -> bool:
            return len(self.received) >= count

        await eventually(enough)
        return self.received


@asynccontextmanager
async def running_inbox() -> AsyncIterator[Inbox]:
    port = free_port()
    inbox = Inbox(f"http://127.0.0.1:{port}")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", inbox.receive)
    async with serving(application, port):
        yield inbox


@dataclass
class Control:
    """The control API of one gateway."""

    url: str
    gateway: str
    client: aiohttp.ClientSession

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, status: int = 0
    ) -> Any:
        """Return the data, or the error when a status is expected."""
        address = f"{self.url}/simulator/{self.gateway}/{path}"
        async with self.client.request(method, address, json=body) as response:
            answer = await response.json()
            if status:
                assert status == response.status, answer
                return answer["error"]
            assert response.ok, answer
            return answer["data"]

    async def script(self, operation: str, behaviour: str, **more: Any) -> None:
        await self.call("POST", "script", {"operation": operation, "behaviour": behaviour, **more})

    async def profile(self, **profile: Any) -> None:
        async with self.client.put(f"{self.url}/simulator/profile", json=profile) as response:
            assert response.ok, await response.text()

    async def pay(self, reference: str, fate: str = "paid", *, status: int = 0) -> Any:
        """Act as the customer."""
        return await self.call("POST", "pay", {"reference": reference, "fate": fate}, status=status)

    async def charges(self, reference: str) -> list[dict[str, Any]]:
        data = await self.call("GET", f"ledger?reference={reference}")
        return list(data["charges"])

    async def session(self, reference: str) -> dict[str, Any]:
        data = await self.call("GET", f"sessions/{reference}")
        assert isinstance(data, dict)
        return data

    async def until_state(self, reference: str, state: str) -> dict[str, Any]:
        async def reached() -> dict[str, Any] | None:
            address = f"{self.url}/simulator/{self.gateway}/sessions/{reference}"
            async with self.client.get(address) as response:
                session = (await response.json()).get("data")
            return session if session and session["state"] == state else None

        return await eventually(reached)

    async def until_sent(self, reference: str, count: int) -> list[dict[str, Any]]:
        """Wait until so many notices were planned and all were sent."""

        async def sent() -> list[dict[str, Any]] | None:
            notices: list[dict[str, Any]] = (await self.session(reference))["notices"]
            is_done = len(notices) == count and all(each["sentAt"] for each in notices)
            return notices if is_done else None

        return await eventually(sent)


async def read_page(
    client: aiohttp.ClientSession, method: str, address: str, status: int = 200
) -> str:
    async with client.request(method, address) as response:
        assert response.status == status
        assert response.content_type == "text/html"
        return await response.text()


async def breaks(call: Any) -> bool:
    """Tell whether a call gets no whole answer within half a second."""
    try:
        async with asyncio.timeout(0.5):
            await call
    except (aiohttp.ClientError, TimeoutError):
        return True
    return False
