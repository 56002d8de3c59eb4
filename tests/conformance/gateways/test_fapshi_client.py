"""Whatever Fapshi answers, or does not, becomes the right outcome: never an exception.

The other side is a script of raw bytes, so that it can misbehave as no HTTP server would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.fapshi.client import FapshiGateway, user_id
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
from tests.support.clocks import START, ManualClock
from tests.support.fapshi import (
    API_KEY,
    API_USER,
    CERTAIN_AFTER,
    HANDLE,
    OTHER,
    PAID,
    TRANSACTION,
    fapshi_at,
    fapshi_with,
    transaction,
)
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
from tests.support.scripted_server import (
    Script,
    ScriptedServer,
    answer,
    scripted_server,
    sends_and_closes,
)

LINK = "https://checkout.fapshi.com/payment/65a0c0ffee65a0c0ffee65a0"
INITIATED = {"message": "Request successful", "link": LINK, "transId": HANDLE}
PROMPTED = {"message": "Accepted", "transId": HANDLE, "dateInitiated": "2026-01-05"}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    """Stands long enough after the orders' start that a listing is believed."""
    return ManualClock(START + CERTAIN_AFTER)


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[FapshiGateway]:
    """Call the scripted server; whatever is logged meanwhile holds no secret and no person."""
    gateway = fapshi_at(server.url, clock)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert_nothing_personal(lines, "secret")


Call = Callable[[FapshiGateway], Coroutine[Any, Any, Outcome]]

