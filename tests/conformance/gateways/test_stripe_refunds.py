"""Money is given back once, and a doubt about it is resolved without giving it twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.interface import (
    Refunded,
    RefundFailed,
    RefundOutcome,
    RefundPending,
    Unknown,
)
from shared.gateways.stripe import refunds
from shared.gateways.stripe.client import StripeGateway
from tests.support.clocks import START, ManualClock
from tests.support.scripted_server import (
    Script,
    ScriptedServer,
    answer,
    says_nothing,
    scripted_server,
    sends,
    sends_and_closes,
)
from tests.support.stripe_answers import (
    INTENT,
    REFERENCE,
    REFUND,
    REFUND_REFERENCE,
    error,
    gateway_at,
    listed,
    refund,
    refund_order_of,
    reply,
)

NOW = START + timedelta(minutes=1)
ORDER = refund_order_of()
KNOWN = refund_order_of(handle=REFUND)
OTHER = refund(id="re_other", metadata={"reference": "ref_other"})

SERVER_ERROR = reply(error("api_error"), "500 Internal Server Error")
KEY_REUSED = reply(error("idempotency_error"), "400 Bad Request")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def gateway(server: ScriptedServer) -> AsyncIterator[StripeGateway]:
    gateway = gateway_at(server.url, ManualClock(NOW))
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert "secret" not in repr(lines)


def calls(server: ScriptedServer) -> list[str]:
    """Return method and path of each request."""
    lines = [request.split(b"\r\n")[0].decode().split(" ") for request in server.requests]
    return [f"{method} {urlsplit(target).path.removeprefix('/v1/')}" for method, target, _ in lines]


async def test_a_refund_is_the_documented_call_without_a_word_about_why(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(refund()))

    assert await gateway.refund(ORDER) == Refunded(REFUND)

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert calls(server) == ["POST refunds"]
    assert f"Idempotency-Key: {REFUND_REFERENCE}\r\n".encode() in head
    assert dict(parse_qsl(body.decode(), strict_parsing=True)) == {
        "payment_intent": INTENT,
        "amount": "500",
        "metadata[reference]": REFUND_REFERENCE,
        "metadata[payment_reference]": REFERENCE,
    }


REFUNDS: dict[str, tuple[dict[str, Any], RefundOutcome]] = {
    "succeeded": (refund(), Refunded(REFUND)),
    "pending": (refund("pending"), RefundPending("pending", REFUND)),
    "requires_action": (refund("requires_action"), RefundPending("requires_action", REFUND)),
    "failed": (
        refund("failed", failure_reason="lost_or_stolen_card"),
        RefundFailed("lost_or_stolen_card"),
    ),
    "failed without a word": (refund("failed"), RefundFailed("failed")),
    "canceled": (refund("canceled"), RefundFailed("canceled")),
    "a new status": (refund("halfway"), Unknown("unknown_status")),
    "no status": (refund(None), Unknown("unknown_status")),
    "another amount": (refund(amount=501), Unknown("amount_differs")),
    "no amount": (refund(amount=None), Unknown("amount_differs")),
    "a fraction": (refund(amount=500.0), Unknown("amount_differs")),
    "another currency": (refund(currency="eur"), Unknown("amount_differs")),
    "another reference": (OTHER, Unknown("reference_differs")),
    "no reference": (refund(metadata=None), Unknown("reference_differs")),
    "another payment": (refund(payment_intent="pi_other"), Unknown("payment_differs")),
    "another object": (refund(object="charge"), Unknown("unreadable_answer")),
    "no id": (refund(id=None), Unknown("unreadable_answer")),
}


@pytest.mark.parametrize(("answered", "expected"), REFUNDS.values(), ids=REFUNDS)
async def test_a_refund_becomes_its_outcome(
    server: ScriptedServer,
    gateway: StripeGateway,
    answered: dict[str, Any],
    expected: RefundOutcome,
) -> None:
    server.then(reply(answered), reply(answered))

    assert await gateway.refund(ORDER) == expected
    assert await gateway.look_up_refund(KNOWN) == expected
    assert calls(server) == ["POST refunds", f"GET refunds/{REFUND}"]


#: Answers after which nothing is known, and nothing more can be asked at once.
SILENCES: dict[str, tuple[Script, str]] = {
    "closed without an answer": (sends_and_closes(b""), "connection_reset"),
    "never answered": (says_nothing, "timeout"),
    "200 with HTML": (sends(answer(b"<html>")), "not_json"),
    "a list": (sends(reply([])), "not_an_object"),
    "401": (sends(reply(error("invalid_request_error"), "401 Unauthorized")), "http_401"),
    "403": (sends(reply(error("invalid_request_error"), "403 Forbidden")), "http_403"),
    "429": (sends(reply(error("x", code="rate_limit"), "429 Slow")), "rate_limited"),
    "429 lock_timeout": (sends(reply(error("x", code="lock_timeout"), "429 Slow")), "lock_timeout"),
    "409": (sends(reply(error("idempotency_error", code="in_use"), "409 In use")), "in_use"),
    "402": (sends(reply(error(), "402 Payment Required")), "card_declined"),
}


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_a_refund_that_says_nothing_is_unknown_and_asked_for_once(
    server: ScriptedServer, gateway: StripeGateway, script: Script, reason: str
) -> None:
    server.then(script)

    assert await gateway.refund(ORDER) == Unknown(reason)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["charge_already_refunded", "amount_too_large", ""])
async def test_a_refused_refund_has_failed(
    server: ScriptedServer, gateway: StripeGateway, code: str
) -> None:
    server.then(reply(error("invalid_request_error", code=code), "400 Bad Request"))

    assert await gateway.refund(ORDER) == RefundFailed(code or "refused")


@pytest.mark.parametrize(
    ("lasting", "reason"),
    [
        (SERVER_ERROR, "http_500"),
        (answer(b"<html/>", status="502 Bad Gateway"), "http_502"),
        (KEY_REUSED, "idempotency_key_reused"),
    ],
    ids=["500", "502", "our key for another call"],
)
async def test_what_the_key_would_repeat_for_a_day_is_looked_for_in_the_list(
    server: ScriptedServer, gateway: StripeGateway, lasting: bytes, reason: str
) -> None:
    server.then(lasting, reply(listed(OTHER, refund())), lasting, reply(listed(OTHER)))

    assert await gateway.refund(ORDER) == Refunded(REFUND)
    assert await gateway.refund(ORDER) == Unknown(reason)
    assert calls(server) == ["POST refunds", "GET refunds"] * 2
    target = server.requests[1].split(b" ")[1].decode()
    assert parse_qs(urlsplit(target).query) == {"payment_intent": [INTENT], "limit": ["100"]}


async def test_a_repeated_answer_is_old_so_the_refund_is_read_as_it_is_now(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(refund("pending")), reply(refund()))

    assert await gateway.look_up_refund(ORDER) == Refunded(REFUND)
    assert calls(server) == ["POST refunds", f"GET refunds/{REFUND}"]


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(hours=23), Unknown("not_found")),
        (timedelta(hours=24, minutes=14), Unknown("not_found")),
        (timedelta(hours=24, minutes=15), RefundFailed("never_reached_stripe")),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["refund", "look_up_refund"])
async def test_after_23_hours_a_refund_is_only_looked_for(
    server: ScriptedServer,
    gateway: StripeGateway,
    age: timedelta,
    expected: RefundOutcome,
    call: str,
) -> None:
    order = refund_order_of(started_at=NOW - age)
    server.then(reply(listed(OTHER)), reply(listed(OTHER, refund())))

    assert await getattr(gateway, call)(order) == expected
    assert await getattr(gateway, call)(order) == Refunded(REFUND)
    assert calls(server) == ["GET refunds"] * 2


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        (reply({"object": "list"}), "unreadable_list"),
        (reply(listed(OTHER, has_more=True)), "unreadable_list"),
        (reply(listed("re_1", has_more=None)), "unreadable_list"),
        (SERVER_ERROR, "http_500"),
    ],
    ids=["no list", "more than a page", "no word on more", "500"],
)
async def test_a_list_that_cannot_be_read_never_means_that_nothing_is_there(
    server: ScriptedServer, gateway: StripeGateway, answered: bytes, reason: str
) -> None:
    server.then(answered)

    old = refund_order_of(started_at=NOW - timedelta(days=2))
    assert await gateway.refund(old) == Unknown(reason)


async def test_what_is_no_id_of_stripe_is_never_part_of_a_call(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    stray = refund_order_of(handle="re_1/../x")

    assert await gateway.look_up_refund(stray) == Unknown("no_refund_id")
    assert await gateway.refund(refund_order_of(gateway_payment_id="ch_1")) == RefundFailed(
        "no_intent_id"
    )
    assert server.requests == []


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(refund())), json))
def test_an_arbitrary_refund_becomes_an_outcome(changes: dict[str, Any]) -> None:
    outcome = refunds.read_refund(refund() | changes, ORDER)

    assert isinstance(outcome, (Refunded, RefundPending, RefundFailed, Unknown))
