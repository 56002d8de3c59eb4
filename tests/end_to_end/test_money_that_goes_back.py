"""From the gateway's notice that a bank takes money back to the enrollment that it had paid for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deploy.local import audit
from deploy.local.stack import LocalStack, free_ports
from tests.support.polling import eventually
from tests.support.supervised_stack import BARE


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)  # As root, PostgreSQL runs as another user.
    with LocalStack(directory / "data", free_ports(), split=False, environment=BARE) as stack:
        yield stack
    shutil.rmtree(directory)


class Shop:
    """A merchant with one customer, who pays by card."""

    def __init__(self, http: aiohttp.ClientSession, customer: str) -> None:
        self._http = http
        self._customer = customer

    async def pay(self) -> dict[str, Any]:
        order = {
            "gateway": "stripe",
            "amount": 1_999,
            "currency": "USD",
            "method": {"type": "card", "paymentMethod": "pm_card_visa"},
            "customer": {"id": self._customer},
            "product": {"id": "course-1"},
        }
        payment = await self.call("POST", "/api/payments", order)
        assert payment["state"] == "succeeded", payment
        await self.until_enrolled(payment, "active")
        return payment

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with self._http.request(method, path, json=body) as answer:
            content = await answer.json()
            assert answer.ok, content
            data: dict[str, Any] = content["data"]
        return data

    async def bank(self, payment: dict[str, Any], **wish: Any) -> None:
        """Let the customer's bank open a dispute, or with a `status` decide it."""
        path = "/simulator/stripe/dispute" + ("/decide" if "status" in wish else "")
        await self.call("POST", path, {"reference": payment["gatewayReference"]} | wish)

    async def until_enrolled(self, payment: dict[str, Any], state: str) -> None:
        async def is_so() -> bool:
            path = f"/api/enrollments?paymentId={payment['id']}"
            found = (await self.call("GET", path))["enrollments"]
            return [each["state"] for each in found] == [state]

        await eventually(is_so)

    async def until(self, payment: dict[str, Any], state: str) -> None:
        async def is_so() -> bool:
            seen = await self.call("GET", f"/api/payments/{payment['id']}")
            return bool(seen["state"] == state)

        await eventually(is_so)


@pytest.fixture
async def http(stack: LocalStack) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as session:
        yield session


async def test_a_dispute_takes_the_enrollment_when_it_is_lost_and_gives_it_back_when_won(
    stack: LocalStack, http: aiohttp.ClientSession
) -> None:
    shop = Shop(http, "customer-1")
    payment = await shop.pay()

    await shop.bank(payment)
    await shop.until(payment, "disputed")
    await shop.until_enrolled(payment, "active")
    await shop.bank(payment, status="lost")
    await shop.until_enrolled(payment, "revoked")
    await shop.bank(payment, status="appeal_under_review")
    await shop.bank(payment, status="won")
    await shop.until_enrolled(payment, "active")
    await shop.until(payment, "succeeded")

    assert await clean(stack)


async def test_a_full_refund_takes_the_enrollment(
    stack: LocalStack, http: aiohttp.ClientSession
) -> None:
    shop = Shop(http, "customer-2")
    payment = await shop.pay()
    path = f"/api/payments/{payment['id']}/refunds"

    await shop.call("POST", path, {"amount": 999, "reason": "half of it was missing"})
    await shop.until(payment, "partially_refunded")
    await shop.until_enrolled(payment, "active")
    await shop.call("POST", path, {"reason": "all of it was missing"})
    await shop.until_enrolled(payment, "revoked")
    await shop.until(payment, "refunded")

    assert await clean(stack)


async def clean(stack: LocalStack) -> bool:
    results = await audit.audit(stack.environment)
    told = {
        each.invariant.name: each.findings.examples for each in results if each.findings.examples
    }
    assert told == {}
    return audit.is_clean(results)
