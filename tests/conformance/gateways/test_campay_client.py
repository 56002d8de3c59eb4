"""Whatever Campay answers, or does not, becomes the right outcome: never an exception.

The other side is a script of raw bytes, so that it can misbehave as no HTTP server would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.campay.client import CampayGateway
from shared.gateways.interface import (
    ActionRequired,
    Declined,
    FailureKind,
    Order,
    Outcome,
    Paid,
    Pending,
    Prompt,
    RefundFailed,
    RefundOrder,
    Unknown,
)
from shared.money import Money
from tests.support.blocking import run_blocking
from tests.support.campay import (
    EXTERNAL_REFERENCE,
    HANDLE,
    OTHER,
    PAID,
    ROW,
    TRANSACTION,
    VISIBLE_AFTER,
    campay_at,
    campay_with,
    transaction,
)
from tests.support.clocks import START, ManualClock
from tests.support.gateway_answers import (
    SILENCES,
    WRONG_SHAPES,
    CannedClient,
    json_values,
    reply,
    split,
)
from tests.support.mobile_money import (
    CUSTOMER,
    PAGE,
    PROMPT,
    PUBLIC_URL,
    assert_nothing_personal,
    page,
    prompt,
)
from tests.support.payments import REFERENCE
from tests.support.scripted_server import Script, ScriptedServer, answer, scripted_server

LINK = "https://demo.campay.net/pay/0b6f2c1e"
COLLECTED = {"reference": HANDLE, "ussd_code": "*126#", "operator": "mtn"}
LINKED = {"reference": HANDLE, "link": LINK}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    """Stands long enough after the orders' start that a history is believed."""
    return ManualClock(START + VISIBLE_AFTER)


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[CampayGateway]:
    """Call the scripted server; whatever is logged meanwhile holds no secret and no person."""
    gateway = campay_at(server.url, clock)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert_nothing_personal(lines, "secret")


Call = Callable[[CampayGateway], Coroutine[Any, Any, Outcome]]