CALLS: dict[str, Call] = {
    "prompt": lambda gateway: gateway.start(PROMPT),
    "page": lambda gateway: gateway.start(PAGE),
    "status": lambda gateway: gateway.look_up(prompt(handle=HANDLE)),
    "listing": lambda gateway: gateway.look_up(PROMPT),
    "confirmation": lambda gateway: gateway.confirm(REFERENCE, HANDLE),
    "cancellation of a prompt": lambda gateway: gateway.cancel(prompt(handle=HANDLE)),
    "cancellation of a page": lambda gateway: gateway.cancel(PAGE),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_what_says_nothing_is_unknown_and_asked_once(
    server: ScriptedServer, gateway: FapshiGateway, call: Call, script: Script, reason: str
) -> None:
    server.then(script)

    outcome = await call(gateway)

    assert isinstance(outcome, Unknown)
    assert outcome.reason in reason.split("|")
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_gateway_that_cannot_be_reached_is_unknown(call: Call, clock: ManualClock) -> None:
    gateway = fapshi_at("http://127.0.0.1:1", clock)

    assert await call(gateway) == Unknown("connect_failed")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("content", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
async def test_json_of_another_shape_is_unknown(
    server: ScriptedServer, gateway: FapshiGateway, call: Call, content: object
) -> None:
    server.then(reply(content))

    outcome = await call(gateway)

    if call in (CALLS["listing"], CALLS["cancellation of a page"]) and content in ([], [{}, {}]):
        assert outcome == Pending("not_attempted")  # A listing, and nothing of it is ours.
    else:
        assert isinstance(outcome, Unknown)


async def test_a_page_is_asked_for_with_our_reference_and_customer(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply(INITIATED))

    assert await gateway.start(PAGE) == ActionRequired("open_page", LINK, HANDLE)

    method, target, headers, fields = split(server.requests[0])
    assert (method, target) == ("POST", "/initiate-pay")
    assert (headers["apiuser"], headers["apikey"]) == (API_USER, API_KEY)
    assert headers["content-type"] == "application/json"
    assert fields == {
        "amount": 5000,
        "email": "ada@shop.example",
        "redirectUrl": f"{PUBLIC_URL}/return/fapshi/{REFERENCE}/back",
        "userId": "cus_1001",
        "externalId": REFERENCE,
        "message": "Cours d'été <b>",
    }
    assert isinstance(fields["amount"], int)


@pytest.mark.parametrize("phone", ["237670000000", "670000000"])
async def test_a_prompt_goes_to_the_national_number(
    server: ScriptedServer, gateway: FapshiGateway, phone: str
) -> None:
    server.then(reply(PROMPTED))

    assert await gateway.start(prompt(method=Prompt(phone))) == Pending("prompted", HANDLE)

    method, target, _, fields = split(server.requests[0])
    assert (method, target) == ("POST", "/direct-pay")
    assert fields == {
        "amount": 5000,
        "phone": "670000000",
        "name": "Ada Mbarga",
        "email": "ada@shop.example",
        "userId": "cus_1001",
        "externalId": REFERENCE,
        "message": "Cours d'été <b>",
    }


async def test_what_we_do_not_know_of_a_customer_is_left_out(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    server.then(reply(PROMPTED))

    await gateway.start(prompt(customer=replace(CUSTOMER, name="", email="")))

    _, _, _, fields = split(server.requests[0])
    assert fields.keys().isdisjoint({"name", "email"})


def refused(reason: str, kind: FailureKind = FailureKind.CONFIGURATION) -> Declined:
    return Declined(reason, kind, is_final=True)


REFUSED: dict[str, tuple[str, str, Declined]] = {
    "bad input": ("400 Bad Request", "amount is wrong", refused("amount is wrong")),
    "a wrong number": (
        "400 Bad Request",
        "invalid phone 670000000 of Ada Mbarga (ada@shop.example)",
        refused("invalid phone … of … (…)", FailureKind.AUTHENTICATION_FAILED),
    ),
    "a number in another form": (
        "400 Bad Request",
        "+237 6 70 00 00 00 is no phone",
        refused("… is no phone", FailureKind.AUTHENTICATION_FAILED),
    ),
    "credentials": (
        "403 Forbidden",
        "Invalid API credentials",
        refused("Invalid API credentials"),
    ),
    "a service that is off, whatever it is called": (
        "403 Forbidden",
        "phone payments are not enabled",
        refused("phone payments are not enabled"),
    ),
    "credentials, said otherwise": ("401 Unauthorized", "who?", refused("who?")),
    "nothing but a number": ("400 Bad Request", "\n", refused("http_400")),
}


@pytest.mark.parametrize("call", [CALLS["prompt"], CALLS["page"]], ids=["prompt", "page"])
@pytest.mark.parametrize(("status", "message", "expected"), REFUSED.values(), ids=REFUSED)
async def test_a_refusal_in_fapshis_own_words_is_definite_and_names_nobody(  # noqa: PLR0917 - a table
    server: ScriptedServer,
    gateway: FapshiGateway,
    call: Call,
    status: str,
    message: str,
    expected: Declined,
) -> None:
    server.then(reply({"message": message}, status=status))

    outcome = await call(gateway)

    assert outcome == expected
    assert_nothing_personal(outcome)


@pytest.mark.parametrize("status", ["404 Not Found", "409 Conflict", "422 Unprocessable"])
async def test_a_refusal_that_is_not_documented_decides_nothing(
    server: ScriptedServer, gateway: FapshiGateway, status: str
) -> None:
    server.then(reply({"message": "no"}, status=status))

    assert await gateway.start(PROMPT) == Unknown(f"http_{status[:3]}")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"transId": None}, "no_transaction_id"),
        ({"transId": ""}, "no_transaction_id"),
        ({"transId": "../balance"}, "no_transaction_id"),
        ({"transId": "a" * 41}, "no_transaction_id"),
        ({"link": None}, "no_page"),
        ({"link": ["x"]}, "no_page"),
        ({"link": "http://checkout.fapshi.com/payment/1"}, "page_on_foreign_host"),
        ({"link": "https://fapshi.com.evil.example/"}, "page_on_foreign_host"),
        ({"link": "https://evilfapshi.com/"}, "page_on_foreign_host"),
        ({"link": "https://checkout.fapshi.com@evil.example/"}, "page_on_foreign_host"),
        ({"link": "https://evil.example\\@checkout.fapshi.com/"}, "page_on_foreign_host"),
        ({"link": "https://checkout.fapshi.com/\r\nx"}, "page_on_foreign_host"),
        ({"link": "https://[checkout.fapshi.com/"}, "page_on_foreign_host"),
        ({"link": "javascript:alert(1)"}, "page_on_foreign_host"),
        ({"link": "/payment/1"}, "page_on_foreign_host"),
    ],
    ids=str,
)
async def test_a_page_without_a_name_or_anywhere_else_is_never_shown(
    server: ScriptedServer, gateway: FapshiGateway, fields: dict[str, Any], reason: str
) -> None:
    server.then(reply(INITIATED | fields))

    assert await gateway.start(PAGE) == Unknown(reason)


