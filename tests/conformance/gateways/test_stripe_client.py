"""Whatever Stripe answers, or does not, becomes the right outcome: never an exception, never a
second charge, never a false failure.

The other side is a script of raw bytes, so that it can misbehave as no HTTP server would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
import structlog

from shared.gateways.interface import (
    ActionRequired,
    Card,
    Declined,
    DisputeOutcome,
    FailureKind,
    Outcome,
    Paid,
    Pending,
    RefundOutcome,
    Unknown,
)
from shared.gateways.stripe.client import StripeGateway
from shared.gateways.stripe.transport import ANSWER_BYTES_MAX
from shared.money import Money
from tests.support.clocks import START, ManualClock
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
from tests.support.stripe_answers import (
    ADDRESS,
    DISPUTE,
    INTENT,
    OFF_SESSION,
    PUBLIC_URL,
    REFERENCE,
    REFUND,
    SECRET_KEY,
    card_error,
    error,
    gateway_at,
    intent,
    needs_action,
    order_of,
    refund_order_of,
    reply,
)

PAID = Paid(REFERENCE, Money(1_999, "USD"), INTENT, INTENT)
ORDER = order_of()
KNOWN = order_of(handle=INTENT)

SERVER_ERROR = reply(error("api_error"), "500 Internal Server Error")

#: How a call can fail without saying anything about the payment.
SILENCES: dict[str, tuple[Script, str]] = {
    "closed without an answer": (sends_and_closes(b""), "connection_reset"),
    "reset in mid-body": (
        sends_and_resets(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"object":"payment_i'),
        "answer_cut_short|connection_reset",  # A reset may overtake what was sent before it.
    ),
    "closed in mid-body": (
        sends_and_closes(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"object":"payment_i'),
        "answer_cut_short",
    ),
    "never answered": (says_nothing, "timeout"),
    "500": (sends(SERVER_ERROR), "http_500"),
    "500 without a word": (sends(answer(b"", status="500 Internal Server Error")), "http_500"),
    "502 with HTML": (
        sends(answer(b"<html><h1>Bad Gateway</h1></html>", status="502 Bad Gateway")),
        "http_502",
    ),
    "503 with a list": (sends(reply([1], "503 Service Unavailable")), "http_503"),
    "200 with HTML": (sends(answer(b"<html>maintenance</html>")), "not_json"),
    "429 of a proxy": (sends(answer(b"", status="429 Too Many Requests")), "http_429"),
    "429 without a code": (sends(reply(error("api_error"), "429 Slow")), "http_429"),
    "429 lock_timeout": (
        sends(reply(error("invalid_request_error", code="lock_timeout"), "429 Busy")),
        "lock_timeout",
    ),
    "409 in use": (
        sends(reply(error("idempotency_error", code="idempotency_key_in_use"), "409 Conflict")),
        "idempotency_key_in_use",
    ),
    "409 without a code": (sends(reply(error("idempotency_error"), "409 Conflict")), "http_409"),
    "402 that is no card's": (sends(reply(error("api_error"), "402 Payment")), "http_402"),
    "400 of a proxy": (sends(answer(b"<html/>", status="400 Bad Request")), "http_400"),
    "401 of a proxy": (sends(answer(b"no", status="401 Unauthorized")), "http_401"),
    "418": (sends(reply(error("new_error"), "418 Teapot")), "http_418"),
    "an error that is a text": (sends(reply({"error": "invalid"}, "400 Bad")), "http_400"),
    "an error that is null": (sends(reply({"error": None}, "402 Payment")), "http_402"),
    "an error that is a list": (sends(reply({"error": [1]}, "402 Payment")), "http_402"),
    "empty": (sends(answer(b"")), "not_json"),
    "truncated JSON": (sends(answer(b'{"object":"payment_intent","id":"pi_')), "not_json"),
    "JSON with bytes that are no UTF-8": (sends(answer(b'{"id":"\xff"}')), "not_json"),
    "JSON with a NUL": (sends(answer(b'{"id":"\\u0000"}')), "not_text"),
    "a list": (sends(answer(b"[]")), "not_an_object"),
    "a string": (sends(answer(b'"succeeded"')), "not_an_object"),
    "null": (sends(answer(b"null")), "not_an_object"),
    "very deep JSON": (sends(answer(b"[" * 100_000)), "not_json"),
    "an empty object": (sends(answer(b"{}")), "unreadable_answer|unreadable_list"),
    "an object that the library cannot read": (
        sends(reply({"object": "price", "unit_amount_decimal": "much"})),
        "unreadable_answer",
    ),
    "an object deeper than the library goes": (
        sends(answer(b'{"a":' * 1_000 + b"1" + b"}" * 1_000)),
        "unreadable_answer",
    ),
    "a redirect": (
        sends(answer(b"", status="302 Found", headers="Location: /elsewhere\r\n")),
        "http_302",
    ),
    "a redirect that keeps the method": (
        sends(answer(b"{}", status="307 Moved", headers="Location: /elsewhere\r\n")),
        "http_307",
    ),
    "a huge body": (sends_and_closes(answer(b" " * (ANSWER_BYTES_MAX + 1))), "answer_too_large"),
    "not HTTP": (sends_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n"), "not_http"),
}

Answer = Outcome | RefundOutcome | DisputeOutcome

CALLS: dict[str, Callable[[StripeGateway], Awaitable[Answer]]] = {
    "start": lambda gateway: gateway.start(ORDER),
    "look_up": lambda gateway: gateway.look_up(KNOWN),
    "confirm": lambda gateway: gateway.confirm(REFERENCE, INTENT),
    "cancel": lambda gateway: gateway.cancel(KNOWN),
    "look_up_refund": lambda gateway: gateway.look_up_refund(refund_order_of(handle=REFUND)),
    "look_up_dispute": lambda gateway: gateway.look_up_dispute(DISPUTE),
}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + timedelta(minutes=1))


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[StripeGateway]:
    """Call the scripted server; whatever is logged meanwhile holds no secret."""
    gateway = gateway_at(f"{server.url}/stripe", clock)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert "secret" not in repr(lines)


def sent(server: ScriptedServer, number: int = 0) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the request line, headers and form of a request."""
    head, _, body = server.requests[number].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    fields = dict(header.split(": ", 1) for header in headers)
    form = parse_qsl(body.decode(), strict_parsing=bool(body), keep_blank_values=True)
    return line, {name.lower(): value for name, value in fields.items()}, dict(form)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_what_says_nothing_is_unknown_and_asked_once(
    server: ScriptedServer,
    gateway: StripeGateway,
    call: Callable[[StripeGateway], Awaitable[Outcome]],
    script: Script,
    reason: str,
) -> None:
    server.then(script, script)

    outcome = await call(gateway)

    assert isinstance(outcome, Unknown)
    assert outcome.reason in reason.split("|")
    is_read_again = server.requests[0].startswith(b"GET ") and outcome.reason == "connection_reset"
    assert len(server.requests) <= 1 + is_read_again


