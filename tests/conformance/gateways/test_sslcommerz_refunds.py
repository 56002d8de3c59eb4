"""Whatever SSLCommerz answers to a refund becomes the right outcome: never a false failure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.http_client import ANSWER_BYTES_MAX, HttpAnswer, HttpClient
from shared.gateways.interface import (
    Refunded,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    RefundPending,
    Unknown,
)
from shared.gateways.sslcommerz.refunds import SslcommerzRefunds
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
CREDENTIALS = urlencode({"store_id": STORE_ID, "store_passwd": PASSWORD})
TIMEOUT_SECONDS = 1.0

BANK_ID = "26010512000001AbCdEfGhIjKl"
HANDLE = "5f1c0de0a1b2c"

ORDER = RefundOrder(
    reference="rfd_01KE70EHG0JY1QREBD77BRA2Z8",
    payment_reference=REFERENCE,
    gateway_payment_id=BANK_ID,
    amount=Money(115_000, "BDT"),
    reason="Course & book, cancelled / 50%",
    started_at=NOW,
)
KNOWN = replace(ORDER, handle=HANDLE)

#: Both answers as documented.
STARTED: dict[str, Any] = {
    "APIConnect": "DONE",
    "bank_tran_id": BANK_ID,
    "trans_id": REFERENCE,
    "refund_ref_id": HANDLE,
    "status": "success",
    "errorReason": "",
}
PROGRESS: dict[str, Any] = {
    "APIConnect": "DONE",
    "bank_tran_id": BANK_ID,
    "tran_id": REFERENCE,
    "refund_ref_id": HANDLE,
    "initiated_on": "2026-01-06 10:00:00",
    "refunded_on": "",
    "status": "processing",
    "errorReason": "",
}


def reply(fields: object) -> bytes:
    return answer(orjson.dumps(fields))


#: How a call can fail without saying anything about the refund.
SILENCES: dict[str, tuple[Script, str]] = {
    "closed without an answer": (sends_and_closes(b""), "connection_reset"),
    "reset in mid-body": (
        sends_and_resets(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"status":"failed"'),
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
    "empty": (sends(answer(b"")), "not_json"),
    "truncated JSON": (sends(answer(b'{"APIConnect":"DONE","status":"failed"')), "not_json"),
    "JSON with a NUL": (sends(answer(b'{"status":"failed","a":"\\u0000"}')), "not_text"),
    "a list": (sends(answer(b"[]")), "not_an_object"),
    "null": (sends(answer(b"null")), "not_an_object"),
    "an empty object": (sends(reply({})), "refund_api_refused"),
    "credentials refused": (
        sends(reply({"APIConnect": "FAILED", "status": "failed"})),
        "refund_api_refused",
    ),
    "parameters refused": (sends(reply({"APIConnect": "INVALID_REQUEST"})), "refund_api_refused"),
    "an inactive store": (sends(reply({"APIConnect": "INACTIVE"})), "refund_api_refused"),
    "a redirect": (
        sends(answer(b"", status="302 Found", headers="Location: /elsewhere\r\n")),
        "http_302",
    ),
    "a huge body": (sends_and_closes(answer(b" " * (ANSWER_BYTES_MAX + 1))), "answer_too_large"),
}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def refunds(server: ScriptedServer) -> AsyncIterator[SslcommerzRefunds]:
    """Call the scripted server; whatever is logged meanwhile holds no secret."""
    client = HttpClient(server.url, total_timeout_seconds=TIMEOUT_SECONDS)
    with structlog.testing.capture_logs() as lines:
        yield SslcommerzRefunds(client, CREDENTIALS)
    client.close()
    assert_no_secret(lines)


def assert_no_secret(shown: object) -> None:
    text = repr(shown)
    assert "secret" not in text
    assert STORE_ID not in text


async def refund(refunds: SslcommerzRefunds, order: RefundOrder = ORDER) -> RefundOutcome:
    outcome = await refunds.refund(order)
    assert_no_secret(outcome)
    return outcome


async def look_up(refunds: SslcommerzRefunds, order: RefundOrder) -> RefundOutcome:
    outcome = await refunds.look_up_refund(order)
    assert_no_secret(outcome)
    return outcome


def asked(server: ScriptedServer, number: int) -> dict[str, str]:
    method, target, _ = server.requests[number].split(b"\r\n")[0].decode().split(" ")
    assert method == "GET"
    assert urlsplit(target).path == "/validator/api/merchantTransIDvalidationAPI.php"
    pairs = parse_qsl(urlsplit(target).query, strict_parsing=True, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


ALWAYS = {"store_id": STORE_ID, "store_passwd": PASSWORD, "v": "1", "format": "json"}
REFUND_QUERY = ALWAYS | {
    "bank_tran_id": BANK_ID,
    "refund_trans_id": "rfd_01KE70EHG0JY1QREBD77BRA2Z8",
    "refund_amount": "1150.00",
    "refund_remarks": "Course & book, cancelled / 50%",
}


async def test_a_refund_names_the_charge_our_reference_and_the_amount(
    server: ScriptedServer, refunds: SslcommerzRefunds
) -> None:
    server.then(reply(STARTED))

    assert await refund(refunds) == RefundPending("accepted", HANDLE)
    assert asked(server, 0) == REFUND_QUERY
    assert len(REFUND_QUERY["refund_trans_id"]) <= 30


async def test_remarks_are_never_empty_and_never_too_long(
    server: ScriptedServer, refunds: SslcommerzRefunds
) -> None:
    server.then(reply(STARTED), reply(STARTED))

    await refund(refunds, replace(ORDER, reason=""))
    await refund(refunds, replace(ORDER, reason="ø" * 300))

    assert asked(server, 0)["refund_remarks"] == "-"
    assert asked(server, 1)["refund_remarks"] == "ø" * 255


async def test_a_refund_without_a_handle_is_looked_up_by_the_same_call_again(
    server: ScriptedServer, refunds: SslcommerzRefunds
) -> None:
    server.then(says_nothing, reply(STARTED | {"status": "processing"}))

    assert await refund(refunds) == Unknown("timeout")
    assert await look_up(refunds, ORDER) == RefundPending("processing", HANDLE)

    assert asked(server, 0) == asked(server, 1) == REFUND_QUERY


async def test_a_refund_with_a_handle_is_asked_for_by_it(
    server: ScriptedServer, refunds: SslcommerzRefunds
) -> None:
    server.then(reply(PROGRESS))

    assert await look_up(refunds, replace(KNOWN, handle="a&b=c /")) == Unknown("refund_differs")
    assert asked(server, 0) == ALWAYS | {"refund_ref_id": "a&b=c /"}


STARTS: dict[str, tuple[dict[str, Any], RefundOutcome]] = {
    "accepted": ({}, RefundPending("accepted", HANDLE)),
    "initiated before": ({"status": "processing"}, RefundPending("processing", HANDLE)),
    "without a handle": ({"refund_ref_id": ""}, RefundPending("accepted")),
    "a handle as a number": ({"refund_ref_id": 12345}, RefundPending("accepted", "12345")),
    "refused": (
        {"status": "failed", "errorReason": "Insufficient balance", "refund_ref_id": ""},
        RefundFailed("Insufficient balance"),
    ),
    "refused without a word": ({"status": "failed"}, RefundFailed("refused")),
    "refused with many words": (
        {"status": "failed", "errorReason": "x" * 500},
        RefundFailed("x" * 200),
    ),
    "names left out": ({"bank_tran_id": None, "trans_id": None}, RefundPending("accepted", HANDLE)),
    "another charge": ({"bank_tran_id": "other"}, Unknown("payment_differs")),
    "another charge, refused": (
        {"bank_tran_id": "other", "status": "failed"},
        Unknown("payment_differs"),
    ),
    "another payment": ({"trans_id": "att_other"}, Unknown("reference_differs")),
    "a new status": ({"status": "refunded"}, Unknown("unknown_refund_status")),
    "no status": ({"status": None}, Unknown("unknown_refund_status")),
    "a list as status": ({"status": ["failed"]}, Unknown("unknown_refund_status")),
}


@pytest.mark.parametrize(("changes", "expected"), STARTS.values(), ids=STARTS)
async def test_the_answer_to_a_refund_becomes_its_outcome(
    server: ScriptedServer,
    refunds: SslcommerzRefunds,
    changes: dict[str, Any],
    expected: RefundOutcome,
) -> None:
    server.then(reply(STARTED | changes))

    assert await refund(refunds) == expected


PROGRESSES: dict[str, tuple[dict[str, Any], RefundOutcome]] = {
    "under way": ({}, RefundPending("processing", HANDLE)),
    "refunded": (
        {"status": "refunded", "refunded_on": "2026-01-08 10:00:00"},
        Refunded(HANDLE),
    ),
    "cancelled": ({"status": "cancelled"}, RefundFailed("cancelled")),
    "cancelled with a reason": (
        {"status": "cancelled", "errorReason": "Account closed"},
        RefundFailed("Account closed"),
    ),
    "another refund": (
        {"refund_ref_id": "other", "status": "cancelled"},
        Unknown("refund_differs"),
    ),
    "no handle": ({"refund_ref_id": None, "status": "refunded"}, Refunded(HANDLE)),
    "a new status": ({"status": "success"}, Unknown("unknown_refund_status")),
    "no status": ({"status": None}, Unknown("unknown_refund_status")),
}


@pytest.mark.parametrize(("changes", "expected"), PROGRESSES.values(), ids=PROGRESSES)
async def test_the_progress_of_a_refund_becomes_its_outcome(
    server: ScriptedServer,
    refunds: SslcommerzRefunds,
    changes: dict[str, Any],
    expected: RefundOutcome,
) -> None:
    server.then(reply(PROGRESS | changes))

    assert await look_up(refunds, KNOWN) == expected


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
@pytest.mark.parametrize("known", [False, True], ids=["by our reference", "by the handle"])
async def test_an_answer_that_says_nothing_is_unknown(
    server: ScriptedServer,
    refunds: SslcommerzRefunds,
    known: bool,  # noqa: FBT001 - a test's parameter
    script: Script,
    reason: str,
) -> None:
    server.then(script, script)

    for outcome in (await look_up(refunds, KNOWN if known else ORDER), await refund(refunds)):
        assert isinstance(outcome, Unknown)
        assert outcome.reason in reason.split("|")
    assert len(server.requests) == 2


async def test_a_refusal_of_a_repetition_does_not_say_that_the_first_call_failed(
    server: ScriptedServer, refunds: SslcommerzRefunds
) -> None:
    """Nothing may be left to refund because the first call refunded it."""
    server.then(reply(STARTED | {"status": "failed", "errorReason": "Nothing left"}))

    assert await look_up(refunds, ORDER) == Unknown("refused_when_repeated: Nothing left")


async def test_only_bdt_is_refunded_because_the_amounts_currency_is_not_documented(
    server: ScriptedServer, refunds: SslcommerzRefunds
) -> None:
    in_usd = replace(ORDER, amount=Money(1_000, "USD"))
    expected = RefundFailed("only_payments_in_bdt_are_refunded")

    assert await refund(refunds, in_usd) == expected
    assert await look_up(refunds, in_usd) == expected
    assert server.requests == []


async def test_a_gateway_that_cannot_be_reached_is_unknown() -> None:
    client = HttpClient("http://127.0.0.1:1", total_timeout_seconds=TIMEOUT_SECONDS)
    refunds = SslcommerzRefunds(client, CREDENTIALS)

    assert await refund(refunds) == Unknown("connect_failed")
    assert await look_up(refunds, KNOWN) == Unknown("connect_failed")


class AnyAnswer(HttpClient):
    """Answers whatever it was given."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        self._body = body

    async def get(self, target: str, headers: Any = None) -> HttpAnswer:
        return HttpAnswer(200, self._body)


TEXTS = st.sampled_from(
    ["success", "processing", "failed", "refunded", "cancelled", "DONE", BANK_ID]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
ANSWERS = st.dictionaries(st.sampled_from(sorted(STARTED)), VALUES)


@given(st.binary(max_size=100) | ANSWERS.map(lambda fields: orjson.dumps(fields, default=str)))
def test_any_answer_becomes_an_outcome_and_failure_only_in_its_own_words(body: bytes) -> None:
    refunds = SslcommerzRefunds(AnyAnswer(body), CREDENTIALS)

    started = run_blocking(refunds.refund(ORDER))
    looked_up = run_blocking(refunds.look_up_refund(KNOWN))

    assert not isinstance(started, RefundFailed) or b'"failed"' in body
    assert not isinstance(looked_up, RefundFailed) or b'"cancelled"' in body
    assert not isinstance(looked_up, Refunded) or b'"refunded"' in body
