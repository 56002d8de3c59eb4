"""The simulated Stripe misbehaves as told: amounts, scripts, profiles; calls and notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import stripe

from tests.integration.simulator.stripe_world import (
    WEBHOOK_SECRET,
    StripeWorld,
    error_of,
    intent_form,
    running_stripe,
)
from tests.integration.simulator.world import Merchant, eventually

INTENTS = "/payment_intents"


@pytest.fixture
async def world(new_database: str, merchant: Merchant) -> AsyncIterator[StripeWorld]:
    async with running_stripe(new_database, merchant) as world:
        yield world


async def put_profile(world: StripeWorld, **profile: Any) -> None:
    async with world.simulator.client.put(
        f"{world.simulator.url}/simulator/profile", json=profile
    ) as response:
        assert response.ok, await response.text()


async def until_state(world: StripeWorld, state: str) -> None:
    async def reached() -> bool:
        return bool((await world.session())["state"] == state)

    await eventually(reached)


@pytest.mark.parametrize(
    ("amount", "code"), [(1901, "generic_decline"), (1902, "insufficient_funds")]
)
async def test_an_amount_can_be_declined(world: StripeWorld, amount: int, code: str) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await world.pay(amount=amount)

    assert error_of(caught.value)["decline_code"] == code
    assert await world.charges() == []


async def test_a_charge_can_succeed_late(world: StripeWorld) -> None:
    intent = await world.pay(amount=1904)
    assert intent.status == "processing"
    assert await world.charges() == []

    await world.simulator.execute("UPDATE stripe_intent SET due_at = now()")

    await until_state(world, "succeeded")
    kinds = [notice.event().type for notice in await world.endpoint.until_received(2)]
    assert sorted(kinds) == ["payment_intent.processing", "payment_intent.succeeded"]
    assert len(await world.charges()) == 1


async def test_a_charge_can_fail_late(world: StripeWorld) -> None:
    assert (await world.pay(amount=1911)).status == "processing"

    await world.simulator.execute("UPDATE stripe_intent SET due_at = now()")

    await until_state(world, "requires_payment_method")
    assert await world.charges() == []


async def test_an_authentication_can_run_out_of_time(world: StripeWorld) -> None:
    intent = await world.pay(amount=1912, off_session=False, return_url="https://shop.example/")
    assert intent.status == "requires_action"

    await world.simulator.execute("UPDATE stripe_intent SET due_at = now()")

    await until_state(world, "canceled")
    read = await world.client.v1.payment_intents.retrieve_async(intent.id)
    assert read.cancellation_reason == "expired"


async def test_off_session_an_authentication_that_never_comes_is_a_decline(
    world: StripeWorld,
) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await world.pay(amount=1903)

    assert caught.value.code == "authentication_required"
    acted = await world.control("POST", "pay", {"reference": "INV-1"})
    assert acted["state"] == "succeeded"


@pytest.mark.parametrize("amount", [1915, 1922])
async def test_the_answer_can_be_lost_after_the_charge(world: StripeWorld, amount: int) -> None:
    form = intent_form(amount=str(amount))
    with pytest.raises(aiohttp.ClientError):
        await world.post(INTENTS, form, key="K-1")

    status, body, headers = await world.post(INTENTS, form, key="K-1")

    assert (status, body["status"]) == (200, "succeeded")
    assert headers["Idempotent-Replayed"] == "true"
    assert len(await world.charges()) == 1


@pytest.mark.parametrize(
    ("amount", "charges"), [(1916, 1), (1917, 0)], ids=["after the charge", "before it"]
)
async def test_a_call_can_fall_silent(world: StripeWorld, amount: int, charges: int) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await world.post(INTENTS, intent_form(amount=str(amount)), key="K-1")

    assert len(await world.charges()) == charges


async def test_the_rate_can_be_limited(world: StripeWorld) -> None:
    with pytest.raises(stripe.RateLimitError) as caught:
        await world.pay(amount=1919)
    with pytest.raises(stripe.RateLimitError) as locked:
        await world.pay("INV-2", amount=1925)

    assert caught.value.headers is not None
    assert caught.value.headers["Stripe-Rate-Limited-Reason"] == "global-rate"
    assert caught.value.headers["Retry-After"] == "1"
    assert error_of(locked.value)["code"] == "lock_timeout"
    assert "Retry-After" not in (locked.value.headers or {})
    assert (await world.pay(amount=1919)).status == "succeeded"
    assert (await world.pay("INV-2", amount=1925)).status == "succeeded"


async def test_a_key_can_be_said_to_be_in_use(world: StripeWorld) -> None:
    with pytest.raises(stripe.APIError) as caught:
        await world.pay(amount=1920)

    assert caught.value.http_status == 409
    assert error_of(caught.value)["code"] == "idempotency_key_in_use"
    assert (await world.pay(amount=1920)).status == "succeeded"


async def test_the_library_retries_what_the_header_tells_it_to(world: StripeWorld) -> None:
    await world.control("POST", "script", {"operation": "create", "behaviour": "error", "times": 2})
    parameters: Any = {"amount": 1999, "currency": "usd"}

    made = await world.client.v1.payment_intents.create_async(
        parameters, {"max_network_retries": 2}
    )

    assert made.status == "requires_payment_method"


async def test_a_search_can_lag_behind(world: StripeWorld) -> None:
    await world.pay()
    script = {"operation": "search", "behaviour": "stale", "delaySeconds": 60}
    await world.control("POST", "script", script)
    query: Any = {"query": "metadata['reference']:'INV-1'"}

    first = await world.client.v1.payment_intents.search_async(query)
    second = await world.client.v1.payment_intents.search_async(query)

    assert (len(first.data), len(second.data)) == (0, 1)


async def test_a_script_can_spoil_one_payment_alone(world: StripeWorld) -> None:
    await world.pay("INV-1")
    other = await world.pay("INV-2")
    script = {"operation": "retrieve", "behaviour": "html", "reference": "INV-2"}
    await world.control("POST", "script", script)

    with pytest.raises(stripe.APIError):
        await world.client.v1.payment_intents.retrieve_async(other.id)

    assert (await world.client.v1.payment_intents.retrieve_async(other.id)).id == other.id


@pytest.mark.parametrize("amount", [1907, 1909])
async def test_a_notice_can_be_forged(world: StripeWorld, amount: int) -> None:
    await world.pay(amount=amount)

    (notice,) = await world.endpoint.until_received(1)

    with pytest.raises(stripe.SignatureVerificationError):
        notice.event()
    if amount == 1909:
        other = notice.event(WEBHOOK_SECRET + "_of_another_endpoint")
        assert other.type == "payment_intent.succeeded"


async def test_a_notice_can_come_five_times_with_two_event_ids(world: StripeWorld) -> None:
    await world.pay(amount=1906)

    notices = await world.endpoint.until_received(5)

    events = [notice.event() for notice in notices]
    assert len({event.id for event in events}) == 2
    assert len({event.data.object["id"] for event in events}) == 1


async def test_a_notice_can_be_missing(world: StripeWorld) -> None:
    await world.pay(amount=1905)

    assert (await world.session())["notices"] == []
    assert len((await world.client.v1.events.list_async()).data) == 1


async def test_a_late_notice_is_signed_for_the_moment_it_is_sent(world: StripeWorld) -> None:
    script = {"operation": "notice", "behaviour": "late", "delaySeconds": 600}
    await world.control("POST", "script", script)
    await world.pay()

    await world.simulator.execute("UPDATE notice SET due_at = now()")

    (notice,) = await world.endpoint.until_received(1)
    stamp = int(notice.signature.split(",", maxsplit=1)[0].removeprefix("t="))
    assert stamp >= notice.event().created + 599


async def test_an_older_event_can_come_last(world: StripeWorld) -> None:
    await world.pay(amount=1910)

    first, last = [notice.event() for notice in await world.endpoint.until_received(2)]

    assert (first.type, last.type) == ("payment_intent.succeeded", "payment_intent.processing")
    assert last.created < first.created


async def test_while_a_secret_is_rolled_both_sign(world: StripeWorld) -> None:
    await world.control("PUT", "roll", {"secret": "whsec_new"})
    await world.pay("INV-1")
    await world.control("DELETE", "roll")
    await world.pay("INV-2")

    rolled, plain = await world.endpoint.until_received(2)
    if rolled.event().data.object["metadata"]["reference"] != "INV-1":
        rolled, plain = plain, rolled

    assert rolled.event("whsec_new").id == rolled.event().id
    assert rolled.signature.count("v1=") == 2
    with pytest.raises(stripe.SignatureVerificationError):
        plain.event("whsec_new")


async def test_a_profile_decides_and_records_the_fate(world: StripeWorld) -> None:
    await put_profile(world, seed=7, fates={"insufficient_funds": 100}, notices={"never": 100})

    with pytest.raises(stripe.CardError) as caught:
        await world.pay()

    session = await world.session()
    assert error_of(caught.value)["decline_code"] == "insufficient_funds"
    assert session["fate"]["fate"] == "insufficient_funds"
    assert session["notices"] == []


async def test_a_fate_of_the_call_meets_the_first_one_only(world: StripeWorld) -> None:
    await put_profile(world, fates={"rate_limited": 100})

    with pytest.raises(stripe.RateLimitError):
        await world.pay()

    assert (await world.pay()).status == "succeeded"


async def test_customers_of_a_profile_authenticate_by_themselves(world: StripeWorld) -> None:
    await put_profile(world, customersAct=True, latencyMs={"p50": 1, "p99": 2})

    intent = await world.pay(payment_method="pm_card_authenticationRequired", off_session=False)

    assert intent.status == "requires_action"
    await until_state(world, "succeeded")


async def test_a_person_can_read_what_is_magic(world: StripeWorld) -> None:
    async with world.simulator.client.get(f"{world.simulator.url}/simulator") as response:
        page = await response.text()

    assert "<h2>Stripe</h2>" in page
    assert "pm_card_radarBlock" in page
