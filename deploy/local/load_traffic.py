"""Payments made at a rate, as a merchant who repeats what was not answered, and then followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

import aiohttp

from deploy.local.errors import LocalStackError
from deploy.local.load_plan import Transaction

#: One request. A creation waits for the gateway, whose own time-out is shorter.
REQUEST_SECONDS: Final = 60.0

#: How often a creation that was not answered, or not for good, is asked for, with the same key.
#: A payment that is known by then, Sluice follows by itself.
TRIES_MAX: Final = 8

#: Pause before a repetition when the answer names none.
REPEAT_SECONDS: Final = 1.0

#: Pause between two looks at the payments that are not at rest.
LOOK_SECONDS: Final = 1.0

#: Entries of a page of a list.
PAGE_SIZE: Final = 200

#: Requests side by side that only read.
READS_AT_ONCE: Final = 8

#: The states in which a payment still has a next step.
OPEN_STATES: Final = ("created", "pending", "processing", "unknown", "retry_scheduled")

#: The code of a 409 that says: the first request with this key is still running.
_STILL_RUNNING: Final = "idempotency_key_in_use"


class LoadError(LocalStackError):
    """Sluice or the simulator did not answer as a load needs it."""


@dataclass(slots=True)
class Made:
    """One payment that was asked for, and what is known of it.

    `payment_id` is None when no answer ever named one. `refusal` says what was last answered
    instead of the payment.
    """

    transaction: Transaction
    began_at: float
    created_seconds: float
    tries: int
    payment_id: str | None
    refusal: str | None = None
    state: str = "created"
    #: From the creation to the last change, by the clock of the payments service.
    settled_seconds: float | None = None

    @property
    def is_answered(self) -> bool:
        """Whether the creation was answered with the payment, at last."""
        return self.payment_id is not None and self.refusal is None

    @property
    def is_retried(self) -> bool:
        """Whether another attempt at it will follow."""
        return self.state == "retry_scheduled"

    @property
    def is_open(self) -> bool:
        """Whether it still has a next step."""
        return self.payment_id is not None and self.state in OPEN_STATES


class Merchant:
    """Makes payments through the API, and looks at them.

    Args:
        client: The connection to Sluice, with its address and the key's header.
        run: Tells the customers and keys of this run from those of others on the same data.
        creation: The path that takes orders.
    """

    def __init__(
        self, client: aiohttp.ClientSession, run: str, creation: str = "/api/payments"
    ) -> None:
        self._client = client
        self._run = run
        self._creation = creation

    async def make_all(
        self,
        transactions: Sequence[Transaction],
        *,
        rate: float | None,
        concurrency: int,
        advance: Callable[[], None],
    ) -> list[Made]:
        """Make every payment: at most `rate` begun a second, `concurrency` calls side by side."""
        places = asyncio.Semaphore(concurrency)
        started = time.monotonic()

        async def make(transaction: Transaction) -> Made:
            if rate is not None:
                await asyncio.sleep(
                    max(0.0, started + transaction.number / rate - time.monotonic())
                )
            made = await self._make(transaction, places)
            advance()
            return made

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(make(transaction)) for transaction in transactions]
        return [task.result() for task in tasks]

    async def follow(
        self, all_made: Sequence[Made], show: Callable[[int], None], *, deadline: float
    ) -> None:
        """Look at the payments until each is at rest, or `deadline` on the monotonic clock."""
        while True:
            await self.look(all_made)
            count = sum(made.is_open for made in all_made)
            show(len(all_made) - count)
            if count == 0 or time.monotonic() > deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self, all_made: Sequence[Made]) -> None:
        """Read the state of the payments that were open when they were last looked at."""
        waiting = {made.payment_id: made for made in all_made if made.is_open}
        if not waiting:
            return
        oldest = min(str(payment_id) for payment_id in waiting)
        still_open = {
            payment["id"]: payment["state"]
            for state in OPEN_STATES
            async for payment in self._listed(state, oldest)
        }
        # Whatever is in none of these lists is at rest, or has just moved from one to another.
        moved = [made for name, made in waiting.items() if name not in still_open]
        places = asyncio.Semaphore(READS_AT_ONCE)

        async def read(made: Made) -> None:
            async with places:
                _note(made, await self.call("GET", f"/api/payments/{made.payment_id}"))

        async with asyncio.TaskGroup() as group:
            for made in moved:
                group.create_task(read(made))

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Make one call that must succeed, and return its data.

        Raises:
            LoadError: it did not.
        """
        try:
            async with self._client.request(method, path, json=body) as response:
                answer: Mapping[str, Any] = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LoadError(f"{method} {path} was not answered ({type(error).__name__})") from error
        if not response.ok:
            raise LoadError(f"{method} {path} was answered with {response.status}: {answer}")
        data: Mapping[str, Any] = answer["data"]
        return data

    async def _make(self, transaction: Transaction, places: asyncio.Semaphore) -> Made:
        body = {
            "gateway": transaction.gateway,
            "amount": transaction.amount,
            "currency": transaction.currency,
            "method": dict(transaction.method),
            "customer": {
                "id": f"load-{self._run}-{transaction.number}",
                "name": "Load Customer",
                "email": "load@example.com",
                "phone": "670000000",
            },
            "product": {"id": f"course-{transaction.product}"},
            "returnUrl": "https://shop.example/thanks",
            "metadata": {"run": self._run},
        }
        headers = {"Idempotency-Key": f"load-{self._run}-{transaction.number}"}
        began_at = time.monotonic()
        made = Made(transaction, began_at, created_seconds=0.0, tries=0, payment_id=None)
        while made.tries < TRIES_MAX:
            made.tries += 1
            async with places:
                pause = await self._try_to_make(made, body, headers)
            if pause is None:
                break
            await asyncio.sleep(pause)
        made.created_seconds = time.monotonic() - began_at
        return made

    async def _try_to_make(
        self, made: Made, body: Mapping[str, Any], headers: Mapping[str, str]
    ) -> float | None:
        """Ask once; return how long to wait before asking again, or None when it was answered."""
        try:
            async with self._client.post(self._creation, json=body, headers=headers) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            made.refusal = type(error).__name__
            return REPEAT_SECONDS
        if response.ok:
            made.refusal = None
            made.payment_id = answer["data"]["id"]
            _note(made, answer["data"])
            return None
        problem = answer["error"]
        made.refusal = f"{response.status} {problem['code']}"
        made.payment_id = problem["details"].get("paymentId", made.payment_id)
        is_for_good = response.status < HTTPStatus.INTERNAL_SERVER_ERROR and not (
            response.status == HTTPStatus.TOO_MANY_REQUESTS or problem["code"] == _STILL_RUNNING
        )
        if is_for_good:
            return None
        return float(response.headers.get("Retry-After", REPEAT_SECONDS))

    async def _listed(self, state: str, oldest_id: str) -> AsyncIterator[Mapping[str, Any]]:
        """List payments of a state from the newest to `oldest_id`."""
        cursor = ""
        while True:
            path = f"/api/payments?state={state}&limit={PAGE_SIZE}{cursor}"
            data = await self.call("GET", path)
            for payment in data["payments"]:
                if payment["id"] < oldest_id:
                    return
                yield payment
            if data["nextCursor"] is None:
                return
            cursor = f"&cursor={data['nextCursor']}"


def _note(made: Made, payment: Mapping[str, Any]) -> None:
    made.state = payment["state"]
    if made.state not in OPEN_STATES:
        span = datetime.fromisoformat(payment["updatedAt"]) - datetime.fromisoformat(
            payment["createdAt"]
        )
        made.settled_seconds = span.total_seconds()


def open_client(url: str, api_key: str) -> aiohttp.ClientSession:
    """Return a client for one address that shows the key with each request."""
    return aiohttp.ClientSession(
        url,
        headers={"Authorization": f"Bearer {api_key}"},
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
        connector=aiohttp.TCPConnector(limit=0),
    )
