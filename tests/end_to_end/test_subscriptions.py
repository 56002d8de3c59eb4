"""Subscriptions through the whole system, as README walks through them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from deploy.local import audit, explain_subscription
from deploy.local.command import main
from deploy.local.environment import SIMULATOR_ACCOUNTS
from deploy.local.simulator_names import NamesAtSimulator
from deploy.local.stack import LocalStack, free_ports
from shared.gateways.x402.signer import LocalSigner
from tests.support.polling import eventually
from tests.support.supervised_stack import BARE

#: What the walk-through's wallet is filled up with.
MUCH = 1_000_000_000

WALLET = {"type": "wallet", "recipient": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"}
PROMPT = {"type": "prompt", "phone": "237677123456"}

_customers = count(1)


def card(name: str) -> dict[str, str]:
    return {"type": "card", "paymentMethod": name, "gatewayCustomer": "cus_demo"}


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)  # As root, PostgreSQL runs as another user.
    with LocalStack(directory / "data", free_ports(), split=False, environment=BARE) as stack:
        yield stack
    shutil.rmtree(directory)


class Shop:
    """A merchant with one customer, who lives on a test clock."""

    def __init__(self, http: aiohttp.ClientSession, stack: LocalStack) -> None:
        self._http = http
        self._stack = stack
        self.customer = f"customer-{next(_customers)}"
        self.clock = ""

    async def send(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        async with self._http.request(method, path, json=body) as answer:
            return answer.status, await answer.json()

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        status, content = await self.send(method, path, body)
        assert status < 300, content
        data: dict[str, Any] = content["data"]
        return data

    async def method(self, gateway: str, method: dict[str, str]) -> str:
        body = {"gateway": gateway, "customer": {"id": self.customer}, "method": method}
        stored = await self.call("POST", "/api/payment-methods", body)
        return str(stored["id"])

    async def subscribe(
        self, gateway: str, method: dict[str, str], amount: int, currency: str
    ) -> str:
        """Subscribe by the month from 31 January on, on a new clock."""
        plan = {
            "name": "Monthly",
            "product": {"id": "course-1", "name": "Course"},
            "gateway": gateway,
            "amount": amount,
            "currency": currency,
            "interval": {"unit": "month", "count": 1},
        }
        plan_id = (await self.call("POST", "/api/plans", plan))["id"]
        clock = {"name": "a year", "now": "2026-01-31T09:00:00Z"}
        self.clock = (await self.call("POST", "/api/test-clocks", clock))["id"]
        body = {
            "customerId": self.customer,
            "planId": plan_id,
            "paymentMethodId": await self.method(gateway, method),
            "testClockId": self.clock,
        }
        return str((await self.call("POST", "/api/subscriptions", body))["id"])

    async def advance(self, to: str) -> None:
        await self.call("POST", f"/api/test-clocks/{self.clock}/advance", {"to": to})
        await self.until_ready()

    async def until_ready(self) -> None:
        async def is_ready() -> bool:
            clock = await self.call("GET", f"/api/test-clocks/{self.clock}")
            return bool(clock["state"] == "ready")

        await eventually(is_ready, timeout_seconds=40)

    async def read(self, subscription: str) -> dict[str, Any]:
        return await self.call("GET", f"/api/subscriptions/{subscription}")

    async def cycles(self, subscription: str) -> list[tuple[datetime, str]]:
        """Return when each period begins and how it stands, the oldest first."""
        found = await self.call("GET", f"/api/subscriptions/{subscription}/cycles")
        return sorted(
            (datetime.fromisoformat(each["start"]), each["state"]) for each in found["cycles"]
        )

    async def jobs(self, subscription: str) -> list[dict[str, Any]]:
        """Return the jobs, the newest first."""
        found = await self.call("GET", f"/api/jobs/subscription/{subscription}")
        return list(found["jobs"])

    async def happened(self, subscription: str) -> list[str]:
        """Return the events, the oldest first."""
        found = await self.call("GET", f"/api/subscriptions/{subscription}/history?limit=100")
        return [each["event"] for each in found["events"]][::-1]

    async def until_enrolled(self, state: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        async def is_so() -> bool:
            nonlocal found
            path = f"/api/enrollments?customerId={self.customer}"
            found = (await self.call("GET", path))["enrollments"]
            return [each["state"] for each in found] == [state]

        await eventually(is_so, timeout_seconds=30)
        return found[0]

    async def until_state(self, subscription: str, state: str) -> dict[str, Any]:
        async def is_so() -> bool:
            return bool((await self.read(subscription))["state"] == state)

        await eventually(is_so, timeout_seconds=30)
        return await self.read(subscription)

    async def fill_wallet(self, amount: int) -> None:
        signer = LocalSigner(SIMULATOR_ACCOUNTS["x402"]["X402_PRIVATE_KEY"])
        wallet = {"address": signer.address, "amount": amount}
        await self.call("PUT", "/simulator/x402/balance", wallet)

    async def pay_prompt(self, job: dict[str, Any]) -> None:
        """Let the customer confirm on the phone."""
        payment = await self.call("GET", f"/api/payments/{job['paymentId']}")
        name_of = NamesAtSimulator(self._stack.environment).of
        reference = name_of("campay", payment["gatewayReference"])
        wish = {"reference": reference, "fate": "paid"}
        await self.call("POST", "/simulator/campay/pay", wish)

    async def audited(self) -> None:
        results = await audit.audit(self._stack.environment)
        assert audit.is_clean(results), audit.as_json(results)


@pytest.fixture
async def shop(stack: LocalStack) -> AsyncIterator[Shop]:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as http:
        yield Shop(http, stack)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00+00:00")


async def test_a_wallet_pays_month_by_month_runs_dry_and_recovers(
    shop: Shop, stack: LocalStack
) -> None:
    subscription = await shop.subscribe("x402", WALLET, 5_000_000, "USDC")
    await shop.advance("2026-03-01T00:00:00Z")

    paid = [(at("2026-01-31T09:00"), "paid"), (at("2026-02-28T09:00"), "paid")]
    assert await shop.cycles(subscription) == paid
    last = (await shop.jobs(subscription))[0]
    assert (last["status"], last["progress"], last["attemptsMade"]) == ("completed", 100, 1)
    assert last["result"]["transactionHash"].startswith("0x")
    payment = await shop.call("GET", f"/api/payments/{last['data']['paymentId']}")
    assert (payment["state"], payment["subscriptionId"]) == ("succeeded", subscription)
    enrollment = await shop.until_enrolled("active")
    assert enrollment["subscriptionId"] == subscription

    await shop.fill_wallet(0)
    await shop.advance("2026-04-05T00:00:00Z")
    late = await shop.read(subscription)
    assert (late["state"], late["reason"]) == ("past_due", "insufficient_funds")
    assert late["dunning"]["step"] == 1
    await shop.until_enrolled("revoked")

    await shop.fill_wallet(MUCH)
    await shop.advance("2026-04-20T00:00:00Z")
    well = await shop.read(subscription)
    assert (well["state"], well["reason"], well["access"]["isGranted"]) == (
        "active",
        "recovered",
        True,
    )
    assert at("2026-04-30T09:00") == datetime.fromisoformat(well["nextDueAt"])
    assert await shop.cycles(subscription) == [*paid, (at("2026-03-31T09:00"), "paid")]
    await shop.until_enrolled("active")
    await shop.audited()
    story = await explain_subscription.explain_subscription(stack.environment, subscription)
    assert [line.entry.event for line in story.lines if line.own_time] == await shop.happened(
        subscription
    )


async def test_a_new_card_is_charged_when_somebody_says_so(shop: Shop) -> None:
    empty = card("pm_card_visa_chargeDeclinedLostCard")
    subscription = await shop.subscribe("stripe", empty, 990, "EUR")
    await shop.until_state(subscription, "past_due")
    await shop.until_ready()
    path = f"/api/subscriptions/{subscription}"
    assert (await shop.jobs(subscription))[0]["failedReason"].startswith("card_declined:")

    new_card = {"paymentMethodId": await shop.method("stripe", card("pm_card_visa"))}
    await shop.call("PATCH", path, new_card)
    triggered = await shop.call("POST", f"{path}/trigger-payment")
    await shop.until_state(subscription, "active")

    job = await shop.call("GET", f"/api/jobs/{triggered['jobId']}")
    assert (job["status"], job["data"]["paymentId"]) == ("completed", triggered["paymentId"])
    status, refused = await shop.send("POST", f"{path}/trigger-payment")
    assert (status, refused["error"]["details"]["reason"]) == (409, "nothing_due")
    await shop.until_enrolled("active")
    await shop.audited()


async def test_what_is_cancelled_with_its_charge_in_flight_is_over_whatever_becomes_of_the_money(
    shop: Shop,
) -> None:
    subscription = await shop.subscribe("campay", PROMPT, 2_500, "XAF")

    async def is_prompted() -> bool:
        jobs = await shop.jobs(subscription)
        return [job["progress"] for job in jobs] == [50]

    await eventually(is_prompted, timeout_seconds=30)
    path = f"/api/subscriptions/{subscription}"
    cancelled = await shop.call("POST", f"{path}/cancel", {"atPeriodEnd": False})
    assert cancelled["state"] == "cancelled"

    (job,) = await shop.jobs(subscription)
    await shop.pay_prompt(job["data"])

    async def is_paid() -> bool:
        return bool((await shop.cycles(subscription))[0][1] == "paid")

    await eventually(is_paid, timeout_seconds=40)
    over = await shop.read(subscription)
    assert (over["state"], over["access"]["isGranted"], over["charge"]) == (
        "cancelled",
        False,
        None,
    )
    assert (await shop.happened(subscription))[-1] == "paid_after_end"
    await shop.advance("2026-06-01T00:00:00Z")
    assert len(await shop.cycles(subscription)) == 1
    await shop.audited()


async def test_an_operator_steers_a_subscription_and_its_clock_by_command(
    shop: Shop,
    stack: LocalStack,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLUICE_URL", stack.url)
    monkeypatch.setenv("SLUICE_API_KEY", stack.api_key)

    async def sluice(*words: str, code: int = 0) -> str:
        assert await asyncio.to_thread(main, list(words)) == code
        printed = capsys.readouterr()
        return printed.out + printed.err

    subscription = await shop.subscribe("stripe", card("pm_card_visa"), 990, "EUR")
    await shop.until_state(subscription, "active")
    await shop.until_ready()

    assert subscription in await sluice("subscriptions", "--customer", shop.customer)
    assert "there are no such" in await sluice("subscriptions", "--attention", "set_aside")
    assert "(409 not_now)" in await sluice("subscriptions", "trigger-payment", subscription, code=1)
    await sluice("subscriptions", "pause", subscription)
    await sluice("clocks", "advance", shop.clock, "--to", "2026-04-15T00:00:00Z")
    await shop.until_ready()
    assert f"{shop.clock} is ready" in await sluice("clocks", "show", shop.clock)
    assert [state for _, state in await shop.cycles(subscription)] == ["paid"]
    await sluice("subscriptions", "resume", subscription)
    await shop.until_ready()
    assert [state for _, state in await shop.cycles(subscription)] == ["paid", "skipped", "paid"]
    assert "completed" in await sluice("subscriptions", "show", subscription)
    cancelled = await sluice("subscriptions", "cancel", subscription, "--at-period-end", "--json")
    assert orjson.loads(cancelled)["cancelAtPeriodEnd"] is True
    await sluice("clocks", "advance", shop.clock, "--to", "2026-06-01T00:00:00Z")
    await shop.until_ready()
    data = ("--data-dir", str(stack.data_directory))
    story = await sluice("explain", subscription, *data)
    assert "nothing: that is for good, because somebody had it end with its period" in story
    assert "The audit is clean." in await sluice("audit", *data)
