"""Fapshi as its documents describe it, for tests of our client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared.gateways.fapshi.client import FapshiGateway
from shared.gateways.http_client import HttpClient
from shared.gateways.interface import Paid
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.mobile_money import PUBLIC_URL
from tests.support.payments import REFERENCE

API_USER = "secret-user"
API_KEY = "FAK_TEST_secret-key"
HANDLE = "Ab3dE6gH"
OTHER = "Zy9xW7vU"

TIMEOUT_SECONDS = 1.0
CERTAIN_AFTER = timedelta(seconds=75)

#: A transaction of 5,000 XAF, as documented.
TRANSACTION: dict[str, Any] = {
    "transId": HANDLE,
    "status": "SUCCESSFUL",
    "medium": "mobile money",
    "serviceName": "Demo Shop",
    "transType": "Collection",
    "amount": 5000,
    "revenue": 4850,
    "payerName": "Ada Mbarga",
    "email": "ada@shop.example",
    "redirectUrl": f"{PUBLIC_URL}/back",
    "externalId": REFERENCE,
    "userId": "cus_1001",
    "webhook": f"{PUBLIC_URL}/webhooks/fapshi",
    "reason": None,
    "financialTransId": "9876543210",
    "dateInitiated": "2026-01-05T12:00:00.000Z",
    "dateConfirmed": "2026-01-05T12:01:10.000Z",
}

#: What that transaction means.
PAID = Paid(
    REFERENCE,
    Money(5_000, "XAF"),
    validation_id=HANDLE,
    gateway_payment_id=HANDLE,
    fee=Money(150, "XAF"),
)


def transaction(**changes: Any) -> dict[str, Any]:
    """Return a transaction that differs from the documented one."""
    return TRANSACTION | changes


def fapshi_with(client: HttpClient, base_url: str, clock: ManualClock) -> FapshiGateway:
    """Return our client of an account at Fapshi."""
    return FapshiGateway(
        client,
        base_url=base_url,
        public_url=PUBLIC_URL,
        api_user=API_USER,
        api_key=API_KEY,
        certain_after=CERTAIN_AFTER,
        clock=clock,
    )


def fapshi_at(url: str, clock: ManualClock) -> FapshiGateway:
    """Return our client of an account at an address, with little patience."""
    return fapshi_with(HttpClient(url, total_timeout_seconds=TIMEOUT_SECONDS), url, clock)