async def test_a_gateway_that_cannot_be_reached_is_unknown() -> None:
    gateway = gateway_at("http://127.0.0.1:1")

    for call in CALLS.values():
        assert await call(gateway) == Unknown("connect_failed")
    assert await gateway.refund(refund_order_of()) == Unknown("connect_failed")
    await gateway.close()


async def test_a_charge_is_the_documented_call_and_tells_nothing_about_the_customer(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(intent()))

    assert await gateway.start(ORDER) == PAID

    line, headers, form = sent(server)
    assert line == "POST /stripe/v1/payment_intents HTTP/1.1"
    assert headers["authorization"] == f"Bearer {SECRET_KEY}"
    assert headers["idempotency-key"] == REFERENCE
    assert headers["stripe-version"] == "2026-10-28.endive"
    assert form == {
        "amount": "1999",
        "currency": "usd",
        "confirm": "true",
        "customer": "cus_1",
        "metadata[reference]": REFERENCE,
        "payment_method": "pm_card_visa",
        "return_url": f"{PUBLIC_URL}/return/stripe/{REFERENCE}/back",
    }


async def test_only_the_headers_of_the_protocol_are_sent(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(intent()), reply(intent()))
    await gateway.start(ORDER)
    await gateway.start(ORDER)

    for number in (0, 1):  # The library adds the times of the first request to the second.
        assert sent(server, number)[1].keys() == {
            *("host", "authorization", "idempotency-key", "stripe-version", "content-type"),
            *("content-length", "user-agent", "accept", "accept-encoding"),
        }
    assert server.connections == 1


async def test_without_the_customer_the_card_is_charged_off_session(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(intent()))

    assert await gateway.start(order_of(method=OFF_SESSION)) == PAID
    form = sent(server)[2]
    assert (form["off_session"], form["confirm"]) == ("true", "true")


