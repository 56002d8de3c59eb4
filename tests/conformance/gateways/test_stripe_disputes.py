"""How a dispute stands is what Stripe says of it, and whose it is only its intent tells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.disputes import Disputed, DisputeState
from shared.gateways.interface import Unknown
from shared.gateways.stripe.client import StripeGateway
from shared.gateways.stripe.disputes import read_dispute
from shared.money import Money
from tests.support.clocks import START
from tests.support.scripted_server import ScriptedServer, scripted_server
from tests.support.stripe_answers import (
    DISPUTE,
    INTENT,
    REFERENCE,
    dispute,
    error,
    gateway_at,
    intent,
    movement,
    reply,
)

OPENED = Disputed(
    handle=DISPUTE,
    state=DisputeState.OPENED,
    amount=Money(1_999, "USD"),
    reason="fraudulent",
    reference=REFERENCE,
    gateway_payment_id=INTENT,
    opened_at=START,
    fee=Money(1_500, "USD"),
)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def gateway(server: ScriptedServer) -> AsyncIterator[StripeGateway]:
    gateway = gateway_at(server.url)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert "secret" not in repr(lines)


def read(**changes: Any) -> object:
    return read_dispute(dispute(**changes), DISPUTE, is_live=False)


async def test_a_dispute_is_asked_for_with_its_intent(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    server.then(reply(dispute()))

    assert await gateway.look_up_dispute(DISPUTE) == OPENED
    (request,) = server.requests
    method, target, _ = request.split(b"\r\n")[0].decode().split(" ")
    address = urlsplit(target)
    assert (method, address.path) == ("GET", f"/v1/disputes/{DISPUTE}")
    assert parse_qsl(address.query) == [("expand[0]", "payment_intent")]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("warning_needs_response", DisputeState.INQUIRY),
        ("warning_under_review", DisputeState.INQUIRY),
        ("warning_closed", DisputeState.WON),
        ("needs_response", DisputeState.OPENED),
        ("under_review", DisputeState.OPENED),
        ("appeal_needs_response", DisputeState.OPENED),
        ("appeal_under_review", DisputeState.OPENED),
        ("won", DisputeState.WON),
        ("lost", DisputeState.LOST),
    ],
)
def test_each_status_has_one_meaning(status: str, state: DisputeState) -> None:
    outcome = read(status=status)

    assert isinstance(outcome, Disputed)
    assert outcome.state is state


@pytest.mark.parametrize(
    ("movements", "state"),
    [
        ([], DisputeState.WON),
        ([movement()], DisputeState.LOST),
        ([movement(), movement(amount=1_999, fee=0)], DisputeState.WON),
    ],
    ids=["nothing moved", "it was taken", "it came back"],
)
def test_of_a_prevented_dispute_the_money_decides(
    movements: list[dict[str, Any]], state: DisputeState
) -> None:
    outcome = read(status="prevented", balance_transactions=movements)

    assert isinstance(outcome, Disputed)
    assert outcome.state is state


@pytest.mark.parametrize(
    ("movements", "fee"),
    [
        ([], None),
        (None, None),
        ([movement(), movement(amount=1_999, fee=0)], Money(1_500, "USD")),
        ([movement(), movement(amount=1_999, fee=-1_500)], Money(0, "USD")),
        ([movement(currency="eur")], Money(1_500, "EUR")),
        ([movement(), movement(currency="eur")], None),
        ([movement(currency="chf")], None),
        (["txn_1"], None),
    ],
    ids=[
        "nothing moved",
        "not told",
        "kept",
        "given back",
        "the account's currency",
        "two currencies",
        "a currency we do not know",
        "not shown in full",
    ],
)
def test_the_fee_is_told_where_stripe_tells_it(movements: object, fee: Money | None) -> None:
    outcome = read(balance_transactions=movements)

    assert isinstance(outcome, Disputed)
    assert outcome.fee == fee


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"payment_intent": intent(metadata={})}, INTENT),
        ({"payment_intent": intent(metadata={"reference": "inv_1"})}, INTENT),
        ({"payment_intent": intent(metadata={"reference": [REFERENCE]})}, INTENT),
        ({"payment_intent": None}, "ch_1"),
        ({"payment_intent": None, "charge": None}, ""),
    ],
    ids=["no name", "another's name", "no text", "no intent", "nothing"],
)
def test_another_systems_dispute_has_no_reference_of_ours(
    changes: dict[str, Any], named: str
) -> None:
    # Its own metadata anybody in the dashboard may write.
    outcome = read(**changes, metadata={"reference": REFERENCE})

    assert isinstance(outcome, Disputed)
    assert (outcome.reference, outcome.gateway_payment_id) == (None, named)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"object": "charge"}, "unreadable_answer"),
        ({"id": "du_other"}, "unreadable_answer"),
        ({"payment_intent": INTENT}, "unreadable_answer"),
        ({"payment_intent": intent(id="../refunds")}, "unreadable_answer"),
        ({"created": "now"}, "unreadable_answer"),
        ({"created": True}, "unreadable_answer"),
        ({"created": 10**12}, "unreadable_answer"),
        ({"livemode": True}, "livemode_differs"),
        ({"livemode": None}, "livemode_differs"),
        ({"status": "reconsidered"}, "unknown_status"),
        ({"status": None}, "unknown_status"),
        ({"amount": None}, "unreadable_amount"),
        ({"amount": True}, "unreadable_amount"),
        ({"amount": -1}, "unreadable_amount"),
        ({"currency": "USD"}, "unreadable_amount"),
        ({"currency": "xxx"}, "unreadable_amount"),
    ],
    ids=repr,
)
def test_what_is_not_exact_is_not_known(changes: dict[str, Any], reason: str) -> None:
    assert read(**changes) == Unknown(reason)


def test_a_reason_that_is_no_word_is_not_shown() -> None:
    outcome = read(reason="Ada Secret says it was not her")

    assert isinstance(outcome, Disputed)
    assert outcome.reason == "unknown"


async def test_a_dispute_that_there_is_not_is_not_known(
    server: ScriptedServer, gateway: StripeGateway
) -> None:
    missing = error("invalid_request_error", code="resource_missing", param="dispute")
    server.then(reply(missing, "404 Not Found"))

    assert await gateway.look_up_dispute(DISPUTE) == Unknown("resource_missing")


@pytest.mark.parametrize("handle", ["", "re_1", "du_", "du_../x", "du_1?expand", "du_" + "1" * 98])
async def test_what_is_no_dispute_is_not_asked_for(
    server: ScriptedServer, gateway: StripeGateway, handle: str
) -> None:
    assert await gateway.look_up_dispute(handle) == Unknown("no_dispute_id")
    assert server.requests == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(INTENT) | st.just("usd"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(changes=st.dictionaries(st.sampled_from(sorted(dispute())), JSON, min_size=1))
def test_whatever_stripe_says_it_is_read_or_not_known(changes: dict[str, Any]) -> None:
    outcome = read(**changes)

    assert isinstance(outcome, (Disputed, Unknown))
    if isinstance(outcome, Disputed):
        assert outcome.handle == DISPUTE
        assert outcome.reference in {None, REFERENCE}
