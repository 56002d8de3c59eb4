"""Campay as its documents describe it, for tests of our client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared.gateways.campay.client import CampayGateway
from shared.gateways.http_client import HttpClient
from shared.gateways.interface import Paid
from shared.identifiers import as_uuid
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.mobile_money import PUBLIC_URL
from tests.support.payments import REFERENCE

TOKEN = "secret-token"
USERNAME = "secret-user"
PASSWORD = "secret-password"

HANDLE = "0b6f2c1e-5a55-4c39-9d0e-3f1f7f0a1b2c"
OTHER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
EXTERNAL_REFERENCE = as_uuid(REFERENCE)

TIMEOUT_SECONDS = 1.0
VISIBLE_AFTER = timedelta(minutes=15)

#: A transaction of 5,000 XAF, as documented.
TRANSACTION: dict[str, Any] = {
    "reference": HANDLE,
    "external_reference": EXTERNAL_REFERENCE,
    "status": "SUCCESSFUL",
    "amount": 5000,
    "currency": "XAF",
    "operator": "MTN",
    "code": "CP260105T0001A",
    "operator_reference": "1234567890",
    "endpoint": "collect",
    "signature": "a.b.c",
    "external_user": "",
    "app_amount": 4900,
    "phone_number": "237670000000",
    "reason": "None",
}

#: A row of the history, as documented.
ROW: dict[str, Any] = {
    "datetime": "2026-01-05T12:00:03",
    "code": "CP260105T0001A",
    "operator_tx_code": "1234567890",
    "operator": "MTN",
    "phone_number": "237670000000",
    "description": f"{REFERENCE} Cours d'été",
    "external_user": "",
    "amount": 5000,
    "charge_amount": 100,
    "debit": 0,
    "credit": 4900,
    "status": "SUCCESSFUL",
    "reference_uuid": HANDLE,
}

#: What that transaction means.
PAID = Paid(
    REFERENCE,
    Money(5_000, "XAF"),
    validation_id=HANDLE,
    gateway_payment_id=HANDLE,
    fee=Money(100, "XAF"),
)


def transaction(**changes: Any) -> dict[str, Any]:
    """Return a transaction that differs from the documented one."""
    return TRANSACTION | changes


def history(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return a history of rows that differ from the documented one."""
    return {"data": [ROW | row for row in rows]}


def campay_with(
    client: HttpClient,
    base_url: str,
    clock: ManualClock,
    credentials: str | tuple[str, str] = TOKEN,
) -> CampayGateway:
    """Return our client of an application at Campay."""
    return CampayGateway(
        client,
        base_url=base_url,
        public_url=PUBLIC_URL,
        credentials=credentials,
        timeout_seconds=TIMEOUT_SECONDS,
        visible_after=VISIBLE_AFTER,
        clock=clock,
    )


def campay_at(
    url: str, clock: ManualClock, credentials: str | tuple[str, str] = TOKEN
) -> CampayGateway:
    """Return our client of an application at an address, with little patience."""
    client = HttpClient(url, total_timeout_seconds=TIMEOUT_SECONDS)
    return campay_with(client, url, clock, credentials)
