"""Signed SSLCommerz notices for the load, each a function of its index and its run alone.

A run's name carries the time that its payments' identifiers have, as `<label>-<milliseconds>`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from tests.benchmark.load_generator import Maker

STORE_ID: Final = os.environ.get("SSLCOMMERZ_STORE_ID") or "demo_store01"
STORE_PASSWORD: Final = os.environ.get("SSLCOMMERZ_STORE_PASSWORD") or "demo_pass@ssl"
CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# In poisha. Cheap payments are the rule, but every priority is exercised in every run.
AMOUNTS_MINOR: Final = (50_000,) * 7 + (150_000,) * 2 + (500_000,)
DUPLICATE_EVERY: Final = 10

# The form of vector 1 in the protocol reference; None is filled in for each notice.
FIELDS: Final[Mapping[str, str | None]] = {
    "amount": None,
    "bank_tran_id": None,
    "base_fair": "0.00",
    "card_brand": "VISA",
    "card_issuer": "DEMO BANK, LTD.",
    "card_issuer_country": "Bangladesh",
    "card_issuer_country_code": "BD",
    "card_no": "411111XXXXXX1111",
    "card_type": "VISA-Demo Bank",
    "currency": "BDT",
    "currency_amount": None,
    "currency_rate": "1.0000",
    "currency_type": "BDT",
    "risk_level": "0",
    "risk_title": "Safe",
    "status": "VALID",
    "store_amount": None,
    "store_id": STORE_ID,
    "tran_date": "2026-01-05 12:00:00",
    "tran_id": None,
    "val_id": None,
    "value_a": None,
    "value_b": "",
    "value_c": "",
    "value_d": "",
}
SIGNED_NAMES: Final = ",".join(FIELDS)
HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class ExpectedPayment:
    """What must be in the payments service before its notice arrives."""

    ulid: str
    amount_minor: int
    created_milliseconds: int

    @property
    def payment_id(self) -> str:
        """The payment."""
        return f"pay_{self.ulid}"

    @property
    def reference(self) -> str:
        """The attempt, which travels as SSLCommerz's tran_id."""
        return f"att_{self.ulid}"


def expected_payment(index: int, run: str) -> ExpectedPayment:
    """Return the payment behind the notice `index` of `run`."""
    created_milliseconds = int(run.rpartition("-")[2]) + index
    random_bits = hashlib.sha256(f"{run}/{index}".encode()).digest()[:10]
    bits = created_milliseconds << 80 | int.from_bytes(random_bits)
    ulid = "".join(CROCKFORD[bits >> shift & 31] for shift in range(125, -1, -5))
    return ExpectedPayment(
        ulid=ulid,
        amount_minor=AMOUNTS_MINOR[index % len(AMOUNTS_MINOR)],
        created_milliseconds=created_milliseconds,
    )


def sslcommerz_notice(index: int, run: str) -> tuple[str, Mapping[str, str], bytes]:
    """Make the notice; its event id is the payment's id."""
    payment = expected_payment(index, run)
    return payment.payment_id, HEADERS, urlencode(signed_form(payment)).encode()


def with_duplicates(maker: Maker) -> Maker:
    """Let every tenth delivery repeat the one before it."""

    def maker_with_duplicates(index: int, run: str) -> tuple[str, Mapping[str, str], bytes]:
        repeats = index % DUPLICATE_EVERY == DUPLICATE_EVERY - 1
        return maker(index - 1 if repeats else index, run)

    return maker_with_duplicates


def signed_form(payment: ExpectedPayment) -> dict[str, str]:
    """Fill in the form and sign it twice, as SSLCommerz does."""
    amount = _decimal(payment.amount_minor)
    filled_in = {
        "amount": amount,
        "bank_tran_id": f"bank{payment.ulid}",
        "currency_amount": amount,
        "store_amount": _decimal(payment.amount_minor * 975 // 1000),
        "tran_id": payment.reference,
        "val_id": f"{payment.ulid}{payment.amount_minor:010d}",
        "value_a": f"cus_{payment.ulid}",
    }
    form = {name: filled_in[name] if value is None else value for name, value in FIELDS.items()}
    signatures = {
        "verify_sign": _signature(form, "md5"),
        "verify_sign_sha2": _signature(form, "sha256"),
    }
    return {**form, "verify_key": SIGNED_NAMES, **signatures, "card_sub_brand": "Classic"}


def _signature(form: Mapping[str, str], algorithm: str) -> str:
    signed = {**form, "store_passwd": hashlib.new(algorithm, STORE_PASSWORD.encode()).hexdigest()}
    text = "&".join(f"{name}={value}" for name, value in sorted(signed.items()))
    return hashlib.new(algorithm, text.encode()).hexdigest()


def _decimal(amount_minor: int) -> str:
    return f"{amount_minor // 100}.{amount_minor % 100:02d}"
