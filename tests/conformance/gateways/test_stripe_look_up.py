"""A doubt about a charge is resolved without a second one: by id, by the same key, by metadata.

And what was opened can be closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.interface import (
    ActionRequired,
    Card,
    Declined,
    FailureKind,
    Outcome,
    Paid,
    Pending,
    Unknown,
)
from shared.gateways.pages import PageHosts
from shared.gateways.stripe.calls import StripeCalls
from shared.gateways.stripe.client import StripeGateway
from shared.gateways.stripe.errors import StripeCallError
from shared.gateways.stripe.intents import IntentReader
from shared.gateways.stripe.transport import StripeTransport
from shared.money import Money
from tests.support.blocking import run_blocking
from tests.support.clocks import START, ManualClock
from tests.support.scripted_server import ScriptedServer, answer, scripted_server
from tests.support.stripe_answers import (
    ADDRESS,
    INTENT,
    REFERENCE,
    card_error,
    error,
    gateway_at,
    intent,
    listed,
    needs_action,
    order_of,
    reply,
)

PAID = Paid(REFERENCE, Money(1_999, "USD"), INTENT, INTENT)
OTHER = intent(id="pi_other", metadata={"reference": "att_other"})
ANONYMOUS = Card("pm_card_visa")

NOW = START + timedelta(minutes=1)
DAY_OLD = timedelta(hours=24, minutes=15)
TOO_OLD = timedelta(hours=23)

SERVER_ERROR = reply(error("api_error"), "500 Internal Server Error")
KEY_REUSED = reply(error("idempotency_error"), "400 Bad Request")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[StripeGateway]:
    gateway = gateway_at(server.url, clock)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert "secret" not in repr(lines)


def calls(server: ScriptedServer) -> list[str]:
    """Return method and path of each request."""
    lines = [request.split(b"\r\n")[0].decode().split(" ") for request in server.requests]
    return [f"{method} {urlsplit(target).path.removeprefix('/v1/')}" for method, target, _ in lines]


def query(server: ScriptedServer, number: int = -1) -> dict[str, list[str]]:
    """Return the query of a request."""
    target = server.requests[number].split(b" ")[1].decode()
    return parse_qs(urlsplit(target).query, strict_parsing=True)


async def test_an_order_with_an_intent_is_looked_up_by_it(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(intent()))

    assert await gateway.look_up(order_of(handle=INTENT)) == PAID
    assert calls(server) == [f"GET payment_intents/{INTENT}"]


async def test_without_an_intent_the_same_call_is_made_again(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(intent(), headers="Idempotent-Replayed: true\r\n"))

    assert await gateway.look_up(order_of()) == PAID
    assert calls(server) == ["POST payment_intents"]


@pytest.mark.parametrize("first", [intent("processing"), needs_action()], ids=["slow", "3DS"])
async def test_a_repeated_answer_is_old_so_the_intent_is_read_as_it_is_now(
    server: ScriptedServer, gateway: StripeGateway, first: dict[str, Any]
) -> None:
    server.then(reply(first), reply(intent()))

    assert await gateway.look_up(order_of()) == PAID
    assert calls(server) == ["POST payment_intents", f"GET payment_intents/{INTENT}"]


async def test_a_repeated_decline_is_a_decline(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(card_error("do_not_honor"), "402 Payment Required"))

    outcome = await gateway.look_up(order_of())

    assert outcome == Declined(
        "do_not_honor", FailureKind.UNKNOWN_CODE, is_final=True, handle=INTENT
    )


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        ("401 Unauthorized", error("invalid_request_error"), "http_401"),
        ("403 Forbidden", error("invalid_request_error"), "http_403"),
        ("429 Slow", error("invalid_request_error", code="rate_limit"), "rate_limited"),
        ("409 In use", error("idempotency_error", code="key_in_use"), "key_in_use"),
    ],
)
async def test_a_repetition_that_is_not_let_in_says_nothing_about_the_first_call(
    server: ScriptedServer, gateway: StripeGateway, status: str, body: object, reason: str
) -> None:
    server.then(reply(body, status))

    assert await gateway.look_up(order_of()) == Unknown(reason)


@pytest.mark.parametrize(
    ("lasting", "reason"),
    [
        (SERVER_ERROR, "http_500"),
        (answer(b"<html/>", status="502 Bad Gateway"), "http_502"),
        (KEY_REUSED, "idempotency_key_reused"),
    ],
    ids=["500", "502", "our key for another call"],
)
async def test_what_the_key_would_repeat_for_a_day_is_looked_for_by_metadata(
    server: ScriptedServer, gateway: StripeGateway, lasting: bytes, reason: str
) -> None:
    server.then(lasting, reply(listed(OTHER, intent())), lasting, reply(listed(OTHER)))

    assert await gateway.look_up(order_of()) == PAID
    assert await gateway.look_up(order_of()) == Unknown(reason)
    assert calls(server) == ["POST payment_intents", "GET payment_intents"] * 2


@pytest.mark.parametrize(
    ("age", "is_repeated"),
    [
        (timedelta(0), True),
        (TOO_OLD - timedelta(seconds=1), True),
        (TOO_OLD, False),
        (timedelta(days=30), False),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", ["start", "look_up"])
async def test_after_23_hours_nothing_is_ever_charged(
    server: ScriptedServer,
    gateway: StripeGateway,
    age: timedelta,
    is_repeated: bool,  # noqa: FBT001 - a parameter of the table above
    call: str,
) -> None:
    server.then(reply(intent() if is_repeated else listed(intent())))
    order = order_of(started_at=NOW - age)

    assert await getattr(gateway, call)(order) == PAID
    assert calls(server) == ["POST payment_intents" if is_repeated else "GET payment_intents"]


async def test_the_customers_intents_are_listed_from_before_the_order_to_a_day_after(
    server: ScriptedServer, gateway: StripeGateway, clock: ManualClock
) -> None:
    clock.advance(86_400 * 10)
    server.then(
        reply(listed(OTHER, has_more=True)),
        reply(listed(intent(id="pi_2", metadata=None), has_more=True)),
        reply(listed(intent())),
    )

    assert await gateway.look_up(order_of()) == PAID

    first, second, third = (query(server, number) for number in range(3))
    started = int(START.timestamp())
    assert first["customer"] == ["cus_1"]
    assert int(first["created[gte]"][0]) < started
    assert int(first["created[lte]"][0]) > started + 86_400
    assert (second["starting_after"], third["starting_after"]) == (["pi_other"], ["pi_2"])


async def test_without_a_customer_the_account_is_searched(
    server: ScriptedServer, gateway: StripeGateway, clock: ManualClock
) -> None:
    clock.advance(86_400)
    server.then(reply(listed(OTHER, intent())))

    assert await gateway.look_up(order_of(method=ANONYMOUS)) == PAID
    assert calls(server) == ["GET payment_intents/search"]
    assert query(server)["query"] == [f"metadata['reference']:'{REFERENCE}'"]


@pytest.mark.parametrize("method", [order_of().method, ANONYMOUS], ids=["customer", "none"])
@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (TOO_OLD, Unknown("not_found")),
        (DAY_OLD - timedelta(seconds=1), Unknown("not_found")),
        (DAY_OLD, Declined("never_reached_stripe", FailureKind.NETWORK_ERROR, is_final=True)),
    ],
    ids=str,
)
async def test_what_is_not_found_is_unknown_for_a_day_and_then_was_never_tried(
    server: ScriptedServer,
    gateway: StripeGateway,
    method: Card,
    age: timedelta,
    expected: Outcome,
) -> None:
    server.then(reply(listed(OTHER)))

    assert await gateway.look_up(order_of(started_at=NOW - age, method=method)) == expected


DECLINED = intent("requires_payment_method", last_payment_error={"type": "card_error"})

FOUND: dict[str, tuple[list[object], Outcome]] = {
    "two that took the money": (
        [intent(), intent(id="pi_2")],
        replace(PAID, is_repeated=True),
    ),
    "one that took the money, one declined": ([DECLINED, intent()], PAID),
    "one that may yet, one declined": (
        [DECLINED, intent("processing", id="pi_2")],
        Pending("processing", "pi_2"),
    ),
    "one in doubt, one declined": (
        [DECLINED, intent(id="pi_2", livemode=True)],
        Unknown("livemode_differs"),
    ),
    "one declined": (
        [DECLINED],
        Declined("declined", FailureKind.UNKNOWN_CODE, is_final=True, handle=INTENT),
    ),
}


@pytest.mark.parametrize(("intents", "expected"), FOUND.values(), ids=FOUND)
async def test_of_several_intents_the_one_that_took_the_money_counts(
    server: ScriptedServer,
    gateway: StripeGateway,
    clock: ManualClock,
    intents: list[object],
    expected: Outcome,
) -> None:
    clock.advance(86_400)
    current = reply(intent("processing", id="pi_2"))
    server.then(reply(listed(*intents)), current)

    assert await gateway.look_up(order_of()) == expected


LISTS: dict[str, tuple[bytes, str]] = {
    "no list": (reply({"object": "list"}), "unreadable_list"),
    "a list of texts": (reply(listed("pi_1")), "unreadable_list"),
    "no word on more": (reply(listed(OTHER, has_more=None)), "unreadable_list"),
    "more after nothing": (reply(listed(has_more=True)), "unreadable_list"),
    "more after no id": (reply(listed({"object": "x"}, has_more=True)), "unreadable_list"),
    "no search in this country": (
        reply(error("invalid_request_error", code="not_here"), "400 Bad Request"),
        "not_here",
    ),
    "500": (SERVER_ERROR, "http_500"),
}


@pytest.mark.parametrize(("answered", "reason"), LISTS.values(), ids=LISTS)
async def test_a_list_that_cannot_be_read_never_means_that_nothing_is_there(
    server: ScriptedServer,
    gateway: StripeGateway,
    clock: ManualClock,
    answered: bytes,
    reason: str,
) -> None:
    clock.advance(86_400 * 2)
    server.then(answered)

    assert await gateway.look_up(order_of()) == Unknown(reason)


async def test_a_list_without_an_end_is_left(
    server: ScriptedServer, gateway: StripeGateway, clock: ManualClock
) -> None:
    clock.advance(86_400 * 2)
    server.then(*[reply(listed(OTHER, has_more=True))] * 20)

    assert await gateway.look_up(order_of()) == Unknown("too_many_intents")
    assert len(server.requests) == 10


@pytest.mark.parametrize("handle", ["", "ch_1", "pi_", "pi_1/cancel", "pi_1?x", "../v1/balance"])
async def test_what_is_no_intents_id_is_never_part_of_an_address(
    server: ScriptedServer, gateway: StripeGateway, handle: str
) -> None:
    assert await gateway.confirm(REFERENCE, handle) == Unknown("no_intent_id")
    assert await gateway.look_up(order_of(handle=handle)) == Unknown("no_intent_id")
    assert await gateway.cancel(order_of(handle=handle)) == Unknown("no_intent_id")
    assert server.requests == []


async def test_an_intent_that_is_not_there_is_no_failure(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(error("invalid_request_error", code="resource_missing"), "404 Not Found"))

    assert await gateway.confirm(REFERENCE, INTENT) == Unknown("resource_missing")


async def test_a_notice_of_another_order_confirms_nothing(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(intent()))

    assert await gateway.confirm("att_other", INTENT) == Unknown("reference_differs")


CANCELLED = Declined("canceled", FailureKind.CANCELLED, is_final=True, handle=INTENT)


async def test_an_open_intent_is_cancelled(server: ScriptedServer, gateway: StripeGateway) -> None:
    server.then(reply(intent("canceled")))

    assert await gateway.cancel(order_of(handle=INTENT)) == CANCELLED
    assert calls(server) == [f"POST payment_intents/{INTENT}/cancel"]


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (intent(), PAID),
        (intent("canceled"), CANCELLED),
        (intent("processing"), Pending("processing", INTENT)),
    ],
    ids=["succeeded", "canceled", "processing"],
)
async def test_what_cannot_be_cancelled_says_what_became_of_it(
    server: ScriptedServer, gateway: StripeGateway, now: dict[str, Any], expected: Outcome
) -> None:
    refused = error("invalid_request_error", code="payment_intent_unexpected_state")
    server.then(reply(refused, "400 Bad Request"), reply(now))

    assert await gateway.cancel(order_of(handle=INTENT)) == expected


@pytest.mark.parametrize(
    ("found", "expected", "asked"),
    [
        ([needs_action()], CANCELLED, 2),
        ([intent()], PAID, 1),
        ([intent("canceled")], CANCELLED, 1),
        ([], Unknown("not_found"), 1),
    ],
    ids=["open", "paid", "cancelled", "nothing"],
)
async def test_an_order_without_an_intent_is_cancelled_without_a_call_that_might_charge(
    server: ScriptedServer,
    gateway: StripeGateway,
    found: list[object],
    expected: Outcome,
    asked: int,
) -> None:
    server.then(reply(listed(*found)), reply(intent("canceled")))

    assert await gateway.cancel(order_of()) == expected
    assert calls(server)[0] == "GET payment_intents"
    assert len(server.requests) == asked


async def test_the_customer_is_sent_to_the_page_that_an_unknown_call_had_opened(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(needs_action()), reply(needs_action()))

    outcome = await gateway.look_up(order_of())

    assert outcome == ActionRequired("requires_action", ADDRESS, INTENT)


READER = IntentReader(is_live=False, pages=PageHosts("stripe.com"))

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
changes = st.dictionaries(st.sampled_from(sorted(intent())), json)


@given(changes, st.sampled_from(["succeeded", "requires_action", "canceled"]) | json)
def test_an_arbitrary_intent_becomes_an_outcome(fields: dict[str, Any], status: object) -> None:
    outcome = READER.read(intent() | fields | {"status": status}, REFERENCE)

    assert isinstance(outcome, (Paid, Declined, Pending, ActionRequired, Unknown))
    if isinstance(outcome, Paid):
        assert (outcome.reference, status) == (REFERENCE, "succeeded")


class CannedTransport(StripeTransport):
    """Gives one answer to every call, without a network."""

    def __init__(self, body: bytes) -> None:
        super().__init__(timeout_seconds=1, connections_max=1)
        self._body = body

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        return self._body, 200, {}


@given(changes, json)
def test_an_arbitrary_object_is_read_by_the_library_or_refused(
    fields: dict[str, Any], status: object
) -> None:
    transport = CannedTransport(orjson.dumps(intent(status) | fields))
    calls = StripeCalls(transport, base_url="http://127.0.0.1:1", secret_key="sk_test_1234")
    try:
        answered = run_blocking(calls.retrieve(INTENT))
    except StripeCallError as refused:
        assert refused.reason == "unreadable_answer"  # noqa: PT017 - the only one that may happen
        return
    assert answered.keys() == intent().keys()