#: What a status answer becomes for a prompt, by what differs from the documented one.
STATUSES: dict[str, tuple[dict[str, Any], Outcome]] = {
    "SUCCESSFUL": ({}, PAID),
    "amount as text": ({"amount": "5000"}, PAID),
    "amount with decimals that are none": ({"amount": 5000.0}, PAID),
    "another amount": (
        {"amount": 4999},
        replace(PAID, amount=Money(4_999, "XAF"), fee=Money(149, "XAF")),
    ),
    "CREATED": ({"status": "CREATED"}, Pending("gateway_created", HANDLE)),
    "PENDING": ({"status": "PENDING"}, Pending("gateway_pending", HANDLE)),
    "EXPIRED": (
        {"status": "EXPIRED"},
        Declined("EXPIRED", FailureKind.EXPIRED, is_final=True, handle=HANDLE),
    ),
    "FAILED": ({"status": "FAILED"}, Declined("FAILED", is_final=True, handle=HANDLE)),
    "FAILED for want of money": (
        {"status": "FAILED", "reason": "INSUFFICIENT_FUNDS"},
        Declined("INSUFFICIENT_FUNDS", FailureKind.INSUFFICIENT_FUNDS, True, HANDLE),  # noqa: FBT003
    ),
    "FAILED, with a person named": (
        {"status": "FAILED", "reason": "Ada Mbarga (237670000000) cancelled"},
        Declined("… (…) cancelled", FailureKind.CANCELLED, True, HANDLE),  # noqa: FBT003
    ),
    "FAILED, with an object as reason": (
        {"status": "FAILED", "reason": {"code": 1}},
        Declined("FAILED", is_final=True, handle=HANDLE),
    ),
    "a new status": ({"status": "REFUNDED"}, Unknown("unknown_status")),
    "another spelling": ({"status": "successful"}, Unknown("unknown_status")),
    "no status": ({"status": None}, Unknown("unknown_status")),
    "a list as status": ({"status": ["SUCCESSFUL"]}, Unknown("unknown_status")),
    "another transaction": ({"transId": OTHER}, Unknown("handle_differs")),
    "no transaction": ({"transId": None}, Unknown("handle_differs")),
    "another reference": ({"externalId": "att_other"}, Unknown("reference_differs")),
    "no reference": ({"externalId": None}, Unknown("reference_differs")),
    "a payout": ({"transType": "Payout"}, Unknown("not_a_collection")),
    "no type": ({"transType": None}, Unknown("not_a_collection")),
    "an amount in words": ({"amount": "much"}, Unknown("unreadable_amount")),
    "half a franc": ({"amount": 4999.5}, Unknown("unreadable_amount")),
    "a negative amount": ({"amount": -5000}, Unknown("unreadable_amount")),
    "a huge amount": ({"amount": 10**18}, Unknown("unreadable_amount")),
    "a truth as amount": ({"amount": True}, Unknown("unreadable_amount")),
    "no amount": ({"amount": None}, Unknown("unreadable_amount")),
}


@pytest.mark.parametrize(("changes", "expected"), STATUSES.values(), ids=STATUSES)
async def test_a_status_becomes_its_outcome(
    server: ScriptedServer, gateway: FapshiGateway, changes: dict[str, Any], expected: Outcome
) -> None:
    server.then(reply(transaction(**changes)), reply([transaction(**changes)]))

    assert await gateway.look_up(prompt(handle=HANDLE)) == expected
    assert await gateway.look_up(prompt(handle=HANDLE)) == expected  # As a list of one.
    assert_nothing_personal(expected)
    assert split(server.requests[0])[:2] == ("GET", f"/payment-status/{HANDLE}")
    assert split(server.requests[0])[3] is None


@pytest.mark.parametrize(("changes", "expected"), STATUSES.values(), ids=STATUSES)
async def test_a_failure_is_final_only_where_no_page_can_be_tried_again(
    server: ScriptedServer, gateway: FapshiGateway, changes: dict[str, Any], expected: Outcome
) -> None:
    if isinstance(expected, Declined) and expected.kind is not FailureKind.EXPIRED:
        expected = replace(expected, is_final=False)
    server.then(reply(transaction(**changes)), reply(transaction(**changes)))

    assert await gateway.look_up(page(handle=HANDLE)) == expected
    assert await gateway.confirm(REFERENCE, HANDLE) == expected


@pytest.mark.parametrize("handle", ["", "../balance", "a b", "a\r\nb", "é", "\ud800", "a" * 41])
async def test_a_handle_that_is_none_is_never_asked_for(
    server: ScriptedServer, gateway: FapshiGateway, handle: str
) -> None:
    assert await gateway.confirm(REFERENCE, handle) == Unknown("not_a_handle")
    assert await gateway.look_up(page(handle=handle)) == Unknown("not_a_handle")
    assert not server.requests


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (PROMPT, None),
        (PAGE, None),
        (page(amount=Money(100, "XAF")), None),
        (page(amount=Money(99, "XAF")), "amount"),
        (page(amount=Money(5_000, "BDT")), "currency"),
        *[
            (prompt(method=Prompt(phone)), "method.phone")
            for phone in [
                *("", "237", "570000000", "67000000", "6700000000", "+237670000000"),
                *("23767000000", "237237670000000", "67000000a", "٦70000000", "670000000\n"),
            ]
        ],
        *[(prompt(method=Prompt(phone)), None) for phone in ("690000000", "237656000000")],
    ],
    ids=str,
)
async def test_what_fapshi_cannot_take_is_refused_and_never_tried(
    server: ScriptedServer, gateway: FapshiGateway, order: Order, field: str | None
) -> None:
    refusal = gateway.refusal(order)

    assert (refusal.field if refusal else None) == field
    if refusal is not None:
        assert isinstance(order.method, Prompt) is (field == "method.phone")
        declined = Declined(refusal.problem, FailureKind.CONFIGURATION, is_final=True)
        assert await gateway.start(order) == declined
        assert not server.requests


