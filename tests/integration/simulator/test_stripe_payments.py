"""The official library drives the simulated Stripe: charges, declines, authentications, refunds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
import stripe

from services.simulator.stripe.cards import DECLINES
from tests.integration.simulator.stripe_world import (
    StripeWorld,
    error_of,
    running_stripe,
)
from tests.integration.simulator.world import Merchant, eventually


@pytest.fixture
async def world(new_database: str, merchant: Merchant) -> AsyncIterator[StripeWorld]:
    async with running_stripe(new_database, merchant) as world:
        yield world


async def declined(world: StripeWorld, payment_method: str) -> stripe.CardError:
    with pytest.raises(stripe.CardError) as caught:
        await world.pay(f"INV-{payment_method}", payment_method=payment_method)
    return caught.value


async def test_a_renewal_is_charged_and_told(world: StripeWorld) -> None:
    intent = await world.pay("INV-1", expand=["latest_charge"])

    (notice,) = await world.endpoint.until_received(1)
    event = notice.event()
    (charge,) = await world.charges()
    assert (intent.status, intent.amount_received, intent.livemode) == ("succeeded", 1999, False)
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert intent.latest_charge.paid
    assert event.type == "payment_intent.succeeded"
    assert event.data.object["id"] == intent.id
    assert event.data.object["metadata"]["reference"] == "INV-1"
    assert event.request is not None
    assert event.request.idempotency_key == "INV-1"
    assert charge["gatewayPaymentId"] == intent.id
    assert (charge["amount"], charge["currency"]) == (1999, "USD")


async def test_an_intent_can_be_made_first_and_confirmed_later(world: StripeWorld) -> None:
    made = await world.pay("INV-1", confirm=False, off_session=None, payment_method=None)
    assert made.status == "requires_payment_method"
    assert await world.charges() == []

    confirmed = await world.client.v1.payment_intents.confirm_async(
        made.id, {"payment_method": "pm_card_mastercard"}
    )

    read = await world.client.v1.payment_intents.retrieve_async(made.id)
    assert (confirmed.status, read.status) == ("succeeded", "succeeded")
    assert len(await world.charges()) == 1


METHOD = "pm_card_visa_chargeDeclinedInsufficientFunds"


async def test_a_declined_charge_leaves_an_intent_behind(world: StripeWorld) -> None:
    error = await declined(world, METHOD)

    assert error.http_status == 402
    assert error.code == "card_declined"
    inside = error_of(error)
    assert inside["decline_code"] == "insufficient_funds"
    assert inside["advice_code"] == "try_again_later"
    assert inside["payment_intent"]["status"] == "requires_payment_method"
    read = await world.client.v1.payment_intents.retrieve_async(inside["payment_intent"]["id"])
    assert read.last_payment_error is not None
    assert read.last_payment_error.decline_code == "insufficient_funds"
    (notice,) = await world.endpoint.until_received(1)
    assert notice.event().type == "payment_intent.payment_failed"
    assert await world.charges(f"INV-{METHOD}") == []


async def test_a_test_card_may_have_a_code_and_no_decline_code(world: StripeWorld) -> None:
    error = await declined(world, "pm_card_chargeDeclinedExpiredCard")

    assert error.code == "expired_card"
    assert "decline_code" not in error_of(error)


async def test_every_decline_code_can_be_had(world: StripeWorld) -> None:
    got = {}
    for code in DECLINES:
        error = await declined(world, f"pm_card_decline_{code}")
        got[code] = error_of(error)["decline_code"]

    assert got == {code: code for code in got}
    assert len(got) == 50


async def test_a_declined_intent_can_be_confirmed_again_with_another_card(
    world: StripeWorld,
) -> None:
    error = await declined(world, "pm_card_chargeCustomerFail")
    intent_id = error_of(error)["payment_intent"]["id"]

    confirmed = await world.client.v1.payment_intents.confirm_async(
        intent_id, {"payment_method": "pm_card_visa"}
    )

    assert confirmed.status == "succeeded"
    assert confirmed.last_payment_error is None


async def test_off_session_an_authentication_is_a_decline(world: StripeWorld) -> None:
    error = await declined(world, "pm_card_authenticationRequired")

    assert error.http_status == 402
    assert error.code == "authentication_required"


@pytest.mark.parametrize(
    ("action", "status", "result"),
    [
        ("authenticate", "succeeded", "succeeded"),
        ("fail", "requires_payment_method", "failed"),
    ],
)
async def test_on_session_the_customer_authenticates_on_a_page(
    world: StripeWorld, action: str, status: str, result: str
) -> None:
    intent = await world.pay(
        payment_method="pm_card_authenticationRequired",
        off_session=False,
        return_url="https://shop.example/back?order=1",
    )
    assert intent.status == "requires_action"
    assert intent.next_action is not None
    assert intent.next_action.redirect_to_url is not None
    url = intent.next_action.redirect_to_url.url
    assert url is not None
    page = world.simulator.url + url.removeprefix("http://gateway.example")

    async with world.simulator.client.get(page) as response:
        assert response.status == 200
        assert "Authenticate and pay" in await response.text()
    async with world.simulator.client.post(f"{page}/{action}", allow_redirects=False) as response:
        assert response.status == 303
        location = response.headers["Location"]

    read = await world.client.v1.payment_intents.retrieve_async(intent.id)
    assert read.status == status
    assert location.startswith("https://shop.example/back?order=1&payment_intent=pi_")
    assert location.endswith(f"redirect_status={result}")
    assert len(await world.charges()) == (1 if result == "succeeded" else 0)


async def test_a_page_with_a_wrong_secret_is_not_found(world: StripeWorld) -> None:
    intent = await world.pay()

    address = f"{world.simulator.url}/stripe/authenticate/{intent.id}/wrong"
    async with world.simulator.client.get(address) as response:
        assert response.status == 404


async def test_the_control_api_acts_as_the_customer(world: StripeWorld) -> None:
    await world.pay(payment_method="pm_card_threeDSecure2Required", off_session=False)

    acted = await world.control("POST", "pay", {"reference": "INV-1"})

    assert acted["state"] == "succeeded"
    assert (await world.session())["amountReceived"] == 1999
    await world.control("POST", "pay", {"reference": "INV-1"}, status=409)


async def test_cancelling_ends_an_intent_and_a_charge_cannot_be_cancelled(
    world: StripeWorld,
) -> None:
    open_intent = await world.pay("INV-1", confirm=False, off_session=None)
    paid = await world.pay("INV-2")

    canceled = await world.client.v1.payment_intents.cancel_async(
        open_intent.id, {"cancellation_reason": "abandoned"}
    )
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await world.client.v1.payment_intents.cancel_async(paid.id)
    with pytest.raises(stripe.InvalidRequestError):
        await world.client.v1.payment_intents.confirm_async(open_intent.id)

    assert (canceled.status, canceled.cancellation_reason) == ("canceled", "abandoned")
    assert refused.value.code == "payment_intent_unexpected_state"
    assert error_of(refused.value)["payment_intent"]["status"] == "succeeded"


async def test_a_manual_capture_takes_the_money_later(world: StripeWorld) -> None:
    intent = await world.pay(capture_method="manual")
    assert intent.status == "requires_capture"
    assert await world.charges() == []

    captured = await world.client.v1.payment_intents.capture_async(
        intent.id, {"amount_to_capture": 1500}
    )

    assert (captured.status, captured.amount_received) == ("succeeded", 1500)
    assert [charge["amount"] for charge in await world.charges()] == [1500]


async def test_refunds_never_exceed_the_charge(world: StripeWorld) -> None:
    intent = await world.pay()

    part = await world.client.v1.refunds.create_async(
        {"payment_intent": intent.id, "amount": 999, "metadata": {"reference": "RF-1"}}
    )
    with pytest.raises(stripe.InvalidRequestError):
        await world.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 1001})
    rest = await world.client.v1.refunds.create_async({"charge": str(intent.latest_charge)})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await world.client.v1.refunds.create_async({"payment_intent": intent.id})

    listed = await world.client.v1.refunds.list_async({"payment_intent": intent.id})
    assert (part.status, part.amount, rest.amount) == ("succeeded", 999, 1000)
    assert refused.value.code == "charge_already_refunded"
    assert [refund.id for refund in listed.data] == [rest.id, part.id]
    notices = await world.endpoint.until_received(5)
    kinds = sorted(notice.event().type for notice in notices)
    assert kinds == sorted(["payment_intent.succeeded"] + ["refund.created", "charge.refunded"] * 2)


async def test_a_refund_can_fail_after_it_succeeded(world: StripeWorld) -> None:
    intent = await world.pay(payment_method="pm_card_refundFail")
    refund = await world.client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "succeeded"

    await world.simulator.execute("UPDATE stripe_refund SET due_at = now()")

    async def failed() -> bool:
        read = await world.client.v1.refunds.retrieve_async(refund.id)
        return read.status == "failed" and bool(read.failure_reason)

    await eventually(failed)
    assert (await world.session())["amountRefunded"] == 0
    assert "refund.failed" in {
        notice.event().type for notice in await world.endpoint.until_received(4)
    }


async def test_intents_are_listed_by_customer_and_found_by_metadata(world: StripeWorld) -> None:
    made = [await world.pay(f"INV-{number}") for number in range(3)]
    await world.pay("INV-other", customer="cus_other")

    pages = [await world.client.v1.payment_intents.list_async({"customer": "cus_demo", "limit": 2})]
    pages.append(
        await world.client.v1.payment_intents.list_async(
            {"customer": "cus_demo", "limit": 2, "starting_after": pages[0].data[-1].id}
        )
    )
    found = await world.client.v1.payment_intents.search_async(
        {"query": "metadata['reference']:'INV-1' AND status:'succeeded'"}
    )
    recent = await world.client.v1.payment_intents.list_async(
        {"created": {"gte": made[0].created + 3600}}
    )

    assert [intent.id for page in pages for intent in page.data] == [
        made[2].id,
        made[1].id,
        made[0].id,
    ]
    assert [page.has_more for page in pages] == [True, False]
    assert [intent.id for intent in found.data] == [made[1].id]
    assert recent.data == []


async def test_events_can_be_listed_and_read_as_they_were_sent(world: StripeWorld) -> None:
    await world.pay()
    (notice,) = await world.endpoint.until_received(1)

    listed = await world.client.v1.events.list_async({"type": "payment_intent.succeeded"})
    sent = json.loads(notice.body)
    read = await world.client.v1.events.retrieve_async(sent["id"])

    assert [event.id for event in listed.data] == [sent["id"]]
    assert read.to_dict() == sent


async def test_a_card_is_attached_and_charged_as_the_customers_own(world: StripeWorld) -> None:
    customer = await world.client.v1.customers.create_async({"metadata": {"user": "1"}})
    attached = await world.client.v1.payment_methods.attach_async(
        "pm_card_visa", {"customer": customer.id}
    )
    with pytest.raises(stripe.CardError):
        await world.client.v1.payment_methods.attach_async(
            "pm_card_chargeDeclined", {"customer": customer.id}
        )

    intent = await world.pay(customer=customer.id, payment_method=attached.id)
    with pytest.raises(stripe.InvalidRequestError):
        await world.pay("INV-2", customer="cus_other", payment_method=attached.id)

    listed = await world.client.v1.customers.payment_methods.list_async(customer.id)
    assert intent.payment_method == attached.id
    assert [method.id for method in listed.data] == [attached.id]
    assert attached.customer == customer.id


async def test_postgres_itself_refuses_a_step_that_stripe_does_not_have(
    world: StripeWorld,
) -> None:
    await world.pay()

    for statement in (
        "UPDATE stripe_intent SET state = 'processing', amount_received = 0",
        "UPDATE stripe_intent SET state = 'requires_action', amount_received = 0",
        "UPDATE stripe_intent SET state = 'canceled', amount_received = 0, canceled_at = now()",
    ):
        with pytest.raises(asyncpg.CheckViolationError, match="stripe has no step"):
            await world.simulator.execute(statement)
