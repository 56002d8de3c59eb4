"""GET /api/payments: filters, and pages without gaps or repeats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.payments.world import Payments


async def pages(payments: Payments, query: str, limit: int) -> list[list[dict[str, Any]]]:
    found, cursor = [], ""
    while True:
        reply = await payments.api.call("GET", f"/api/payments?limit={limit}&{query}{cursor}")
        found.append(reply.data["payments"])
        if reply.data["nextCursor"] is None:
            return found
        cursor = f"&cursor={reply.data['nextCursor']}"


async def test_pages_are_newest_first_without_gaps_or_repeats(payments: Payments) -> None:
    created = []
    for _ in range(7):
        payments.clock.advance(1)
        created.append(await payments.create())

    found = await pages(payments, "", 3)

    assert [len(page) for page in found] == [3, 3, 1]
    assert [payment for page in found for payment in page] == created[::-1]
    assert [len(page) for page in await pages(payments, "", 7)] == [7], "no empty last page"


async def test_payments_that_are_added_while_one_reads_neither_hide_nor_repeat_any(
    payments: Payments,
) -> None:
    """All of the same millisecond, so that only the ids tell them apart."""
    before = {(await payments.create())["id"] for _ in range(10)}
    reply = await payments.api.call("GET", "/api/payments?limit=4")
    seen = [payment["id"] for payment in reply.data["payments"]]
    while (cursor := reply.data["nextCursor"]) is not None:
        payments.clock.advance(1)
        await asyncio.gather(*(payments.create() for _ in range(3)))
        reply = await payments.api.call("GET", f"/api/payments?limit=4&cursor={cursor}")
        seen += [payment["id"] for payment in reply.data["payments"]]

    assert len(seen) == len(set(seen))
    assert set(seen) == before


async def test_every_filter_narrows_and_they_combine(payments: Payments) -> None:
    for customer in ("ada", "bob"):
        for product in ("x", "y"):
            payment = await payments.create(
                customer={"id": customer}, product={"id": product, "name": "A course"}
            )
            if product == "x":
                await payments.paid(payment)

    async def found(query: str) -> list[tuple[str, str]]:
        data = (await payments.api.call("GET", f"/api/payments?{query}")).data
        return sorted((each["customerId"], each["productId"]) for each in data["payments"])

    assert await found("customerId=ada") == [("ada", "x"), ("ada", "y")]
    assert await found("productId=y") == [("ada", "y"), ("bob", "y")]
    assert await found("state=succeeded") == [("ada", "x"), ("bob", "x")]
    assert await found("state=pending&customerId=bob") == [("bob", "y")]
    assert await found("gateway=sslcommerz&productId=x&customerId=bob") == [("bob", "x")]
    assert await found("gateway=paypall") == []
    assert await found("customerId=%27%20OR%201%3D1") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("state=paid", "state"),
        ("cursor=abc", "cursor"),
        ("cursor=enr_01KE70EHG0JY1QREBD77BRA2Z7", "cursor"),
        ("customerId=", "customerId"),
        ("customerId=%00", "customerId"),
        ("customer_id=1", "customer_id"),
        ("more=1", "more"),
        ("limit=1&limit=2", "limit"),
    ],
)
async def test_a_wrong_parameter_is_named(payments: Payments, query: str, field: str) -> None:
    reply = await payments.api.call("GET", f"/api/payments?{query}")

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert field in reply.error["details"]