async def test_money_is_given_back_elsewhere(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    order = RefundOrder("rfd_1", REFERENCE, HANDLE, Money(5_000, "XAF"), "", START)

    assert not gateway.capabilities.refunds
    assert await gateway.refund(order) == RefundFailed("not_supported")
    assert await gateway.look_up_refund(order) == RefundFailed("not_supported")
    assert not server.requests


async def test_a_page_is_closed_and_read_again(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    expired = transaction(status="EXPIRED")
    server.then(reply(expired), reply(expired))

    outcome = await gateway.cancel(page(handle=HANDLE))

    assert outcome == Declined("EXPIRED", FailureKind.EXPIRED, is_final=True, handle=HANDLE)
    method, target, _, fields = split(server.requests[0])
    assert (method, target, fields) == ("POST", "/expire-pay", {"transId": HANDLE})
    assert split(server.requests[1])[:2] == ("GET", f"/payment-status/{HANDLE}")


@pytest.mark.parametrize(
    "script",
    [
        reply({"message": "Link already expired"}, status="400 Bad Request"),
        answer(b"", status="502 Bad Gateway"),
        sends_and_closes(b""),
    ],
    ids=["expired already", "fault", "closed"],
)
async def test_what_became_of_a_page_is_read_whatever_closing_it_said(
    server: ScriptedServer, gateway: FapshiGateway, script: Script | bytes
) -> None:
    server.then(script, reply(transaction()))

    assert await gateway.cancel(page(handle=HANDLE)) == PAID


async def test_a_page_whose_name_was_lost_is_found_and_closed(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    pending, expired = transaction(status="PENDING"), transaction(status="EXPIRED")
    server.then(reply([pending]), reply(pending), reply(expired), reply(expired))

    outcome = await gateway.cancel(PAGE)

    assert outcome == Declined("EXPIRED", FailureKind.EXPIRED, is_final=True, handle=HANDLE)


async def test_nothing_is_closed_where_nothing_is_known_or_all_is_over(
    server: ScriptedServer, gateway: FapshiGateway
) -> None:
    expired = transaction(status="EXPIRED")
    server.then(reply([]), reply([expired]), reply(expired), reply([TRANSACTION]))
    server.then(reply(TRANSACTION))

    assert await gateway.cancel(PAGE) == Pending("not_attempted")
    assert isinstance(await gateway.cancel(PAGE), Declined)
    assert await gateway.cancel(PAGE) == PAID
    assert {split(request)[0] for request in server.requests} == {"GET"}


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        ("cus_1001", "cus_1001"),
        ("A-z_09" * 16, "A-z_09" * 16),
        ("a" * 100, "a" * 100),
    ],
)
def test_a_customers_id_that_fits_is_sent_as_it_is(customer: str, expected: str) -> None:
    assert user_id(customer) == expected


customer_ids = st.text(max_size=120) | st.from_regex(r"[A-Za-z0-9_-]{1,101}", fullmatch=True)


@given(st.lists(customer_ids | customer_ids.map(user_id), min_size=2, unique=True))
def test_two_customers_never_share_an_id(customers: list[str]) -> None:
    ids = [user_id(customer) for customer in customers]

    assert len(set(ids)) == len(ids)
    assert all(one.isascii() and 1 <= len(one) <= 100 for one in ids)


statuses = st.sampled_from(["SUCCESSFUL", "FAILED", "CREATED", "PENDING", "EXPIRED"])
transactions = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys([*TRANSACTION, "link", "message"], json_values)
    | {"transId": st.just(HANDLE) | json_values, "externalId": st.just(REFERENCE) | json_values}
    | {"transType": st.just("Collection") | json_values, "status": statuses | json_values},
)
answers = transactions | st.lists(transactions, max_size=3) | json_values


@given(answers.map(orjson.dumps) | st.binary(max_size=300), st.sampled_from([200, 400, 403, 404]))
def test_arbitrary_answers_become_an_outcome_and_never_an_exception(
    body: bytes, status: int
) -> None:
    client = CannedClient(body, status)
    clock = ManualClock(START + CERTAIN_AFTER)
    gateway = fapshi_with(client, "http://127.0.0.1:1", clock)

    for call in CALLS.values():
        outcome = run_blocking(call(gateway))
        assert isinstance(outcome, (Paid, Declined, Pending, ActionRequired, Unknown))
        assert not isinstance(outcome, Paid) or outcome.reference == REFERENCE
        assert status == 200 or not isinstance(outcome, (Paid, ActionRequired))
