"""The HTTP application of a process on a port of its own, and a client with API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from shared.clock import system_clock
from shared.process import Part
from shared.web.application import build_application
from shared.web.direct import Listener
from shared.web.health import health_routes
from shared.web.keys import Keyring, describe, parse_keys
from shared.web.openapi.routes import documentation_routes
from shared.web.rate_limits import RateLimit
from shared.web.routes import Route, Scope
from tests.support.described import Description

#: The text of each test key, by its name.
KEYS = {name: f"key-of-the-{name}-0123456789" for name in ("reader", "writer", "admin")}

_SCOPES = {
    "reader": (Scope.READ,),
    "writer": (Scope.READ, Scope.WRITE),
    "admin": (Scope.READ, Scope.WRITE, Scope.ADMIN),
}


def keyring_of_tests() -> Keyring:
    """Return the keyring that knows `KEYS`."""
    entries = [describe(name, _SCOPES[name], key) for name, key in KEYS.items()]
    return Keyring(parse_keys("\n".join(entries)))


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return orjson.loads(self.raw)

    @property
    def data(self) -> Any:
        """What a success carries in its envelope."""
        body = self.json
        assert body["success"] is True, body
        return body["data"]

    @property
    def error(self) -> Any:
        """What a refusal carries in its envelope."""
        body = self.json
        assert body["success"] is False, body
        assert body["error"].keys() == {"code", "message", "details"}
        return body["error"]


@dataclass(frozen=True, slots=True)
class Api:
    """A client of one running application."""

    url: str
    session: aiohttp.ClientSession
    description: Description

    @property
    def port(self) -> int:
        """Where the application listens."""
        return int(self.url.rpartition(":")[2])

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Reply:
        """Send a request. `body` is sent as it is when it is bytes or a stream, else as JSON.

        The answer must be as `/openapi.json` describes it.
        """
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {KEYS[key]}"
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        if isinstance(body, (dict, list)):
            body = orjson.dumps(body)
            sent["Content-Type"] = "application/json"
        request = self.session.request(
            method, self.url + path, data=body, headers=sent, allow_redirects=False
        )
        async with request as response:
            reply = Reply(response.status, response.headers, await response.read())
        self.description.check(method, path, reply.status, reply.headers, reply.raw)
        return reply


@asynccontextmanager
async def serving(
    routes: Sequence[Route] = (),
    *,
    parts: Sequence[Part] = (),
    keyring: Keyring | None = None,
    rate: float = 100_000,
    port: int = 0,
) -> AsyncIterator[Api]:
    """Serve routes, those of parts, the health routes and the description of all of them."""
    all_routes = [
        *routes,
        *(route for part in parts for route in part.routes),
        *health_routes(parts, system_clock),
    ]
    application = build_application(
        [*all_routes, *documentation_routes(all_routes)],
        keyring=keyring or keyring_of_tests(),
        rate_limit=RateLimit(rate),
    )
    async with serving_application(application, all_routes, port=port) as api:
        yield api


@asynccontextmanager
async def serving_application(
    application: web.Application, routes: Sequence[Any] = (), *, port: int = 0
) -> AsyncIterator[Api]:
    """Serve an application; its answers are held to what `routes` say of them."""
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listener = Listener(runner)
    try:
        await listener.start("127.0.0.1", port)
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{listener.port}"
            yield Api(url, session, Description(routes))
    finally:
        await listener.close(0.1)
