"""Payments over HTTP: made as a merchant, paid as a customer, followed to their end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from deploy.local.demo_fates import FATES, Order
from deploy.local.errors import LocalStackError
from deploy.local.simulator_names import NameAtSimulator

#: Orders in flight at once.
ORDERS_AT_ONCE: Final = 16

#: Pause between two looks at all payments.
LOOK_SECONDS: Final = 0.5

#: One request; the slowest fates take 2 s in the background, not here.
REQUEST_SECONDS: Final = 15.0

#: Pause before a creation is asked for again that the gateway did not answer.
REPEAT_SECONDS: Final = 1.0

#: Entries of a page of the lists.
PAGE_SIZE: Final = 100

#: How often a creation is asked for that the gateway did not answer.
TRIES_MAX: Final = 8


class DemoError(LocalStackError):
    """Sluice did not answer as the demonstration expects."""


@dataclass(slots=True)
class Made:
    """A payment that was made, and what has become of it so far."""

    order: Order
    payment_id: str
    reference: str
    state: str
    enrollment_id: str | None = None

    @property
    def is_at_its_end(self) -> bool:
        """Whether it is where its fate leads."""
        fate = FATES[self.order.fate]
        return self.state == fate.state and (self.enrollment_id is not None) == fate.is_enrolled


class Shop:
    """A merchant with an API key, and all of its customers.

    Args:
        client: The connection to Sluice, with its address and the key's header.
        run: Tells the customers of this run from those of others on the same data.
        name_of: What a gateway knows a payment by.
    """

    def __init__(self, client: aiohttp.ClientSession, run: str, name_of: NameAtSimulator) -> None:
        self._client = client
        self._run = run
        self._name_of = name_of

    async def make_all(self, orders: Sequence[Order], advance: Callable[[], None]) -> list[Made]:
        """Make a payment of each order and act as its customer.

        Raises:
            DemoError: one was refused.
        """
        places = asyncio.Semaphore(ORDERS_AT_ONCE)

        async def make(order: Order) -> Made:
            async with places:
                made = await self._make(order)
                advance()
                return made

        # At the first failure the group ends the others; its message is what counts.
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(make(order)) for order in orders]
        except* DemoError as errors:
            raise DemoError(str(errors.exceptions[0])) from errors
        return [task.result() for task in tasks]

    async def follow(
        self, all_made: Sequence[Made], show: Callable[[int], None], *, timeout_seconds: float
    ) -> None:
        """Look at the payments until each is at its end, or the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            await self._look(all_made)
            count = sum(made.is_at_its_end for made in all_made)
            show(count)
            if count == len(all_made) or time.monotonic() > deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def metrics(self) -> str:
        """Return what the process measures about itself."""
        async with self._client.get("/metrics") as response:
            return await response.text()

    async def _make(self, order: Order) -> Made:
        fate = FATES[order.fate]
        payment = await self._create(
            {
                "gateway": fate.gateway,
                "amount": order.amount,
                "currency": order.currency,
                "method": dict(fate.method),
                "customer": {"id": self._customer_id(order)},
                "product": {"id": f"course-{order.product}"},
                "returnUrl": "https://shop.example/thanks",
                "metadata": {"fate": order.fate},
            },
        )
        made = Made(order, payment["id"], payment["gatewayReference"], payment["state"])
        await self._act(made)
        return made

    async def _create(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create a payment, and ask again with the same key while the gateway does not answer.

        Raises:
            DemoError: it was refused, or the gateway never answers.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        problem = "was never tried"
        for _ in range(TRIES_MAX):
            async with self._client.post("/api/payments", json=body, headers=headers) as response:
                answer: Mapping[str, Any] = await response.json()
            if response.ok:
                data: Mapping[str, Any] = answer["data"]
                return data
            problem = f"was answered with {response.status}: {answer}"
            if response.status != HTTPStatus.BAD_GATEWAY:
                break
            await asyncio.sleep(REPEAT_SECONDS)
        raise DemoError(f"POST /api/payments {problem}")

    async def _act(self, made: Made) -> None:
        """Do what the customer does at the gateway's page, or on the phone."""
        fate = FATES[made.order.fate]
        if fate.customer in {"leaves", "none"}:
            return
        wish = "paid" if fate.customer == "pays" else "cancelled"
        reference = self._name_of(fate.gateway, made.reference)
        paid = await self._call(
            "POST", f"/simulator/{fate.gateway}/pay", {"reference": reference, "fate": wish}
        )
        if fate.comes_back:
            callback = paid["callback"]
            async with self._client.post(
                callback["url"], data=callback["fields"], allow_redirects=False
            ) as response:
                # On to the shop, or a page of ours while the shop's address is not known yet.
                if response.status not in {HTTPStatus.OK, HTTPStatus.SEE_OTHER}:
                    raise DemoError(f"the customer's return was answered with {response.status}")

    async def _look(self, all_made: Sequence[Made]) -> None:
        payments = {made.payment_id: made for made in all_made}
        async for payment in self._listed("payments", min(payments)):
            if payment["id"] in payments:
                payments[payment["id"]].state = payment["state"]
        # Enrollments are younger than the oldest payment, and their ids sort by time just so.
        oldest = f"enr_{min(payments).partition('_')[2]}"
        async for enrollment in self._listed("enrollments", oldest):
            if enrollment["paymentId"] in payments:
                payments[enrollment["paymentId"]].enrollment_id = enrollment["id"]
        for made in all_made:
            # The second payment for a product is found under the enrollment of the first.
            is_second = FATES[made.order.fate].group > 1 and made.enrollment_id is None
            if is_second and made.state == "succeeded":
                path = f"/api/enrollments?paymentId={made.payment_id}"
                found = (await self._call("GET", path))["enrollments"]
                made.enrollment_id = found[0]["id"] if found else None

    async def _listed(self, kind: str, oldest_id: str) -> AsyncIterator[Mapping[str, Any]]:
        """List payments or enrollments from the newest to `oldest_id`."""
        cursor = ""
        while True:
            data = await self._call("GET", f"/api/{kind}?limit={PAGE_SIZE}{cursor}")
            for item in data[kind]:
                if item["id"] < oldest_id:
                    return
                yield item
            if data["nextCursor"] is None:
                return
            cursor = f"&cursor={data['nextCursor']}"

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        async with self._client.request(method, path, json=body) as response:
            answer: Mapping[str, Any] = await response.json()
        if not response.ok:
            raise DemoError(f"{method} {path} was answered with {response.status}: {answer}")
        data: Mapping[str, Any] = answer["data"]
        return data

    def _customer_id(self, order: Order) -> str:
        return f"customer-{self._run}-{order.customer}"


def open_client(url: str, api_key: str) -> aiohttp.ClientSession:
    """Return a client for one address that shows the key with each request."""
    return aiohttp.ClientSession(
        url,
        headers={"Authorization": f"Bearer {api_key}"},
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
    )
