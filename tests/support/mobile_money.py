"""Orders in XAF for tests of the mobile money gateways."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shared.gateways.interface import Checkout, Customer, Order, Prompt
from shared.money import Money
from tests.support.clocks import START
from tests.support.payments import REFERENCE

PUBLIC_URL = "https://pay.example"

PHONE = "237670000000"

#: Each part of it is a personal datum that must not be seen anywhere.
CUSTOMER = Customer(
    id="cus_1001", name="Ada Mbarga", email="ada@shop.example", phone="237699887766"
)
PERSONAL = ("Ada", "Mbarga", "ada@", "670000000", "699887766")

PROMPT = Order(
    reference=REFERENCE,
    amount=Money(5_000, "XAF"),
    method=Prompt(PHONE),
    customer=CUSTOMER,
    product_name="Cours d'été <b>",
    started_at=START,
)
PAGE = replace(PROMPT, method=Checkout())


def prompt(**changes: Any) -> Order:
    """Return an order that prompts a phone."""
    return replace(PROMPT, **changes)


def page(**changes: Any) -> Order:
    """Return an order that opens a page."""
    return replace(PAGE, **changes)


def assert_nothing_personal(shown: object, *secrets: str) -> None:
    """Assert that what is shown holds no personal datum of the orders here, and no secret."""
    text = repr(shown)
    assert not [word for word in (*PERSONAL, *secrets) if word in text]