CALLS: dict[str, Call] = {
    "prompt": lambda gateway: gateway.start(PROMPT),
    "page": lambda gateway: gateway.start(PAGE),
    "status": lambda gateway: gateway.look_up(prompt(handle=HANDLE)),
    "history": lambda gateway: gateway.look_up(PROMPT),
    "confirmation": lambda gateway: gateway.confirm(REFERENCE, HANDLE),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_what_says_nothing_is_unknown_and_asked_once(
    server: ScriptedServer, gateway: CampayGateway, call: Call, script: Script, reason: str
) -> None:
    server.then(script)

    outcome = await call(gateway)

    assert isinstance(outcome, Unknown)
    assert outcome.reason in reason.split("|")
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_gateway_that_cannot_be_reached_is_unknown(call: Call, clock: ManualClock) -> None:
    assert await call(campay_at("http://127.0.0.1:1", clock)) == Unknown("connect_failed")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("content", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
async def test_json_of_another_shape_is_unknown(
    server: ScriptedServer, gateway: CampayGateway, call: Call, content: object
) -> None:
    server.then(reply(content))

    assert isinstance(await call(gateway), Unknown)


async def test_a_prompt_carries_a_uuid_of_our_reference_and_the_reference_in_words(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(COLLECTED))

    assert await gateway.start(PROMPT) == Pending("prompted", HANDLE)

    method, target, headers, fields = split(server.requests[0])
    assert (method, target) == ("POST", "/api/collect/")
    assert headers["authorization"] == "Token secret-token"
    assert headers["content-type"] == "application/json"
    assert fields == {
        "amount": "5000",
        "currency": "XAF",
        "from": "237670000000",
        "description": f"{REFERENCE} Cours d'été  b",
        "external_reference": EXTERNAL_REFERENCE,
    }


async def test_a_national_number_gets_its_country(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(COLLECTED))

    await gateway.start(prompt(method=Prompt("690000000")))

    assert split(server.requests[0])[3]["from"] == "237690000000"


async def test_a_page_is_asked_for_with_both_ways_back(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(LINKED))

    assert await gateway.start(PAGE) == ActionRequired("open_page", LINK, HANDLE)

    method, target, _, fields = split(server.requests[0])
    assert (method, target) == ("POST", "/api/get_payment_link/")
    assert fields == {
        "amount": "5000",
        "currency": "XAF",
        "description": f"{REFERENCE} Cours d'été  b",
        "external_reference": EXTERNAL_REFERENCE,
        "redirect_url": f"{PUBLIC_URL}/return/campay/{REFERENCE}/success",
        "failure_redirect_url": f"{PUBLIC_URL}/return/campay/{REFERENCE}/fail",
        "payment_options": "MOMO,CARD",
        "from": "237699887766",
        "first_name": "Ada",
        "last_name": "Mbarga",
        "email": "ada@shop.example",
    }


async def test_what_campay_would_reject_or_we_do_not_know_is_left_out_of_a_page(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(reply(LINKED))
    customer = replace(CUSTOMER, name="<Ada>", email="<a>@b", phone="+4915112345678")

    await gateway.start(page(customer=customer, product_name="<script>" * 40))

    fields = split(server.requests[0])[3]
    assert fields["first_name"] == "Ada"
    assert fields.keys().isdisjoint({"last_name", "email", "from"})
    assert fields["description"].startswith(REFERENCE)
    assert len(fields["description"]) <= 100
    assert "<" not in str(fields)


def refused(reason: str, kind: FailureKind) -> Declined:
    return Declined(reason, kind, is_final=True)


CODES = {
    "ER101": refused("ER101: invalid phone number", FailureKind.AUTHENTICATION_FAILED),
    "ER102": refused("ER102: operator not supported", FailureKind.CARD_DECLINED),
    "ER201": refused("ER201: invalid amount", FailureKind.CONFIGURATION),
    "ER301": refused("ER301: insufficient balance", FailureKind.INSUFFICIENT_FUNDS),
}


@pytest.mark.parametrize("call", [CALLS["prompt"], CALLS["page"]], ids=["prompt", "page"])
@pytest.mark.parametrize(("code", "expected"), CODES.items(), ids=CODES)
async def test_a_code_is_definite_wherever_it_stands(
    server: ScriptedServer, gateway: CampayGateway, call: Call, code: str, expected: Declined
) -> None:
    bad = "400 Bad Request"
    server.then(
        reply({"message": "Bad number 237670000000", "error_code": code}, status=bad),
        reply({"message": f"{code} - 237670000000 is invalid"}, status=bad),
        reply({"errors": [{"code": [code]}]}, status="422 Unprocessable Entity"),
        answer(f"Error: {code}.".encode(), status=bad),
        reply({"code": code, "message": "said with 200", "reference": "None"}),
    )

    for _ in range(5):
        outcome = await call(gateway)
        assert outcome == expected
        assert_nothing_personal(outcome)


NOT_DEFINITE: dict[str, tuple[bytes, str]] = {
    "a fault with a code": (
        reply({"code": "ER101"}, status="500 Internal Server Error"),
        "http_500",
    ),
    "a page of a proxy with a code": (answer(b"<html>ER101</html>"), "not_json"),
    "a code we do not know": (
        reply({"message": "ER409 external_reference was used"}, status="400 Bad Request"),
        "http_400",
    ),
    "a code we do not know, with 200": (reply({"message": "ER409"}), "no_reference"),
    "the end of a reference": (
        reply({"message": "att_01KE70EHG0JY1QREBD77BRER101"}, status="400 Bad Request"),
        "http_400",
    ),
    "part of a reference": (
        reply({"message": "att_01KE70EHG0ER101EBD77BRA2Z8"}, status="400 Bad Request"),
        "http_400",
    ),
    "no code": (
        reply({"message": "malicious_payload_rejected"}, status="400 Bad Request"),
        "http_400",
    ),
    "forbidden": (reply({"message": "Forbidden"}, status="403 Forbidden"), "http_403"),
    "a reference that is none": (reply({"reference": "../balance"}), "no_reference"),
    "None for a reference": (reply({"reference": "None"}), "no_reference"),
    "a list for a reference": (reply({"reference": [HANDLE]}), "no_reference"),
}


@pytest.mark.parametrize(("sent", "reason"), NOT_DEFINITE.values(), ids=NOT_DEFINITE)
async def test_whatever_else_is_no_answer_decides_nothing(
    server: ScriptedServer, gateway: CampayGateway, sent: bytes, reason: str
) -> None:
    server.then(sent)

    assert await gateway.start(PROMPT) == Unknown(reason)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (None, "no_page"),
        ("None", "no_page"),
        ("http://demo.campay.net/pay/1", "page_on_foreign_host"),
        ("https://campay.net.evil.example/", "page_on_foreign_host"),
        ("https://demo.campay.net@evil.example/", "page_on_foreign_host"),
        ("https://evilcampay.net/", "page_on_foreign_host"),
        ("javascript:alert(1)", "page_on_foreign_host"),
    ],
)
async def test_a_page_anywhere_else_is_never_shown_to_a_customer(
    server: ScriptedServer, gateway: CampayGateway, link: object, reason: str
) -> None:
    server.then(reply(LINKED | {"link": link}))

    assert await gateway.start(PAGE) == Unknown(reason)


def failed(reason: str, kind: FailureKind = FailureKind.UNKNOWN_CODE) -> Declined:
    return Declined(reason, kind, is_final=True, handle=HANDLE)


#: What a status answer becomes for a prompt, by what differs from the documented one.
STATUSES: dict[str, tuple[dict[str, Any], Outcome]] = {
    "SUCCESSFUL": ({}, PAID),
    "amount as text": ({"amount": "5000"}, PAID),
    "amount as text with decimals that are none": ({"amount": "5000.00"}, PAID),
    "amount as a number with decimals that are none": ({"amount": 5000.0}, PAID),
    "another amount": ({"amount": "5.00"}, replace(PAID, amount=Money(5, "XAF"), fee=None)),
    "a share that is not told exactly": ({"app_amount": 4900.5}, replace(PAID, fee=None)),
    "another currency": (
        {"currency": "EUR"},
        replace(PAID, amount=Money(500_000, "EUR"), fee=Money(10_000, "EUR")),
    ),
    "names in capitals": (
        {"reference": HANDLE.upper(), "external_reference": EXTERNAL_REFERENCE.upper()},
        PAID,
    ),
    "an account without the later members": (
        dict.fromkeys(list(TRANSACTION)[7:]),
        replace(PAID, fee=None),
    ),
    "PENDING": ({"status": "PENDING"}, Pending("gateway_pending", HANDLE)),
    "FAILED": ({"status": "FAILED"}, failed("FAILED")),
    "FAILED for want of money": (
        {"status": "FAILED", "reason": "ER301 not enough for 237670000000"},
        failed("ER301 not enough for …", FailureKind.INSUFFICIENT_FUNDS),
    ),
    "FAILED for want of an answer": (
        {"status": "FAILED", "reason": "Timeout"},
        failed("Timeout", FailureKind.EXPIRED),
    ),
    "FAILED with a list as reason": ({"status": "FAILED", "reason": ["x"]}, failed("FAILED")),
    "a new status": ({"status": "REVERSED"}, Unknown("unknown_status")),
    "None for a status": ({"status": "None"}, Unknown("unknown_status")),
    "a list as status": ({"status": ["SUCCESSFUL"]}, Unknown("unknown_status")),
    "another transaction": ({"reference": OTHER}, Unknown("handle_differs")),
    "no transaction": ({"reference": None}, Unknown("handle_differs")),
    "another reference": ({"external_reference": OTHER}, Unknown("reference_differs")),
    "None for a reference": ({"external_reference": "None"}, Unknown("reference_differs")),
    "a withdrawal": ({"endpoint": "withdraw"}, Unknown("not_a_collection")),
    "decimals": ({"amount": "4999.50"}, Unknown("unreadable_amount")),
    "decimals in a number": ({"amount": 4999.5}, Unknown("unreadable_amount")),
    "an amount in words": ({"amount": "much"}, Unknown("unreadable_amount")),
    "None for an amount": ({"amount": "None"}, Unknown("unreadable_amount")),
    "a truth as amount": ({"amount": True}, Unknown("unreadable_amount")),
    "a negative amount": ({"amount": "-5000"}, Unknown("unreadable_amount")),
    "a huge amount": ({"amount": 1e300}, Unknown("unreadable_amount")),
    "an unknown currency": ({"currency": "XXX"}, Unknown("unreadable_amount")),
    "None for a currency": ({"currency": "None"}, Unknown("unreadable_amount")),
}


@pytest.mark.parametrize(("changes", "expected"), STATUSES.values(), ids=STATUSES)
async def test_a_status_becomes_its_outcome(
    server: ScriptedServer, gateway: CampayGateway, changes: dict[str, Any], expected: Outcome
) -> None:
    server.then(reply(transaction(**changes)))

    assert await gateway.look_up(prompt(handle=HANDLE)) == expected
    assert_nothing_personal(expected)
    method, target, headers, body = split(server.requests[0])
    assert (method, target, body) == ("GET", f"/api/transaction/{HANDLE}/", None)
    assert headers["authorization"] == "Token secret-token"


@pytest.mark.parametrize(("changes", "expected"), STATUSES.values(), ids=STATUSES)
async def test_a_failure_is_final_only_of_a_prompt(
    server: ScriptedServer, gateway: CampayGateway, changes: dict[str, Any], expected: Outcome
) -> None:
    if isinstance(expected, Declined):
        expected = replace(expected, is_final=False)
    server.then(reply(transaction(**changes)), reply(transaction(**changes)))

    assert await gateway.look_up(page(handle=HANDLE)) == expected
    assert await gateway.confirm(REFERENCE, HANDLE) == expected


async def test_a_page_that_nobody_has_used_is_open_and_an_unknown_prompt_is_unknown(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    missing = reply({"message": "Transaction not found"}, status="404 Not Found")
    server.then(missing, missing, missing)

    assert await gateway.look_up(page(handle=HANDLE)) == Pending("page_unused", HANDLE)
    assert await gateway.look_up(prompt(handle=HANDLE)) == Unknown("http_404")
    assert await gateway.confirm(REFERENCE, HANDLE) == Unknown("http_404")


@pytest.mark.parametrize("handle", ["", "../balance", "a b", "a\r\nb", "é", "\ud800", "a" * 65])
async def test_a_handle_that_is_none_is_never_asked_for(
    server: ScriptedServer, gateway: CampayGateway, handle: str
) -> None:
    assert await gateway.confirm(REFERENCE, handle) == Unknown("not_a_handle")
    assert await gateway.look_up(page(handle=handle)) == Unknown("not_a_handle")
    assert not server.requests


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (PROMPT, None),
        (page(amount=Money(1, "XAF")), None),
        (page(amount=Money(0, "XAF")), "amount"),
        (page(amount=Money(5_000, "BDT")), "currency"),
        (prompt(method=Prompt("570000000")), "method.phone"),
        (prompt(method=Prompt("+237670000000")), "method.phone"),
    ],
    ids=str,
)
async def test_what_campay_cannot_take_is_refused_and_never_tried(
    server: ScriptedServer, gateway: CampayGateway, order: Order, field: str | None
) -> None:
    refusal = gateway.refusal(order)

    assert (refusal.field if refusal else None) == field
    if refusal is not None:
        assert await gateway.start(order) == refused(refusal.problem, FailureKind.CONFIGURATION)
        assert not server.requests


