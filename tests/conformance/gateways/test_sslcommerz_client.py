"""Whatever SSLCommerz answers, or does not, becomes the right verdict: never an exception.

The other side is a script of raw bytes, so that it can misbehave as no HTTP server would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.http_client import ANSWER_BYTES_MAX, HttpAnswer, HttpClient
from shared.gateways.interface import (
    ActionRequired,
    Card,
    Checkout,
    Customer,
    Declined,
    FailureKind,
    Method,
    Order,
    Outcome,
    Paid,
    Pending,
    Prompt,
    Unknown,
)
from shared.gateways.sslcommerz.client import SslcommerzGateway
from shared.money import Money
from tests.support.blocking import run_blocking
from tests.support.payments import NOW, REFERENCE
from tests.support.scripted_server import (
    Script,
    ScriptedServer,
    answer,
    says_nothing,
    scripted_server,
    sends,
    sends_and_closes,
    sends_and_resets,
)
from tests.support.settings import STORE_ID

PASSWORD = "p&ss=w rd/%secret"
TIMEOUT_SECONDS = 1.0
PUBLIC_URL = "https://pay.example"

VALIDATION_ID = "260105120000VaLiDaTiOnId01"

#: A validation of a payment of 1150.00 BDT, as documented.
VALIDATION: dict[str, Any] = {
    "status": "VALID",
    "tran_date": "2026-01-05 12:00:00",
    "tran_id": REFERENCE,
    "val_id": VALIDATION_ID,
    "amount": "1150.00",
    "store_amount": "1121.25",
    "currency": "BDT",
    "bank_tran_id": "26010512000001AbCdEfGhIjKl",
    "currency_type": "BDT",
    "currency_amount": "1150.00",
    "currency_rate": "1.0000",
    "risk_level": "0",
    "risk_title": "Safe",
    "APIConnect": "DONE",
}
PAID = Paid(
    reference=REFERENCE,
    amount=Money(115_000, "BDT"),
    validation_id=VALIDATION_ID,
    gateway_payment_id="26010512000001AbCdEfGhIjKl",
    is_risky=False,
    fee=Money(2_875, "BDT"),
)
IN_USD = {"amount": "1220.00", "currency_type": "USD", "currency_amount": "10.00"}

#: A failed try beside the successful one, as in the documentation.
FAILED_ELEMENT = {"val_id": "", "status": "FAILED", "error": "Insufficient balance"}
PAID_ELEMENT = {"val_id": VALIDATION_ID, "status": "VALIDATED", "tran_id": REFERENCE}

ORDER = Order(
    reference=REFERENCE,
    amount=Money(115_000, "BDT"),
    method=Checkout(),
    customer=Customer(
        id="cus_1",
        name="Ada & Søn " + "x" * 60,
        email="ada@shop.example",
        phone="01700000000",
    ),
    product_name="Course",
    started_at=NOW,
)


def reply(fields: object) -> bytes:
    return answer(orjson.dumps(fields))


def query(*elements: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    fields = {"APIConnect": "DONE", "no_of_trans_found": len(elements), "element": list(elements)}
    return fields | changes


#: How a call can fail without saying anything about the payment.
SILENCES: dict[str, tuple[Script, str]] = {
    "closed without an answer": (sends_and_closes(b""), "connection_reset"),
    "reset in mid-body": (
        sends_and_resets(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status":"VALID"'),
        "answer_cut_short|connection_reset",  # A reset may overtake what was sent before it.
    ),
    "never answered": (says_nothing, "timeout"),
    "500": (sends(answer(b"", status="500 Internal Server Error")), "http_500"),
    "502 with HTML": (
        sends(answer(b"<html><h1>Bad Gateway</h1></html>", status="502 Bad Gateway")),
        "http_502",
    ),
    "200 with HTML": (sends(answer(b"<html>maintenance</html>")), "not_json"),
    "429": (sends(answer(b"", status="429 Too Many Requests")), "http_429"),
    "401": (sends(answer(b"{}", status="401 Unauthorized")), "http_401"),
    "empty": (sends(answer(b"")), "not_json"),
    "truncated JSON": (sends(answer(b'{"status":"VALID","tran_id":"')), "not_json"),
    "JSON with bytes that are no UTF-8": (sends(answer(b'{"status":"\xff"}')), "not_json"),
    "JSON with a NUL": (sends(answer(b'{"status":"VALID","a":"\\u0000"}')), "not_text"),
    "a list": (sends(answer(b"[]")), "not_an_object"),
    "a string": (sends(answer(b'"VALID"')), "not_an_object"),
    "null": (sends(answer(b"null")), "not_an_object"),
    "very deep JSON": (sends(answer(b"[" * 100_000)), "not_json"),
    "a redirect": (
        sends(answer(b"", status="302 Found", headers="Location: /elsewhere\r\n")),
        "http_302",
    ),
    "a huge body": (sends_and_closes(answer(b" " * (ANSWER_BYTES_MAX + 1))), "answer_too_large"),
    "not HTTP": (sends_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n"), "not_http"),
}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


def gateway_at(base_url: str) -> tuple[SslcommerzGateway, HttpClient]:
    client = HttpClient(base_url, total_timeout_seconds=TIMEOUT_SECONDS)
    gateway = SslcommerzGateway(
        client, base_url=base_url, store_id=STORE_ID, password=PASSWORD, public_url=PUBLIC_URL
    )
    return gateway, client


@pytest.fixture
async def gateway(server: ScriptedServer) -> AsyncIterator[SslcommerzGateway]:
    """Call the scripted server; whatever is said or logged meanwhile holds no secret."""
    gateway, client = gateway_at(server.url)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    client.close()
    assert_no_secret(lines)


def assert_no_secret(shown: object) -> None:
    text = repr(shown)
    assert "secret" not in text
    assert STORE_ID not in text


async def confirm(gateway: SslcommerzGateway) -> Outcome:
    verdict = await gateway.confirm(REFERENCE, VALIDATION_ID)
    assert_no_secret(verdict)
    return verdict


async def look_up(gateway: SslcommerzGateway) -> Outcome:
    verdict = await gateway.look_up(ORDER)
    assert_no_secret(verdict)
    return verdict


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_a_validation_that_says_nothing_is_unknown(
    server: ScriptedServer, gateway: SslcommerzGateway, script: Script, reason: str
) -> None:
    server.then(script)

    verdict = await confirm(gateway)

    assert isinstance(verdict, Unknown)
    assert verdict.reason in reason.split("|")
    assert len(server.requests) == 1


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_a_query_that_says_nothing_is_unknown(
    server: ScriptedServer, gateway: SslcommerzGateway, script: Script, reason: str
) -> None:
    server.then(script)

    verdict = await look_up(gateway)

    assert isinstance(verdict, Unknown)
    assert verdict.reason in reason.split("|")


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_a_session_that_says_nothing_is_unknown_and_asked_for_once(
    server: ScriptedServer, gateway: SslcommerzGateway, script: Script, reason: str
) -> None:
    server.then(script)

    opened = await gateway.start(ORDER)

    assert isinstance(opened, Unknown)
    assert opened.reason in reason.split("|")
    assert len(server.requests) == 1


async def test_a_gateway_that_cannot_be_reached_is_unknown() -> None:
    gateway, client = gateway_at("http://127.0.0.1:1")

    assert await confirm(gateway) == Unknown("connect_failed")
    assert await look_up(gateway) == Unknown("connect_failed")
    assert await gateway.start(ORDER) == Unknown("connect_failed")
    client.close()


async def test_a_validation_asks_by_the_gateways_handle_with_our_credentials(
    server: ScriptedServer, gateway: SslcommerzGateway
) -> None:
    server.then(reply(VALIDATION))

    await gateway.confirm(REFERENCE, "a&b=c /")

    method, target, _ = server.requests[0].split(b"\r\n")[0].decode().split(" ")
    assert method == "GET"
    assert urlsplit(target).path == "/validator/api/validationserverAPI.php"
    assert dict(parse_qsl(urlsplit(target).query, strict_parsing=True)) == {
        "val_id": "a&b=c /",
        "store_id": STORE_ID,
        "store_passwd": PASSWORD,
        "v": "1",
        "format": "json",
    }


VALIDATIONS: dict[str, tuple[dict[str, Any], Outcome]] = {
    "VALID": ({}, PAID),
    "VALIDATED, asked again": ({"status": "VALIDATED"}, PAID),
    "amount as a number": ({"amount": 1150}, PAID),
    "another amount": (
        {"amount": "1149.99"},
        replace(PAID, amount=Money(114_999, "BDT"), fee=Money(2_874, "BDT")),
    ),
    "another currency": (IN_USD, replace(PAID, amount=Money(1_000, "USD"), fee=None)),
    "a share above the amount": ({"store_amount": "1150.01"}, replace(PAID, fee=None)),
    "risk level 1": (
        {"risk_level": "1"},
        replace(PAID, is_risky=True),
    ),
    "risk level as a number": ({"risk_level": 0}, PAID),
    "no word on risk": (
        {"risk_level": None},
        replace(PAID, is_risky=True),
    ),
    "another reference": ({"tran_id": "att_other"}, Unknown("reference_differs")),
    "no reference": ({"tran_id": None}, Unknown("reference_differs")),
    "another validation id": ({"val_id": "other"}, Unknown("validation_id_differs")),
    "credentials refused": ({"APIConnect": "FAILED"}, Unknown("validation_refused")),
    "an inactive store": ({"APIConnect": "INACTIVE"}, Unknown("validation_refused")),
    "INVALID_TRANSACTION": ({"status": "INVALID_TRANSACTION"}, Unknown("invalid_transaction")),
    "PENDING": ({"status": "PENDING"}, Pending("gateway_pending")),
    "FAILED": ({"status": "FAILED", "error": "Declined by issuer"}, Declined("Declined by issuer")),
    "FAILED without a word": ({"status": "FAILED"}, Declined("FAILED")),
    "FAILED, of another": (
        {"status": "FAILED", "tran_id": "att_other"},
        Unknown("reference_differs"),
    ),
    "a new status": ({"status": "REFUNDED"}, Unknown("unknown_status")),
    "no status": ({"status": None}, Unknown("unknown_status")),
    "a list as status": ({"status": ["VALID"]}, Unknown("unknown_status")),
    "an object as status": ({"status": {"VALID": 1}}, Unknown("unknown_status")),
    "an amount in words": ({"amount": "much"}, Unknown("unreadable_amount")),
    "an amount with an exponent": ({"amount": "1.15e3"}, Unknown("unreadable_amount")),
    "a third of a paisa": ({"amount": "1150.003"}, Unknown("unreadable_amount")),
    "a huge amount": ({"amount": "9" * 400}, Unknown("unreadable_amount")),
    "no amount": ({"amount": None}, Unknown("unreadable_amount")),
    "an unknown currency": ({"currency_type": "XXX"}, Unknown("unreadable_amount")),
}


@pytest.mark.parametrize(("changes", "expected"), VALIDATIONS.values(), ids=VALIDATIONS)
async def test_a_validation_becomes_its_verdict(
    server: ScriptedServer,
    gateway: SslcommerzGateway,
    changes: dict[str, Any],
    expected: Outcome,
) -> None:
    server.then(reply(VALIDATION | changes))

    assert await confirm(gateway) == expected


QUERIES: dict[str, tuple[object, Outcome]] = {
    "nothing attempted": (query(), Pending("not_attempted")),
    "no elements at all": ({"APIConnect": "DONE"}, Pending("not_attempted")),
    "null for elements": (query(element=None), Pending("not_attempted")),
    "a failed try": (query(FAILED_ELEMENT), Declined("Insufficient balance")),
    "one object instead of a list": (
        query(element=FAILED_ELEMENT, no_of_trans_found="1"),
        Declined("Insufficient balance"),
    ),
    "several failed tries": (
        query(FAILED_ELEMENT, FAILED_ELEMENT | {"error": "Wrong OTP"}),
        Declined("Wrong OTP"),
    ),
    "cancelled": (
        query({"status": "CANCELLED", "error": "Cancelled by User"}),
        Declined("Cancelled by User", FailureKind.CANCELLED),
    ),
    "failed, then cancelled": (
        query(FAILED_ELEMENT, {"status": "CANCELLED"}),
        Declined("CANCELLED"),
    ),
    "expired": (query({"status": "EXPIRED"}), Declined("EXPIRED", FailureKind.EXPIRED)),
    "never attempted": (
        query({"status": "UNATTEMPTED"}),
        Declined("UNATTEMPTED", FailureKind.EXPIRED),
    ),
    "pending": (query({"status": "PENDING"}), Pending("gateway_pending")),
    "failed, and one pending": (
        query(FAILED_ELEMENT, {"status": "PENDING"}),
        Pending("gateway_pending"),
    ),
    "a new status": (query({"status": "REFUNDED"}), Unknown("unknown_status")),
    "a list as status": (query({"status": ["FAILED"]}), Unknown("unknown_status")),
    "paid without a handle": (query({"status": "VALID", "val_id": ""}), Unknown("unknown_status")),
    "of another reference": (
        query(FAILED_ELEMENT | {"tran_id": "att_other"}),
        Unknown("reference_differs"),
    ),
    "credentials refused": (query(APIConnect="FAILED"), Unknown("query_refused")),
    "no word on credentials": ({"element": []}, Unknown("query_refused")),
    "text for elements": (query(element="none"), Unknown("unreadable_elements")),
    "a number for elements": (query(element=7), Unknown("unreadable_elements")),
    "numbers for elements": (query(element=[1, 2]), Unknown("unreadable_elements")),
}


@pytest.mark.parametrize(("fields", "expected"), QUERIES.values(), ids=QUERIES)
async def test_a_query_becomes_its_verdict(
    server: ScriptedServer, gateway: SslcommerzGateway, fields: object, expected: Outcome
) -> None:
    server.then(reply(fields))

    assert await look_up(gateway) == expected
    assert len(server.requests) == 1


@pytest.mark.parametrize("elements", [[PAID_ELEMENT], [FAILED_ELEMENT, PAID_ELEMENT]])
async def test_a_successful_element_is_believed_only_after_its_validation(
    server: ScriptedServer, gateway: SslcommerzGateway, elements: list[dict[str, Any]]
) -> None:
    server.then(reply(query(*elements)), reply(VALIDATION))

    assert await look_up(gateway) == PAID
    assert VALIDATION_ID.encode() in server.requests[1].split(b"\r\n")[0]


async def test_a_successful_element_whose_validation_fails_is_unknown(
    server: ScriptedServer, gateway: SslcommerzGateway
) -> None:
    server.then(reply(query(PAID_ELEMENT)), answer(b"", status="503 Service Unavailable"))

    assert await look_up(gateway) == Unknown("http_503")


async def test_two_successful_elements_are_a_double_charge(
    server: ScriptedServer, gateway: SslcommerzGateway
) -> None:
    server.then(reply(query(PAID_ELEMENT, PAID_ELEMENT | {"val_id": "val_2"})), reply(VALIDATION))

    verdict = await look_up(gateway)

    assert isinstance(verdict, Paid)
    assert verdict.is_repeated


async def test_the_same_successful_element_twice_is_one_charge(
    server: ScriptedServer, gateway: SslcommerzGateway
) -> None:
    server.then(reply(query(PAID_ELEMENT, PAID_ELEMENT)), reply(VALIDATION))

    assert await look_up(gateway) == PAID


SESSION = {"status": "SUCCESS", "failedreason": "", "sessionkey": "0A1B2C"}

PAGES = [
    "https://sandbox.sslcommerz.com/EasyCheckOut/test",
    "https://securepay.sslcommerz.com/gwprocess/v4/gw.php?Q=PAY",
    f"{PUBLIC_URL}/EasyCheckOut/1",
]


@pytest.mark.parametrize("page", PAGES)
async def test_a_session_opens_a_page_at_a_known_host(
    server: ScriptedServer, gateway: SslcommerzGateway, page: str
) -> None:
    server.then(reply(SESSION | {"GatewayPageURL": page}))

    assert await gateway.start(ORDER) == ActionRequired("customer_must_pay", page, handle="0A1B2C")


@pytest.mark.parametrize(
    "page",
    [
        "https://sslcommerz.com.evil.example/EasyCheckOut/1",
        "https://sandbox.sslcommerz.com@evil.example/",
        "http://sandbox.sslcommerz.com/EasyCheckOut/1",
        "javascript://sandbox.sslcommerz.com/%0aalert(1)",
        "//sandbox.sslcommerz.com/EasyCheckOut/1",
        "/EasyCheckOut/1",
        "https://[sandbox.sslcommerz.com/",
    ],
)
async def test_a_page_anywhere_else_is_never_shown_to_a_customer(
    server: ScriptedServer, gateway: SslcommerzGateway, page: str
) -> None:
    server.then(reply(SESSION | {"GatewayPageURL": page}))

    assert await gateway.start(ORDER) == Unknown("checkout_on_foreign_host")


@pytest.mark.parametrize(
    "changes",
    [{"GatewayPageURL": ""}, {}, {"GatewayPageURL": ["x"]}, {"status": "MAYBE"}, {"status": {}}],
    ids=str,
)
async def test_a_session_without_a_page_is_unknown(
    server: ScriptedServer, gateway: SslcommerzGateway, changes: dict[str, Any]
) -> None:
    server.then(reply(SESSION | changes))

    assert await gateway.start(ORDER) == Unknown("answer_says_nothing")


async def test_a_refused_session_gives_the_gateways_reason(
    server: ScriptedServer, gateway: SslcommerzGateway
) -> None:
    refused = {"status": "FAILED", "failedreason": "Store is De-active", "GatewayPageURL": ""}
    server.then(reply(refused), reply({"status": "FAILED"}))

    for reason in ("Store is De-active", "no reason given"):
        outcome = await gateway.start(ORDER)
        assert outcome == Declined(reason, FailureKind.CONFIGURATION, is_final=True)


async def test_a_session_is_asked_for_with_every_mandatory_field_within_its_length(
    server: ScriptedServer, gateway: SslcommerzGateway
) -> None:
    server.then(reply(SESSION | {"GatewayPageURL": PAGES[0]}))

    await gateway.start(ORDER)

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    form = dict(parse_qsl(body.decode(), strict_parsing=True))
    assert b"\r\nContent-Type: application/x-www-form-urlencoded" in head
    assert form["tran_id"] == REFERENCE
    assert (form["total_amount"], form["currency"]) == ("1150.00", "BDT")
    assert form["ipn_url"] == f"{PUBLIC_URL}/webhooks/sslcommerz"
    assert form["success_url"] == f"{PUBLIC_URL}/return/sslcommerz/success"
    assert form["store_passwd"] == PASSWORD
    assert len(form["cus_name"]) == 50
    assert form.keys() >= {
        *("store_id", "product_category", "fail_url", "cancel_url", "cus_email", "cus_add1"),
        *("cus_city", "cus_postcode", "cus_country", "cus_phone", "shipping_method"),
        *("product_name", "product_profile"),
    }


@pytest.mark.parametrize(
    ("amount", "is_taken"),
    [
        (Money(1_000, "BDT"), True),
        (Money(50_000_000, "BDT"), True),
        (Money(999, "BDT"), False),
        (Money(50_000_001, "BDT"), False),
        (Money(1_000, "USD"), True),
        (Money(5_000, "XAF"), False),
    ],
    ids=str,
)
def test_an_amount_outside_the_gateways_limits_is_refused_before_it_is_asked(
    amount: Money,
    is_taken: bool,  # noqa: FBT001 - a parameter of the table above
) -> None:
    gateway, _ = gateway_at("http://127.0.0.1:1")

    assert (gateway.refusal(replace(ORDER, amount=amount)) is None) is is_taken


@pytest.mark.parametrize("method", [Prompt("8801700000000"), Card("pm_1")], ids=str)
def test_a_method_that_is_not_a_page_is_refused_before_it_is_asked(method: Method) -> None:
    gateway, _ = gateway_at("http://127.0.0.1:1")

    refusal = gateway.refusal(replace(ORDER, method=method))

    assert refusal is not None
    assert refusal.field == "method.type"


NO_HEADERS: Mapping[str, str] = {}


class CannedClient(HttpClient):
    """Gives one answer to every call, without a network."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        self._canned = HttpAnswer(200, body)

    async def get(self, target: str, headers: Mapping[str, str] = NO_HEADERS) -> HttpAnswer:
        return self._canned

    async def post(self, target: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        return self._canned


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
statuses = st.sampled_from(["VALID", "VALIDATED", "FAILED", "PENDING", "SUCCESS", "CANCELLED"])
answers = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(VALIDATION, values)
    | {"element": values | st.lists(st.dictionaries(st.sampled_from(["status", "val_id"]), values))}
    | {"GatewayPageURL": values, "failedreason": values, "APIConnect": st.just("DONE") | values}
    | {"status": statuses | values},
)


@given(answers)
def test_arbitrary_json_becomes_a_verdict_and_never_an_exception(fields: dict[str, Any]) -> None:
    gateway = SslcommerzGateway(
        CannedClient(orjson.dumps(fields)),
        base_url="http://127.0.0.1:1",
        store_id=STORE_ID,
        password=PASSWORD,
        public_url=PUBLIC_URL,
    )

    for verdict in (run_blocking(confirm(gateway)), run_blocking(look_up(gateway))):
        assert isinstance(verdict, (Paid, Declined, Pending, Unknown))
        assert not isinstance(verdict, Paid) or fields["tran_id"] == REFERENCE
    run_blocking(gateway.start(ORDER))
