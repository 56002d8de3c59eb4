"""Reading a request to open a session, field by field, as the protocol describes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from yarl import URL

from services.simulator.sslcommerz.domain import CHARGE_MAX, CHARGE_MIN, RATES, to_charge
from shared.errors import PermanentError
from shared.money import Money

#: Mandatory fields and their greatest lengths. `store_id` and `store_passwd` are checked before.
MANDATORY: Final[Mapping[str, int]] = MappingProxyType(
    {
        "total_amount": 13,  # decimal(10,2) with its point, and room for nothing else
        "currency": 3,
        "tran_id": 30,
        "product_category": 100,
        "success_url": 255,
        "fail_url": 255,
        "cancel_url": 255,
        "cus_name": 50,
        "cus_email": 50,
        "cus_add1": 50,
        "cus_city": 50,
        "cus_postcode": 30,
        "cus_country": 50,
        "cus_phone": 20,
        "shipping_method": 50,
        "product_name": 255,
        "product_profile": 100,
    }
)

#: Mandatory too when something is shipped.
MANDATORY_TO_SHIP: Final[Mapping[str, int]] = MappingProxyType(
    {
        "num_of_item": 10,
        "ship_name": 50,
        "ship_add1": 50,
        "ship_city": 50,
        "ship_postcode": 50,
        "ship_country": 50,
    }
)

OPTIONAL: Final[Mapping[str, int]] = MappingProxyType(
    {
        "ipn_url": 255,
        "multi_card_name": 30,
        "allowed_bin": 255,
        "cus_add2": 50,
        "cus_state": 50,
        "cus_fax": 20,
        "value_a": 255,
        "value_b": 255,
        "value_c": 255,
        "value_d": 255,
    }
)

ADDRESSES: Final = ("success_url", "fail_url", "cancel_url", "ipn_url")

CHOICES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "currency": frozenset(RATES),
        "shipping_method": frozenset({"YES", "NO", "Courier", "SSLCOMMERZ_LOGISTIC"}),
        "product_profile": frozenset(
            {
                "general",
                "physical-goods",
                "non-physical-goods",
                "airline-tickets",
                "travel-vertical",
                "telecom-vertical",
            }
        ),
    }
)

_AMOUNT: Final = re.compile(r"[0-9]{1,8}(\.[0-9]{1,2})?")


class SessionRefusedError(PermanentError):
    """The request opens no session; the message is what `failedreason` says."""


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """A request that is in order."""

    tran_id: str
    price: Money
    charge: Money
    rate: Decimal
    product_name: str
    success_url: str
    fail_url: str
    cancel_url: str
    ipn_url: str
    echoed: tuple[str, ...]


def read_session_request(form: Mapping[str, str]) -> SessionRequest:
    """Check every field.

    Raises:
        SessionRefusedError: names the first field that is wrong.
    """
    mandatory = dict(MANDATORY)
    if form.get("shipping_method") != "NO":
        mandatory |= MANDATORY_TO_SHIP
    for name, length_max in mandatory.items():
        if not form.get(name, "").strip():
            raise SessionRefusedError(f"Invalid Information! '{name}' is missing or empty.")
        _check_text(name, form[name], length_max)
    for name, length_max in OPTIONAL.items():
        _check_text(name, form.get(name, ""), length_max)
    for name, choices in CHOICES.items():
        if form[name] not in choices:
            raise SessionRefusedError(f"Invalid Information! '{name}' is invalid.")
    for name in ADDRESSES:
        if form.get(name):
            _check_address(name, form[name])
    if not form["tran_id"].isprintable():
        raise SessionRefusedError("Invalid Information! 'tran_id' is invalid.")
    price, charge = _read_amount(form["total_amount"], form["currency"])
    return SessionRequest(
        tran_id=form["tran_id"],
        price=price,
        charge=charge,
        rate=RATES[form["currency"]],
        product_name=form["product_name"],
        success_url=form["success_url"],
        fail_url=form["fail_url"],
        cancel_url=form["cancel_url"],
        ipn_url=form.get("ipn_url", ""),
        echoed=tuple(form.get(f"value_{letter}", "") for letter in "abcd"),
    )


def read_price(form: Mapping[str, str]) -> Money | None:
    """Return the price, or None if it is not one; for choosing a behaviour before the checks."""
    text = form.get("total_amount", "")
    if form.get("currency") not in RATES or _AMOUNT.fullmatch(text) is None:
        return None
    return Money.from_decimal_text(text, form["currency"])


def _read_amount(text: str, currency: str) -> tuple[Money, Money]:
    price = read_price({"total_amount": text, "currency": currency})
    if price is None:
        raise SessionRefusedError("Invalid Information! 'total_amount' is invalid.")
    charge = to_charge(price, RATES[currency])
    if not CHARGE_MIN <= charge.minor_units <= CHARGE_MAX:
        raise SessionRefusedError(
            "Invalid Information! 'total_amount' must be between 10.00 and 500000.00 BDT."
        )
    return price, charge


def _check_text(name: str, text: str, length_max: int) -> None:
    if len(text) > length_max:
        raise SessionRefusedError(
            f"Invalid Information! '{name}' must not exceed {length_max} characters."
        )
    if "\0" in text:
        raise SessionRefusedError(f"Invalid Information! '{name}' is invalid.")


def _check_address(name: str, text: str) -> None:
    try:
        address = URL(text)
        is_usable = address.scheme in ("http", "https") and bool(address.host)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise SessionRefusedError(f"Invalid Information! '{name}' is not an HTTP address.")