async def test_what_campay_cannot_do_is_said_and_never_tried(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    order = RefundOrder("rfd_1", REFERENCE, HANDLE, Money(5_000, "XAF"), "", START)

    assert not gateway.capabilities.refunds
    assert not gateway.capabilities.cancels
    assert await gateway.refund(order) == RefundFailed("not_supported")
    assert await gateway.look_up_refund(order) == RefundFailed("not_supported")
    assert await gateway.cancel(page(handle=HANDLE)) == Unknown("not_supported")
    assert not server.requests


statuses = st.sampled_from(["SUCCESSFUL", "FAILED", "PENDING", "None"])
transactions = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys([*TRANSACTION, "link", "message", "data"], json_values)
    | {"reference": st.just(HANDLE) | json_values, "status": statuses | json_values}
    | {"external_reference": st.just(EXTERNAL_REFERENCE) | json_values}
    | {"data": json_values | st.lists(st.dictionaries(st.sampled_from(list(ROW)), json_values))},
)
answers = transactions | json_values


@given(answers.map(orjson.dumps) | st.binary(max_size=300), st.sampled_from([200, 400, 401, 404]))
def test_arbitrary_answers_become_an_outcome_and_never_an_exception(
    body: bytes, status: int
) -> None:
    clock = ManualClock(START + timedelta(hours=1))
    gateway = campay_with(CannedClient(body, status), "http://127.0.0.1:1", clock)

    for call in CALLS.values():
        outcome = run_blocking(call(gateway))
        assert isinstance(outcome, (Paid, Declined, Pending, ActionRequired, Unknown))
        assert not isinstance(outcome, Paid) or outcome.reference == REFERENCE
        assert status == 200 or not isinstance(outcome, (Paid, ActionRequired))
