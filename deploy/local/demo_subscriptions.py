"""A few subscriptions in the demonstration: months on a test clock, and how each must end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

import aiohttp
from rich.table import Table
from rich.text import Text

from deploy.local.demo_fates import WALLET
from deploy.local.demo_traffic import DemoError

#: Four periods: 31 January, 28 February, 31 March and 30 April.
BEGIN: Final = "2026-01-31T09:00:00Z"
END: Final = "2026-05-01T00:00:00Z"

#: When the one with the lost card gives another one: after the first step of dunning.
NEW_CARD_AT: Final = "2026-02-02T00:00:00Z"

#: Pause between two looks at the clock, and the longest wait for it.
LOOK_SECONDS: Final = 0.2
ARRIVE_SECONDS: Final = 45.0

#: The phone of a customer who always confirms.
_PHONE: Final[Mapping[str, Any]] = MappingProxyType({"type": "prompt", "phone": "237670000000"})


def _card(name: str) -> Mapping[str, Any]:
    card = {"type": "card", "paymentMethod": name, "gatewayCustomer": "cus_demo"}
    return MappingProxyType(card)


_VISA: Final = _card("pm_card_visa")


@dataclass(frozen=True, slots=True)
class Life:
    """One way a subscription can go, and how many have it."""

    story: str
    count: int
    gateway: str
    method: Mapping[str, Any]
    amount: int
    currency: str
    state: str = "active"
    paid: int = 4
    trial_days: int = 0
    #: Given in place of the first means of payment, at `NEW_CARD_AT`.
    new_method: Mapping[str, Any] | None = None

    @property
    def is_enrolled(self) -> bool:
        """Whether its customer must be enrolled at the end."""
        return self.state == "active"


LIVES: Final = (
    Life("a card, charged month by month", 4, "stripe", _VISA, 1_900, "USD"),
    Life("two weeks of trial, then a card", 1, "stripe", _VISA, 900, "USD", paid=3, trial_days=14),
    Life("confirmed on the phone each month", 2, "fapshi", _PHONE, 2_500, "XAF"),
    Life("confirmed on the phone each month", 2, "campay", _PHONE, 5_000, "XAF"),
    Life("our own wallet pays", 2, "x402", WALLET, 5_000_000, "USDC"),
    Life(
        "the card is lost; dunning charges the new one",
        1,
        "stripe",
        _card("pm_card_chargeDeclinedLostCard"),
        2_900,
        "USD",
        new_method=_VISA,
    ),
    Life(
        "no money: retried, dunned, cancelled",
        1,
        "stripe",
        _card("pm_card_chargeDeclinedInsufficientFunds"),
        3_900,
        "USD",
        state="cancelled",
        paid=0,
    ),
)


@dataclass(slots=True)
class Subscribed:
    """A subscription that was made, and what has become of it."""

    life: Life
    customer_id: str
    subscription_id: str
    state: str = ""
    paid: int = 0
    is_enrolled: bool = False

    @property
    def is_at_its_end(self) -> bool:
        """Whether it is where its life leads."""
        life = self.life
        reached = (self.state, self.paid, self.is_enrolled)
        return reached == (life.state, life.paid, life.is_enrolled)


class Subscribers:
    """Customers on one test clock.

    Args:
        client: The connection to Sluice, with its address and the key's header.
        run: Tells the customers of this run from those of others on the same data.
    """

    def __init__(self, client: aiohttp.ClientSession, run: str) -> None:
        self._client = client
        self._run = run
        self._clock = ""

    async def live(self, show: Callable[[int], None]) -> list[Subscribed]:
        """Let everybody subscribe and some months go by, and return what became of them.

        Raises:
            DemoError: something was refused.
        """
        clock = {"name": "demonstration", "now": BEGIN}
        self._clock = (await self._call("POST", "/api/test-clocks", clock))["id"]
        everybody = [
            each
            for number, life in enumerate(LIVES, start=1)
            for each in await self._subscribe(number, life)
        ]
        await self._advance(NEW_CARD_AT)
        for each in everybody:
            if each.life.new_method is not None:
                method = await self._store(each.customer_id, each.life, each.life.new_method)
                path = f"/api/subscriptions/{each.subscription_id}"
                await self._call("PATCH", path, {"paymentMethodId": method})
        await self._advance(END)
        await self._look(everybody, show)
        return everybody

    async def _subscribe(self, number: int, life: Life) -> list[Subscribed]:
        plan = {
            "name": f"Monthly {number}",
            "product": {"id": f"subscription-{number}", "name": f"Subscription {number}"},
            "amount": life.amount,
            "currency": life.currency,
            "interval": {"unit": "month", "count": 1},
            "trial": {"unit": "day", "count": life.trial_days} if life.trial_days else None,
            "gateway": life.gateway,
        }
        plan_id = (await self._call("POST", "/api/plans", plan))["id"]

        async def subscribe(index: int) -> Subscribed:
            customer = f"subscriber-{self._run}-{number}-{index}"
            body = {
                "customerId": customer,
                "planId": plan_id,
                "paymentMethodId": await self._store(customer, life, life.method),
                "testClockId": self._clock,
            }
            made = await self._call("POST", "/api/subscriptions", body)
            return Subscribed(life, customer, made["id"])

        return list(await asyncio.gather(*(subscribe(index) for index in range(life.count))))

    async def _store(self, customer: str, life: Life, method: Mapping[str, Any]) -> str:
        body = {"gateway": life.gateway, "customer": {"id": customer}, "method": dict(method)}
        stored = await self._call("POST", "/api/payment-methods", body)
        return str(stored["id"])

    async def _advance(self, to: str) -> None:
        """Move the clock and wait until all that is due then has happened, or the time is over."""
        path = f"/api/test-clocks/{self._clock}"
        await self._call("POST", f"{path}/advance", {"to": to})
        deadline = time.monotonic() + ARRIVE_SECONDS
        while (await self._call("GET", path))["state"] != "ready":
            if time.monotonic() > deadline:
                return  # What has not come to its end is shown as such.
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, everybody: Sequence[Subscribed], show: Callable[[int], None]) -> None:
        """Look until enrollment has heard of everybody, or the time is over."""
        deadline = time.monotonic() + ARRIVE_SECONDS
        while True:
            for each in everybody:
                if not each.is_at_its_end:
                    await self._look_at(each)
            reached = sum(each.is_at_its_end for each in everybody)
            show(reached)
            if reached == len(everybody) or time.monotonic() > deadline:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_at(self, each: Subscribed) -> None:
        path = f"/api/subscriptions/{each.subscription_id}"
        each.state = (await self._call("GET", path))["state"]
        cycles = (await self._call("GET", f"{path}/cycles"))["cycles"]
        each.paid = sum(cycle["state"] == "paid" for cycle in cycles)
        path = f"/api/enrollments?customerId={each.customer_id}"
        found = (await self._call("GET", path))["enrollments"]
        each.is_enrolled = any(enrollment["state"] == "active" for enrollment in found)

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        async with self._client.request(method, path, json=body) as response:
            answer: Mapping[str, Any] = await response.json()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise DemoError(f"{method} {path} was answered with {response.status}: {answer}")
        data: dict[str, Any] = answer["data"]
        return data


def count_all() -> int:
    """Return how many subscriptions are made."""
    return sum(life.count for life in LIVES)


def table_of(everybody: Sequence[Subscribed]) -> Table:
    """Return a table of what was made and what became of it."""
    title = f"Subscriptions, from {BEGIN[:10]} to {END[:10]} on a test clock"
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("Gateway", "all")
    table.add_column("Life", "")
    table.add_column("Made", f"{len(everybody)}", justify="right")
    table.add_column("Must end", "")
    table.add_column("Reached", f"{sum(e.is_at_its_end for e in everybody)}", justify="right")
    table.add_column("Paid periods", f"{sum(e.paid for e in everybody)}", justify="right")
    for life, those in _by_life(everybody):
        reached = sum(each.is_at_its_end for each in those)
        table.add_row(
            life.gateway,
            life.story,
            f"{len(those)}",
            f"{life.state}, {life.paid} paid{', enrolled' if life.is_enrolled else ''}",
            Text(f"{reached}", style="green" if reached == len(those) else "bold red"),
            f"{sum(each.paid for each in those)}",
        )
    return table


def _by_life(everybody: Sequence[Subscribed]) -> Iterator[tuple[Life, list[Subscribed]]]:
    for life in LIVES:
        yield life, [each for each in everybody if each.life is life]
