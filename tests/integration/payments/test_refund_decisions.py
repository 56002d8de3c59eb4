"""What operators do about refunds by hand: ask at once, and say what the gateway does not."""

from __future__ import annotations

from typing import Any

import pytest

from services.payments.store import refunds as refund_store
from shared.contracts.payments import PaymentRefunded
from tests.integration.payments.test_refunds import PRICE, paid_payment, returned
from tests.integration.payments.world import Payments
from tests.support.http_api import Reply

WHY = "seen in the back office"


@pytest.fixture
async def paid(payments: Payments) -> dict[str, Any]:
    return await paid_payment(payments)


@pytest.fixture
async def unknown(payments: Payments, paid: dict[str, Any]) -> dict[str, Any]:
    payments.gateway.is_silent = True
    refund = await payments.refund(paid)
    assert refund["state"] == "unknown"
    return refund


async def decide(
    payments: Payments, refund: dict[str, Any], state: str, key: str | None = None
) -> Reply:
    path = f"/api/refunds/{refund['id']}/decision"
    return await payments.api.call(
        "POST", path, {"state": state, "reason": WHY}, idempotency_key=key
    )


async def look_up(payments: Payments, refund: dict[str, Any], key: str | None = None) -> Reply:
    path = f"/api/refunds/{refund['id']}/look-up"
    return await payments.api.call("POST", path, {"reason": WHY}, idempotency_key=key)


async def actions(payments: Payments) -> list[tuple[str, ...]]:
    found = await payments.rows(
        "SELECT action, target, actor, reason FROM operator_action ORDER BY id"
    )
    return [tuple(row) for row in found]


async def test_money_that_was_given_back_is_said_to_be(
    payments: Payments, paid: dict[str, Any], unknown: dict[str, Any]
) -> None:
    reply = await decide(payments, unknown, "succeeded", "key-1")
    again = await decide(payments, unknown, "succeeded", "key-1")

    assert (reply.status, reply.data["state"]) == (200, "succeeded")
    assert again.json == reply.json
    assert (await payments.read(paid["id"]))["state"] == "refunded"
    assert await returned(payments, paid) == (PRICE, 0)
    assert len(await payments.facts(PaymentRefunded)) == 1
    assert await actions(payments) == [("decide_refund", f"refund:{unknown['id']}", "admin", WHY)]


async def test_money_that_was_not_given_back_is_free_again(
    payments: Payments, paid: dict[str, Any], unknown: dict[str, Any]
) -> None:
    reply = await decide(payments, unknown, "failed")
    payments.clock.advance(86_400)

    assert (reply.data["state"], reply.data["detail"]) == ("failed", "decided_by_hand")
    assert await payments.carry_out_refunds() == 0, "it is final"
    assert await returned(payments, paid) == (0, 0)
    assert (await payments.read(paid["id"]))["state"] == "succeeded"


async def test_what_the_gateway_says_is_not_decided_by_hand(
    payments: Payments, paid: dict[str, Any]
) -> None:
    refund = await payments.refund(paid)

    reply = await decide(payments, refund, "failed")

    assert reply.status == 409
    assert "succeeded" in reply.error["details"]["refundId"]
    assert await actions(payments) == []


async def test_nothing_is_decided_while_the_gateway_is_asked(
    payments: Payments, paid: dict[str, Any], unknown: dict[str, Any]
) -> None:
    payments.clock.advance(10)
    async with payments.core.database.connection() as connection:
        assert await refund_store.claim_refund(connection, unknown["id"], payments.clock())

    reply = await decide(payments, unknown, "failed")

    assert reply.status == 409
    assert await returned(payments, paid) == (0, PRICE)


async def test_a_refund_is_looked_up_at_once(payments: Payments, unknown: dict[str, Any]) -> None:
    payments.gateway.is_silent = False
    assert await payments.carry_out_refunds() == 0

    reply = await look_up(payments, unknown)

    assert reply.data["nextLookAt"] == "2026-01-05T12:00:00Z"
    assert await payments.carry_out_refunds() == 1
    assert (await payments.read_refund(unknown))["state"] == "succeeded"
    assert await actions(payments) == [("look_up_refund", f"refund:{unknown['id']}", "admin", WHY)]


async def test_what_failed_is_not_looked_up(payments: Payments, unknown: dict[str, Any]) -> None:
    await decide(payments, unknown, "failed")

    assert (await look_up(payments, unknown)).status == 409


@pytest.mark.parametrize("path", ["decision", "look-up"])
async def test_only_admins_decide_and_they_say_why(
    payments: Payments, unknown: dict[str, Any], path: str
) -> None:
    path = f"/api/refunds/{unknown['id']}/{path}"
    body = {"state": "failed", "reason": WHY} if path.endswith("decision") else {"reason": WHY}

    forbidden = await payments.api.call("POST", path, body, key="writer")
    silent = await payments.api.call("POST", path, {**body, "reason": " "})

    assert forbidden.status == 403
    assert silent.status == 400
    assert "reason" in silent.error["details"]
