"""A merchant with a service at the simulated Fapshi."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.inbox import Control, Inbox, running_inbox
from tests.integration.simulator.world import (
    Merchant,
    Simulator,
    eventually,
    running_simulator,
)

KEYS = {"apiuser": "sluice_demo", "apikey": "FAK_TEST_sluice_demo"}
SECRET = "wh_sluice_demo"

#: Of MTN, and neither magic.
PHONE = "677123456"

_numbers = itertools.count(1)


def order(**changes: Any) -> dict[str, Any]:
    """Return the members of a payment; None leaves one out."""
    number = next(_numbers)
    members = {
        "amount": 5_000,
        "externalId": f"att_{number:026d}",
        "userId": f"cus_{number}",
        "message": "Course",
        **changes,
    }
    return {name: member for name, member in members.items() if member is not None}


@dataclass
class Service(Control):
    """The merchant's side of Fapshi's protocol."""

    inbox: Inbox
    simulator: Simulator

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = KEYS
    ) -> tuple[int, Any]:
        address = f"{self.url}/fapshi{path}"
        async with self.client.request(method, address, json=body, headers=headers) as response:
            assert response.content_type == "application/json", await response.text()
            return response.status, await response.json()

    async def link(self, **changes: Any) -> dict[str, Any]:
        """Make a link; its order is added to the answer."""
        return await self._started("/initiate-pay", order(**changes))

    async def prompt(self, **changes: Any) -> dict[str, Any]:
        """Prompt a phone; the order is added to the answer."""
        return await self._started("/direct-pay", order(**{"phone": PHONE, **changes}))

    async def status(self, trans_id: str) -> dict[str, Any]:
        status, answer = await self.ask("GET", f"/payment-status/{trans_id}")
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    async def until_acted(self, count: int) -> None:
        """Wait until so many customers have acted and will act again, ten minutes later."""

        async def acted() -> bool:
            waiting = "SELECT count(*) FROM act WHERE wish = 'at_last'"
            return int(await self.simulator.execute(waiting)) == count

        await eventually(acted)

    async def _started(self, path: str, members: dict[str, Any]) -> dict[str, Any]:
        status, answer = await self.ask("POST", path, members)
        assert status == 200, answer
        return {**members, **answer}


@asynccontextmanager
async def running_service(
    settings: SimulatorSettings, merchant: Merchant, **changes: Any
) -> AsyncIterator[Service]:
    async with running_inbox() as inbox:
        settings = settings.model_copy(update={"notice_url": inbox.url, **changes})
        async with running_simulator(settings, merchant) as simulator:
            yield Service(simulator.url, "fapshi", simulator.client, inbox, simulator)
