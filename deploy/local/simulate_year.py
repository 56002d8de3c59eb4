"""Lets customers subscribe through the API and moves their test clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import aiohttp

from deploy.local.simulate_plan import (
    Offer,
    SimulationError,
    Subscriber,
    means_of_payment,
)

#: Subscriptions on one clock, whose turn is one transaction of the scan.
PER_CLOCK: Final = 250

#: Requests side by side.
AT_ONCE: Final = 8

#: Pause between two looks at the clocks.
LOOK_SECONDS: Final = 0.5


class Rehearsal:
    """What a simulation has made at a Sluice, and how it is moved.

    Args:
        client: The connection to Sluice, with its address and the key's header.
        start: What the clocks show at first.
    """

    def __init__(self, client: aiohttp.ClientSession, start: datetime) -> None:
        self._client = client
        self._start = start
        self._places = asyncio.Semaphore(AT_ONCE)
        self.clocks: list[str] = []

    async def begin(
        self,
        offers: Sequence[Offer],
        subscribers: Sequence[Subscriber],
        end: datetime,
        advance: Callable[[], None],
    ) -> None:
        """Make everything; the clocks of those who subscribe first go on meanwhile.

        Raises:
            SimulationError: Sluice did not answer as it should.
        """
        plans = [(await self.call("POST", "/api/plans", offer.body))["id"] for offer in offers]
        for first in range(0, len(subscribers), PER_CLOCK):
            group = subscribers[first : first + PER_CLOCK]
            name = f"customers from {first + 1} on"
            clock = await self.call(
                "POST", "/api/test-clocks", {"name": name, "now": self._start.isoformat()}
            )
            self.clocks.append(clock["id"])
            await self._subscribe_all(group, offers, plans, clock["id"], advance)
            await self.call(
                "POST", f"/api/test-clocks/{clock['id']}/advance", {"to": end.isoformat()}
            )

    async def _subscribe_all(
        self,
        group: Sequence[Subscriber],
        offers: Sequence[Offer],
        plans: Sequence[str],
        clock_id: str,
        advance: Callable[[], None],
    ) -> None:
        async def subscribe(subscriber: Subscriber) -> None:
            async with self._places:
                body = means_of_payment(subscriber, offers[subscriber.offer].gateway)
                method = await self.call("POST", "/api/payment-methods", body)
                await self.call(
                    "POST",
                    "/api/subscriptions",
                    {
                        "customerId": subscriber.customer_id,
                        "planId": plans[subscriber.offer],
                        "paymentMethodId": method["id"],
                        "startAt": subscriber.start_at.isoformat(),
                        "timeZone": subscriber.zone,
                        "testClockId": clock_id,
                    },
                )
            advance()

        async with asyncio.TaskGroup() as tasks:
            for subscriber in group:
                tasks.create_task(subscribe(subscriber))

    async def arrive(self, look: Callable[[], Any], *, deadline: float) -> list[dict[str, Any]]:
        """Wait until every clock is ready; return what is waited for if they are not.

        `deadline` is on the monotonic clock; `look` is called again and again.
        """
        waiting = list(self.clocks)
        while True:
            await look()
            views = [await self.call("GET", f"/api/test-clocks/{clock}") for clock in waiting]
            waiting = [view["id"] for view in views if view["state"] != "ready"]
            if not waiting:
                return []
            if time.monotonic() > deadline:
                return [each for view in views for each in view["waitingFor"]]
            await asyncio.sleep(LOOK_SECONDS)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make one call that must succeed, and return its data.

        Raises:
            SimulationError: it did not.
        """
        try:
            async with self._client.request(method, path, json=body) as response:
                answer: Mapping[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = type(error).__name__
            raise SimulationError(f"{method} {path} was not answered ({reason})") from error
        if not response.ok:
            raise SimulationError(f"{method} {path} was answered with {response.status}: {answer}")
        data: dict[str, Any] = answer["data"]
        return data
