"""Signed SSLCommerz notices, made from the protocol's description."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from services.simulator.sslcommerz.signing import sign
from tests.support.settings import STORE_ID, STORE_PASSWORD


def notice_form(reference: str, **changes: str) -> dict[str, str]:
    """Return the fields of a genuine notice that a payment was made."""
    fields = {
        "tran_id": reference,
        "val_id": "2601051200001abcdefghijk",
        "status": "VALID",
        "amount": "1150.00",
        "store_amount": "1121.25",
        "currency": "BDT",
        "currency_type": "BDT",
        "currency_amount": "1150.00",
        "currency_rate": "1.0000",
        "card_type": "BKASH-BKash",
        "bank_tran_id": "bank_1",
        "tran_date": "2026-01-05 18:00:00",
        "store_id": STORE_ID,
        "risk_level": "0",
        "risk_title": "Safe",
        "value_a": "",
    } | changes
    return fields | sign(fields, fields, STORE_PASSWORD)


def encode(form: Mapping[str, str]) -> bytes:
    """Write a form as a browser and a gateway do."""
    return urlencode(form).encode()


def notice(reference: str, **changes: str) -> bytes:
    """Return the body of a genuine notice."""
    return encode(notice_form(reference, **changes))
