"""Disputes of the simulated Stripe: what the bank does, what is heard of it, where money goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.integration.simulator.stripe_world import StripeWorld, error_of, running_stripe
from tests.integration.simulator.world import Merchant, eventually


@pytest.fixture
async def world(new_database: str, merchant: Merchant) -> AsyncIterator[StripeWorld]:
    async with running_stripe(new_database, merchant) as world:
        yield world


async def movements(world: StripeWorld, reference: str = "INV-1") -> list[tuple[str, int]]:
    """Return (kind, amount) of what moved, the oldest first."""
    data = await world.control("GET", f"ledger?reference={reference}")
    return [(line["kind"], line["amount"]) for line in data["movements"]][::-1]


async def dispute(world: StripeWorld, **wish: Any) -> dict[str, Any]:
    opened = await world.control("POST", "dispute", {"reference": "INV-1", **wish})
    assert isinstance(opened, dict)
    return opened


async def decide(world: StripeWorld, *statuses: str) -> None:
    for status in statuses:
        wish = {"reference": "INV-1", "status": status}
        assert (await world.control("POST", "dispute/decide", wish))["status"] == status


async def heard(world: StripeWorld, count: int) -> list[str]:
    """Return the types of the events about disputes, in the order of their making."""
    events = [notice.event() for notice in await world.endpoint.until_received(count + 1)]
    assert len(events) == count + 1, "one is of the payment"
    listed = await world.client.v1.events.list_async({"limit": 100})
    kinds = [event.type for event in reversed(listed.data)]
    assert sorted(kinds) == sorted(event.type for event in events)
    return [kind.removeprefix("charge.dispute.") for kind in kinds if "dispute" in kind]


async def test_the_bank_takes_the_money_and_a_fee(world: StripeWorld) -> None:
    intent = await world.pay()

    opened = await dispute(world)

    assert await heard(world, 2) == ["created", "funds_withdrawn"]
    shown = await world.client.v1.disputes.retrieve_async(opened["id"])
    assert (shown.status, shown.amount, shown.payment_intent) == (
        "needs_response",
        1_999,
        intent.id,
    )
    (taken,) = shown.balance_transactions
    assert (taken.amount, taken.fee, taken.net) == (-1_999, 1_500, -3_499)
    assert await movements(world) == [("dispute", 1_999), ("fee", 1_500)]
    assert (await world.session())["disputes"][0]["status"] == "needs_response"


async def test_a_dispute_shows_its_intent_where_that_is_asked_for(world: StripeWorld) -> None:
    await world.pay()
    opened = await dispute(world)

    shown = await world.client.v1.disputes.retrieve_async(
        opened["id"], {"expand": ["payment_intent"]}
    )

    assert isinstance(shown.payment_intent, stripe.PaymentIntent)
    assert shown.payment_intent.metadata["reference"] == "INV-1"


async def test_a_won_dispute_gives_the_money_back_and_keeps_the_fee(world: StripeWorld) -> None:
    await world.pay()
    opened = await dispute(world)
    await decide(world, "under_review", "won")

    assert (await heard(world, 5))[2:] == ["updated", "closed", "funds_reinstated"]
    shown = await world.client.v1.disputes.retrieve_async(opened["id"])
    assert [each.amount for each in shown.balance_transactions] == [-1_999, 1_999]
    assert [each.fee for each in shown.balance_transactions] == [1_500, 0]
    assert (await movements(world))[-1] == ("dispute_returned", 1_999)


async def test_a_lost_dispute_moves_nothing_more(world: StripeWorld) -> None:
    await world.pay()
    await dispute(world)
    await decide(world, "lost")

    assert (await heard(world, 3))[2:] == ["closed"]
    assert await movements(world) == [("dispute", 1_999), ("fee", 1_500)]


async def test_what_was_decided_may_be_heard_again(world: StripeWorld) -> None:
    await world.pay()
    await dispute(world)
    await decide(world, "won", "appeal_needs_response", "lost", "appeal_under_review", "won")

    assert await movements(world) == [
        ("dispute", 1_999),
        ("fee", 1_500),
        ("dispute_returned", 1_999),
        ("dispute", 1_999),
        ("dispute_returned", 1_999),
    ]


async def test_an_inquiry_takes_nothing_until_it_becomes_a_dispute(world: StripeWorld) -> None:
    await world.pay()
    opened = await dispute(world, isInquiry=True)
    assert opened["status"] == "warning_needs_response"
    await decide(world, "warning_under_review")
    assert await movements(world) == []
    await decide(world, "needs_response")

    assert await heard(world, 4) == ["created", "updated", "updated", "funds_withdrawn"]
    assert await movements(world) == [("dispute", 1_999), ("fee", 1_500)]


async def test_an_inquiry_may_end_without_anything(world: StripeWorld) -> None:
    await world.pay()
    await dispute(world, isInquiry=True)
    await decide(world, "warning_closed")

    assert await heard(world, 2) == ["created", "closed"]
    assert await movements(world) == []


async def test_a_merchant_may_accept_a_dispute_once(world: StripeWorld) -> None:
    await world.pay()
    opened = await dispute(world)

    accepted = await world.client.v1.disputes.close_async(opened["id"])

    assert accepted.status == "lost"
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        await world.client.v1.disputes.close_async(opened["id"])


async def test_disputes_are_listed_the_newest_first(world: StripeWorld) -> None:
    intent = await world.pay()
    first = await dispute(world, amount=500)
    await decide(world, "won")
    second = await dispute(world)

    disputes = world.client.v1.disputes
    listed = await disputes.list_async({"payment_intent": intent.id})
    assert [each.id for each in listed.data] == [second["id"], first["id"]]
    page = await disputes.list_async({"limit": 1})
    assert ([each.id for each in page.data], page.has_more) == ([second["id"]], True)
    page = await disputes.list_async({"limit": 1, "starting_after": second["id"]})
    assert ([each.id for each in page.data], page.has_more) == ([first["id"]], False)
    assert (await disputes.list_async({"payment_intent": "pi_other"})).data == []


async def test_what_there_is_not_is_said_so(world: StripeWorld) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await world.client.v1.disputes.retrieve_async("du_unknown")
    assert error_of(caught.value)["code"] == "resource_missing"

    await world.pay(confirm=False, off_session=None)
    await world.control("POST", "dispute", {"reference": "INV-1"}, status=409)
    await world.control("POST", "dispute", {"reference": "INV-2"}, status=404)
    wish = {"reference": "INV-1", "status": "won"}
    await world.control("POST", "dispute/decide", wish, status=404)


async def test_only_steps_of_the_protocol_are_made(world: StripeWorld) -> None:
    await world.pay()
    await dispute(world)
    await world.control("POST", "dispute", {"reference": "INV-1"}, status=409)
    for status in ("needs_response", "warning_closed", "appeal_under_review"):
        wish = {"reference": "INV-1", "status": status}
        await world.control("POST", "dispute/decide", wish, status=409)
    for wish in ({"reference": "INV-1", "status": "perhaps"}, {"reference": "INV-1"}):
        await world.control("POST", "dispute/decide", wish, status=400)
    await decide(world, "lost")
    wish = {"reference": "INV-1", "status": "won"}
    await world.control("POST", "dispute/decide", wish, status=409)
    await world.control("POST", "dispute", {"reference": "INV-1", "amount": 2_000}, status=409)

    assert await movements(world) == [("dispute", 1_999), ("fee", 1_500)]


async def test_what_the_bank_has_taken_cannot_be_refunded(world: StripeWorld) -> None:
    intent = await world.pay()
    await dispute(world)

    with pytest.raises(stripe.InvalidRequestError) as caught:
        await world.client.v1.refunds.create_async({"payment_intent": intent.id})
    assert error_of(caught.value)["code"] == "charge_disputed"

    await decide(world, "won")
    await world.client.v1.refunds.create_async({"payment_intent": intent.id})
    assert (await movements(world))[-1] == ("refund", 1_999)


async def test_the_bank_takes_what_was_not_refunded_and_after_a_full_refund_all_of_it(
    world: StripeWorld,
) -> None:
    intent = await world.pay()
    await world.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 999})
    assert (await dispute(world))["amount"] == 1_000
    await decide(world, "won")
    await world.client.v1.refunds.create_async({"payment_intent": intent.id})

    assert (await dispute(world))["amount"] == 1_999


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("pm_card_visa", ["refund"]),
        ("pm_card_pendingRefund", ["refund"]),
        ("pm_card_refundFail", ["refund", "refund_returned"]),
    ],
)
async def test_refunds_are_in_the_ledger_from_when_their_money_moves(
    world: StripeWorld, card: str, expected: list[str]
) -> None:
    intent = await world.pay(payment_method=card)
    refund = await world.client.v1.refunds.create_async(
        {"payment_intent": intent.id, "amount": 500, "metadata": {"reference": "ref_1"}}
    )
    pending = refund.status == "pending"
    assert await movements(world) == ([] if pending else [("refund", 500)])
    await world.simulator.execute("UPDATE stripe_refund SET due_at = now() WHERE due_at > now()")

    async def moved() -> bool:
        return [kind for kind, _ in await movements(world)] == expected

    await eventually(moved)
    data = await world.control("GET", "ledger?reference=INV-1")
    for line in data["movements"]:
        assert (line["name"], line["handle"]) == ("ref_1", refund.id)
        assert (line["gatewayPaymentId"], line["currency"]) == (intent.id, "USD")


async def test_calls_about_disputes_can_be_spoilt(world: StripeWorld) -> None:
    await world.pay()
    opened = await dispute(world)
    await world.control("POST", "script", {"operation": "dispute", "behaviour": "error"})

    with pytest.raises(stripe.APIError):
        await world.client.v1.disputes.retrieve_async(opened["id"])
    assert (await world.client.v1.disputes.retrieve_async(opened["id"])).id == opened["id"]