@pytest.mark.parametrize(
    ("amount", "wire"),
    [
        (Money(500, "JPY"), ("500", "jpy")),
        (Money(5_000, "XAF"), ("5000", "xaf")),
        (Money(1_230, "KWD"), ("1230", "kwd")),
        (Money(115_000, "BDT"), ("115000", "bdt")),
    ],
    ids=str,
)
async def test_amounts_are_minor_units_of_the_currency(
    server: ScriptedServer, gateway: StripeGateway, amount: Money, wire: tuple[str, str]
) -> None:
    server.then(reply(intent(amount_received=amount.minor_units, currency=wire[1])))

    assert await gateway.start(order_of(amount=amount)) == replace(PAID, amount=amount)
    form = sent(server)[2]
    assert (form["amount"], form["currency"]) == wire


async def test_the_same_order_is_always_the_same_call(
    server: ScriptedServer, gateway: StripeGateway, clock: ManualClock
) -> None:
    server.then(SERVER_ERROR, reply(intent()))
    await gateway.start(ORDER)
    clock.advance(3_600)
    await gateway.look_up(ORDER)

    assert sent(server, 0) == sent(server, 1)


AUTHENTICATION_ERROR = {"type": "card_error", "code": "payment_intent_authentication_failure"}

INTENTS: dict[str, tuple[dict[str, Any], Outcome]] = {
    "succeeded": (intent(), PAID),
    "succeeded, under review": (intent(review="prv_1"), replace(PAID, is_risky=True)),
    "another amount": (
        intent(amount_received=1_998),
        replace(PAID, amount=Money(1_998, "USD")),
    ),
    "another currency": (intent(currency="eur"), replace(PAID, amount=Money(1_999, "EUR"))),
    "a currency not known": (intent(currency="isk"), Unknown("unreadable_amount")),
    "a currency in capitals": (intent(currency="USD"), Unknown("unreadable_amount")),
    "no currency": (intent(currency=None), Unknown("unreadable_amount")),
    "no amount": (intent(amount_received=None), Unknown("unreadable_amount")),
    "nothing received": (intent(amount_received=0), Unknown("unreadable_amount")),
    "an amount in words": (intent(amount_received="1999"), Unknown("unreadable_amount")),
    "a fraction": (intent(amount_received=19.99), Unknown("unreadable_amount")),
    "true for an amount": (intent(amount_received=True), Unknown("unreadable_amount")),
    "a negative amount": (intent(amount_received=-1_999), Unknown("unreadable_amount")),
    "a huge amount": (intent(amount_received=2**60), Unknown("unreadable_amount")),
    "another reference": (
        intent(metadata={"reference": "att_other"}),
        Unknown("reference_differs"),
    ),
    "no reference": (intent(metadata={}), Unknown("reference_differs")),
    "metadata of another shape": (intent(metadata=[REFERENCE]), Unknown("reference_differs")),
    "of live mode": (intent(livemode=True), Unknown("livemode_differs")),
    "of no mode": (intent(livemode=None), Unknown("livemode_differs")),
    "another object": (intent(object="charge"), Unknown("unreadable_answer")),
    "no id": (intent(id=None), Unknown("unreadable_answer")),
    "an id that is a path": (intent(id="pi_1/../x"), Unknown("unreadable_answer")),
    "processing": (intent("processing"), Pending("processing", INTENT)),
    "unconfirmed": (intent("requires_confirmation"), Pending("requires_confirmation", INTENT)),
    "uncaptured": (intent("requires_capture"), Pending("requires_capture", INTENT)),
    "without a try": (
        intent("requires_payment_method"),
        Pending("requires_payment_method", INTENT),
    ),
    "authentication failed": (
        intent("requires_payment_method", last_payment_error=AUTHENTICATION_ERROR),
        Declined(
            "payment_intent_authentication_failure",
            FailureKind.AUTHENTICATION_FAILED,
            is_final=True,
            handle=INTENT,
        ),
    ),
    "cancelled by us": (
        intent("canceled"),
        Declined("canceled", FailureKind.CANCELLED, is_final=True, handle=INTENT),
    ),
    "cancelled by Stripe": (
        intent("canceled", cancellation_reason="automatic"),
        Declined("canceled_automatic", FailureKind.EXPIRED, is_final=True, handle=INTENT),
    ),
    "cancelled as fraud, which is not told": (
        intent("canceled", cancellation_reason="fraudulent"),
        Declined("canceled", FailureKind.CARD_DECLINED, is_final=True, handle=INTENT),
    ),
    "a new status": (intent("requires_blessing"), Unknown("unknown_status")),
    "no status": (intent(status=None), Unknown("unknown_status")),
    "a list as status": (intent(status=["succeeded"]), Unknown("unknown_status")),
    "to be authenticated": (needs_action(), ActionRequired("requires_action", ADDRESS, INTENT)),
    "to be authenticated here": (
        needs_action(f"{PUBLIC_URL}/3ds"),
        ActionRequired("requires_action", f"{PUBLIC_URL}/3ds", INTENT),
    ),
    "to be done by a script": (intent("requires_action"), Pending("requires_action", INTENT)),
    "to be authenticated in the open": (
        needs_action("http://hooks.stripe.com/1"),
        Unknown("action_on_foreign_host"),
    ),
    "to run a script": (needs_action("javascript:alert(1)"), Unknown("action_on_foreign_host")),
    "to be authenticated elsewhere": (
        needs_action("https://stripe.com.evil.example/1"),
        Unknown("action_on_foreign_host"),
    ),
    "to go nowhere": (needs_action("https:///x"), Unknown("action_on_foreign_host")),
    "to go somewhere hidden": (
        needs_action("https://hooks.stripe.com@evil.example/"),
        Unknown("action_on_foreign_host"),
    ),
    "to split a header": (needs_action("https://x/\r\nSet-"), Unknown("action_on_foreign_host")),
    "no address": (needs_action("https://[x"), Unknown("action_on_foreign_host")),
    "a number for an address": (needs_action(7), Unknown("action_on_foreign_host")),
}


