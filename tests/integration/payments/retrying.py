"""Words for tests of retries: payments that are tried again, and what became of them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shared.gateways.interface import Declined, FailureKind, Paid, Pending, Unknown
from shared.money import Money
from tests.integration.payments.world import Payments, order
from tests.support.http_api import Reply

CARD = {"type": "card", "paymentMethod": "pm_1", "gatewayCustomer": "cus_9", "offSession": True}
PROMPT = {"type": "prompt", "phone": "8801700000000"}
PROMPTED = Pending("customer_must_confirm", handle="txn_1")
LOST = Unknown("timeout")


def declined(kind: FailureKind, **changes: Any) -> Declined:
    return Declined(f"code_of_{kind}", kind, is_final=True, handle="txn_1", **changes)


def paid(number: int = 1, amount: int = 115_000) -> Paid:
    return Paid("any", Money(amount, "BDT"), f"txn_{number}", f"charge_{number}")


async def process(payments: Payments, key: str | None = None, **changes: Any) -> Reply:
    """Create a payment that is tried again by itself; a card unless it is said otherwise."""
    body = order(**{"method": CARD, **changes})
    return await payments.api.call("POST", "/api/payments/process", body, idempotency_key=key)


async def processed(payments: Payments, **changes: Any) -> dict[str, Any]:
    data = (await process(payments, **changes)).data
    assert isinstance(data, dict)
    return data


async def call(
    payments: Payments, method: str, payment_id: str, path: str = "", body: Any = None
) -> Reply:
    return await payments.api.call(method, f"/api/payments/retry/{payment_id}{path}", body)


async def retry_of(payments: Payments, payment: dict[str, Any]) -> dict[str, Any]:
    data = (await call(payments, "GET", payment["id"])).data
    assert isinstance(data, dict)
    return data


def wait_until(payments: Payments, retry: dict[str, Any]) -> timedelta:
    """Move the clock to when a retry is due, and return how far that was."""
    before = payments.clock()
    payments.clock.now = max(before, datetime.fromisoformat(retry["nextAttemptAt"]))
    return payments.clock() - before


async def facts(payments: Payments) -> list[str]:
    """Return what happened to retries, from the payments' story, in order."""
    rows = await payments.rows(
        "SELECT event FROM payment_history WHERE event LIKE '%retry%' ORDER BY id"
    )
    return [row["event"] for row in rows]
