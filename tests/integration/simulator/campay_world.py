"""A merchant with an application at the simulated Campay."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import jwt
import orjson

from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.inbox import Control, Inbox, Received, running_inbox
from tests.integration.simulator.world import Merchant, Simulator, running_simulator

TOKEN = "sluice_demo_campay_token"
KEY = "sluice-demo-campay-webhook-key-0123456789"
CREDENTIALS = {"username": "sluice_demo", "password": "sluice_demo_password"}

#: Of MTN, and not magic.
PHONE = "237677123456"


def order(**changes: Any) -> dict[str, Any]:
    """Return the members of a payment; None leaves one out."""
    members = {
        "amount": "5000",
        "currency": "XAF",
        "from": PHONE,
        "description": "Course",
        "external_reference": str(uuid.uuid4()),
        **changes,
    }
    return {name: member for name, member in members.items() if member is not None}


def fields_of(callback: Received) -> dict[str, str]:
    """Read a callback in whichever form it came."""
    if callback.method == "GET":
        assert callback.body == b""
        return dict(callback.query)
    if callback.content_type == "application/json":
        fields = orjson.loads(callback.body)
        assert isinstance(fields, dict)
        return fields
    return dict(parse_qsl(callback.body.decode(), keep_blank_values=True, strict_parsing=True))


def claims_of(callback: Received) -> dict[str, Any]:
    """Verify the signature of a callback as a careful merchant does."""
    claims = jwt.decode(
        fields_of(callback)["signature"],
        KEY,
        algorithms=["HS256"],
        options={"require": ["exp", "iat"]},
    )
    assert isinstance(claims, dict)
    return claims


@dataclass
class Application(Control):
    """The merchant's side of Campay's protocol."""

    inbox: Inbox
    simulator: Simulator

    async def ask(
        self, method: str, path: str, body: Any = None, authorization: str = f"Token {TOKEN}"
    ) -> tuple[int, Any]:
        headers = {"Authorization": authorization} if authorization else {}
        async with self.client.request(
            method, f"{self.url}/campay/api/{path}", json=body, headers=headers
        ) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def collect(self, **changes: Any) -> dict[str, Any]:
        """Prompt a phone; the order is added to the answer."""
        return await self._started("collect/", order(**changes))

    async def link(self, **changes: Any) -> dict[str, Any]:
        """Make a link; the order is added to the answer."""
        return await self._started("get_payment_link/", order(**{"from": None, **changes}))

    async def status(self, reference: str) -> dict[str, Any]:
        status, answer = await self.ask("GET", f"transaction/{reference}/")
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def _started(self, path: str, members: dict[str, Any]) -> dict[str, Any]:
        status, answer = await self.ask("POST", path, members)
        assert status == 200, answer
        return {**members, **answer}


@asynccontextmanager
async def running_application(
    settings: SimulatorSettings, merchant: Merchant, **changes: Any
) -> AsyncIterator[Application]:
    async with running_inbox() as inbox:
        settings = settings.model_copy(update={"notice_url": inbox.url, **changes})
        async with running_simulator(settings, merchant) as simulator:
            yield Application(simulator.url, "campay", simulator.client, inbox, simulator)