@pytest.mark.parametrize("call", [CALLS["start"], CALLS["look_up"], CALLS["confirm"]])
@pytest.mark.parametrize(("answered", "expected"), INTENTS.values(), ids=INTENTS)
async def test_an_intent_becomes_its_outcome(
    server: ScriptedServer,
    gateway: StripeGateway,
    call: Callable[[StripeGateway], Awaitable[Outcome]],
    answered: dict[str, Any],
    expected: Outcome,
) -> None:
    server.then(reply(answered))

    assert await call(gateway) == expected


async def test_an_address_of_the_simulator_may_be_plain_http(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    page = f"{server.url}/stripe/authenticate/1"
    server.then(reply(needs_action(page)))

    assert await gateway.start(ORDER) == ActionRequired("requires_action", page, INTENT)


def declined(reason: str, kind: FailureKind, handle: str | None = INTENT) -> Declined:
    return Declined(reason, kind, is_final=True, handle=handle)


#: Status, body, and what `start` makes of it.
REFUSALS: dict[str, tuple[str, object, Outcome]] = {
    "insufficient funds": (
        "402 Payment Required",
        card_error("insufficient_funds", advice_code="try_again_later"),
        declined("insufficient_funds", FailureKind.INSUFFICIENT_FUNDS),
    ),
    "authentication required": (
        "402 Payment Required",
        error(code="authentication_required", payment_intent=intent("requires_payment_method")),
        declined("authentication_required", FailureKind.AUTHENTICATION_FAILED),
    ),
    "a stolen card, which is not told": (
        "402 Payment Required",
        card_error("stolen_card"),
        declined("generic_decline", FailureKind.CARD_DECLINED),
    ),
    "declined before there was an intent": (
        "402 Payment Required",
        error(code="expired_card"),
        declined("expired_card", FailureKind.AUTHENTICATION_FAILED, None),
    ),
    "with the intent in part": (
        "402 Payment Required",
        error(
            decline_code="call_issuer", payment_intent={"id": INTENT, "object": "payment_intent"}
        ),
        declined("call_issuer", FailureKind.UNKNOWN_CODE),
    ),
    "declined, though it succeeded": (
        "402 Payment Required",
        card_error("generic_decline", "succeeded"),
        Unknown("contradictory_answer"),
    ),
    "declined, of another": (
        "402 Payment Required",
        error(payment_intent=intent("requires_payment_method", metadata={"reference": "other"})),
        Unknown("reference_differs"),
    ),
    "declined, of live mode": (
        "402 Payment Required",
        error(payment_intent=intent("requires_payment_method", livemode=True)),
        Unknown("livemode_differs"),
    ),
    "a wrong parameter": (
        "400 Bad Request",
        error("invalid_request_error", code="amount_too_small", param="amount"),
        declined("amount_too_small", FailureKind.CONFIGURATION, None),
    ),
    "a wrong parameter without a code": (
        "400 Bad Request",
        error("invalid_request_error", param="metadata[x]"),
        declined("refused_metadata[x]", FailureKind.CONFIGURATION, None),
    ),
    "an unknown payment method": (
        "404 Not Found",
        error("invalid_request_error", code="resource_missing", param="payment_method"),
        declined("resource_missing", FailureKind.CONFIGURATION, None),
    ),
    "a wrong key": (
        "401 Unauthorized",
        error("invalid_request_error"),
        declined("http_401", FailureKind.CONFIGURATION, None),
    ),
    "a key without the permission": (
        "403 Forbidden",
        error("invalid_request_error", code="more_permissions_required"),
        declined("http_403", FailureKind.CONFIGURATION, None),
    ),
    "over the rate": (
        "429 Too Many Requests",
        error("invalid_request_error", code="rate_limit"),
        declined("rate_limited", FailureKind.RATE_LIMIT_EXCEEDED, None),
    ),
    "over the rate, as of old": (
        "400 Bad Request",
        error("invalid_request_error", code="rate_limit"),
        declined("rate_limited", FailureKind.RATE_LIMIT_EXCEEDED, None),
    ),
    "our key for another call": (
        "400 Bad Request",
        error("idempotency_error"),
        Unknown("idempotency_key_reused"),
    ),
}


@pytest.mark.parametrize(("status", "body", "expected"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refused_first_call_becomes_its_outcome(
    server: ScriptedServer, gateway: StripeGateway, status: str, body: object, expected: Outcome
) -> None:
    # A hint to the library to try again; it shall not.
    server.then(reply(body, status, "Stripe-Should-Retry: true\r\n"))

    assert await gateway.start(ORDER) == expected
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("Retry-After: 7\r\n", 7.0), ("Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", None)],
    ids=["in seconds", "a date"],
)
async def test_what_the_gateway_asks_to_wait_is_told(
    server: ScriptedServer, gateway: StripeGateway, header: str, seconds: float | None
) -> None:
    body = error("invalid_request_error", code="rate_limit")
    server.then(reply(body, "429 Too Many Requests", header))

    outcome = await gateway.start(ORDER)

    assert isinstance(outcome, Declined)
    assert outcome.retry_after_seconds == seconds


async def test_operators_are_told_what_customers_are_not_and_of_our_own_mistakes(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(
        reply(card_error("stolen_card"), "402 Payment Required"),
        reply(error("idempotency_error"), "400 Bad Request"),
        reply(error("invalid_request_error", code="amount_too_small"), "400 Bad Request"),
        reply(error("invalid_request_error"), "401 Unauthorized"),
    )

    with structlog.testing.capture_logs() as lines:
        for _ in range(4):
            await gateway.start(ORDER)

    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("stripe_decline_not_shown", "info"),
        ("stripe_idempotency_key_reused", "error"),
        ("stripe_request_refused", "error"),
        ("stripe_access_refused", "error"),
    ]
    assert lines[0]["code"] == "stolen_card"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"method": OFF_SESSION}, None),
        ({"method": Card("card_1")}, None),
        ({"amount": Money(50, "USD")}, None),
        ({"amount": Money(99_999_999, "USD")}, None),
        ({"amount": Money(1_230, "KWD")}, None),
        ({"amount": Money(1, "XAF")}, None),
        ({"amount": Money(49, "USD")}, "amount"),
        ({"amount": Money(100_000_000, "USD")}, "amount"),
        ({"amount": Money(1_234, "KWD")}, "amount"),
        ({"amount": Money(1_000_000, "USDC")}, "currency"),
        ({"method": Card("tok_visa")}, "method.paymentMethod"),
        ({"method": Card("pm_1&amount=1")}, "method.paymentMethod"),
        ({"method": Card("pm_1", gateway_customer="42")}, "method.gatewayCustomer"),
    ],
    ids=str,
)
def test_what_stripe_cannot_take_is_refused_before_it_is_asked(
    changes: dict[str, Any], field: str | None
) -> None:
    refusal = gateway_at("http://127.0.0.1:1").refusal(order_of(**changes))

    assert (refusal.field if refusal else None) == field
