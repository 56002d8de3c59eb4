"""A person can pay, be declined or cancel in a browser without JavaScript."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from services.simulator.sslcommerz.domain import MAGIC
from tests.integration.simulator.world import Simulator


class Forms(HTMLParser):
    """The forms of a page: where each goes, and its fields."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.elements: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append(tag)
        if tag == "form":
            assert given["method"] == "post"
            self.forms.append((given["action"], {}))
        if tag == "input":
            self.forms[-1][1][given["name"]] = given["value"]


async def read_page(simulator: Simulator, method: str, path: str, status: int = 200) -> str:
    async with simulator.client.request(method, simulator.url + path) as response:
        assert response.status == status
        assert response.content_type == "text/html"
        return await response.text()


@pytest.mark.parametrize(
    ("button", "status", "way_back"),
    [
        (0, "VALID", "http://shop.example/success?a=1&b=%22"),
        (1, "FAILED", "http://shop.example/fail"),
        (2, "CANCELLED", "http://shop.example/cancel"),
    ],
    ids=["pay", "decline", "cancel"],
)
async def test_each_button_ends_the_attempt_and_leads_back_to_the_shop(
    simulator: Simulator, button: int, status: str, way_back: str
) -> None:
    opened = await simulator.open(success_url="http://shop.example/success?a=1&b=%22")
    path = f"/EasyCheckOut/{opened['sessionkey']}"
    buttons = Forms(await read_page(simulator, "GET", path)).forms

    page = await read_page(simulator, "POST", urljoin(path, buttons[button][0]))

    ((address, fields),) = Forms(page).forms
    (notice,) = await simulator.merchant.until_received(1)
    assert address == way_back
    assert fields["status"] == status
    assert fields == notice


async def test_what_the_merchant_says_is_text_and_never_markup(simulator: Simulator) -> None:
    evil = "<script>alert('1')</script>"
    opened = await simulator.open(product_name=evil, tran_id='"><b>"', value_a=evil)
    path = f"/EasyCheckOut/{opened['sessionkey']}"

    before = await read_page(simulator, "GET", path)
    after = await read_page(simulator, "POST", f"{path}/pay")

    assert Forms(before).elements.count("script") == 0
    assert Forms(after).elements.count("script") == 1
    assert "b" not in Forms(before).elements
    assert Forms(after).forms[0][1]["value_a"] == evil


async def test_a_paid_order_has_no_buttons(simulator: Simulator) -> None:
    opened = await simulator.open()
    await simulator.pay(opened["tran_id"])

    page = await read_page(simulator, "GET", f"/EasyCheckOut/{opened['sessionkey']}")

    assert "paid already" in page
    assert Forms(page).forms == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/EasyCheckOut/unknown"),
        ("GET", "/EasyCheckOut/%00"),
        ("GET", "/EasyCheckOut/%ff"),
        ("POST", "/EasyCheckOut/unknown/pay"),
        ("POST", "/EasyCheckOut/%00/pay"),
        ("POST", "/EasyCheckOut/unknown/steal"),
    ],
)
async def test_an_unknown_page_is_not_found(simulator: Simulator, method: str, path: str) -> None:
    page = await read_page(simulator, method, path, status=404)

    assert "Nothing to pay" in page


@pytest.mark.parametrize("path", ["/simulator", "/simulator/"])
async def test_the_overview_lists_every_magic_amount(simulator: Simulator, path: str) -> None:
    page = await read_page(simulator, "GET", path)

    assert all(f"….{decimals:02d}" in page for decimals in MAGIC)
