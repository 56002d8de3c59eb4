"""Idempotency keys of the simulated Stripe: replayed, compared, in use, forgotten after a day."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import stripe

from tests.integration.simulator.stripe_world import (
    SECRET_KEY,
    StripeWorld,
    error_of,
    intent_form,
    running_stripe,
)
from tests.integration.simulator.world import Merchant, eventually

INTENTS = "/payment_intents"
REPLAYED = "Idempotent-Replayed"


@pytest.fixture
async def world(new_database: str, merchant: Merchant) -> AsyncIterator[StripeWorld]:
    async with running_stripe(new_database, merchant) as world:
        yield world


async def test_a_repeated_request_gets_the_first_answer_again(world: StripeWorld) -> None:
    status, first, headers = await world.post(INTENTS, intent_form(), key="K-1")
    form = dict(reversed(intent_form().items()))
    again_status, again, again_headers = await world.post(INTENTS, form, key="K-1")

    assert (status, again_status) == (200, 200)
    assert again == first
    assert REPLAYED not in headers
    assert again_headers[REPLAYED] == "true"
    assert again_headers["Original-Request"] == headers["Request-Id"]
    assert len(await world.charges()) == 1


async def test_without_a_key_each_request_charges(world: StripeWorld) -> None:
    await world.post(INTENTS, intent_form())
    await world.post(INTENTS, intent_form())

    assert len(await world.charges()) == 2


async def test_a_decline_is_replayed_too(world: StripeWorld) -> None:
    form = intent_form(payment_method="pm_card_visa_chargeDeclined")

    first_status, first, _ = await world.post(INTENTS, form, key="K-1")
    status, again, headers = await world.post(INTENTS, form, key="K-1")

    assert (first_status, status) == (402, 402)
    assert again == first
    assert headers[REPLAYED] == "true"


async def test_a_key_is_for_one_set_of_parameters(world: StripeWorld) -> None:
    await world.pay()

    with pytest.raises(stripe.IdempotencyError) as refused:
        await world.pay(amount=2000)

    assert refused.value.http_status == 400
    assert error_of(refused.value)["type"] == "idempotency_error"
    assert error_of(refused.value)["message"] == (
        "Keys for idempotent requests can only be used with the same parameters they were first"
        " used with. Try using a key other than 'INV-1' if you meant to execute a different"
        " request."
    )
    assert len(await world.charges()) == 1


async def test_a_key_is_for_one_endpoint(world: StripeWorld) -> None:
    intent = await world.pay()

    status, body, _ = await world.post("/refunds", {"payment_intent": intent.id}, key="INV-1")

    assert (status, body["error"]["type"]) == (400, "idempotency_error")


async def test_of_many_at_once_one_is_executed(world: StripeWorld) -> None:
    answers = await asyncio.gather(
        *(world.post(INTENTS, intent_form(), key="K-1") for _ in range(12))
    )

    statuses = Counter(status for status, _, _ in answers)
    ids = {body["id"] for status, body, _ in answers if status == 200}
    codes = {body["error"]["code"] for status, body, _ in answers if status == 409}
    assert statuses[200] + statuses[409] == 12
    assert len(ids) == 1
    assert codes <= {"idempotency_key_in_use"}
    assert len(await world.charges()) == 1


async def test_while_the_first_is_running_the_key_is_in_use(world: StripeWorld) -> None:
    await world.control(
        "POST", "script", {"operation": "create", "behaviour": "slow", "delaySeconds": 0.7}
    )
    slow = asyncio.create_task(world.post(INTENTS, intent_form(), key="K-1"))

    async def claimed() -> bool:
        claims = await world.simulator.execute("SELECT count(*) FROM stripe_idempotency")
        return bool(claims == 1)

    await eventually(claimed)
    status, body, headers = await world.post(INTENTS, intent_form(), key="K-1")

    assert (status, body["error"]["code"]) == (409, "idempotency_key_in_use")
    assert body["error"]["type"] == "idempotency_error"
    assert headers["Stripe-Should-Retry"] == "true"
    assert (await slow)[0] == 200
    assert (await world.post(INTENTS, intent_form(), key="K-1"))[2][REPLAYED] == "true"
    assert len(await world.charges()) == 1


async def test_a_request_that_lost_its_key_undoes_its_work(world: StripeWorld) -> None:
    await world.control(
        "POST", "script", {"operation": "create", "behaviour": "slow", "delaySeconds": 1}
    )
    slow = asyncio.create_task(world.post(INTENTS, intent_form(), key="K-1"))

    async def lease_is_over() -> bool:
        count = await world.simulator.execute(
            "WITH over AS (UPDATE stripe_idempotency SET leased_until = now() RETURNING key)"
            " SELECT count(*) FROM over"
        )
        return bool(count)

    await eventually(lease_is_over)
    status, _, _ = await world.post(INTENTS, intent_form(), key="K-1")

    assert status == 200
    assert (await slow)[0] == 409
    assert len(await world.charges()) == 1


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"amount": ""}, "amount"),
        ({"amount": "12.5"}, "amount"),
        ({"amount": "49"}, "amount"),
        ({"amount": "100000000"}, "amount"),
        ({"currency": "usdc"}, "currency"),
        ({"nonsense": "1"}, "nonsense"),
        ({"off_session": "true", "confirm": "false"}, "off_session"),
        ({"metadata": "x"}, None),
    ],
)
async def test_refused_parameters_leave_the_key_free(
    world: StripeWorld, change: dict[str, str], param: str | None
) -> None:
    status, body, _ = await world.post(INTENTS, {**intent_form(), **change}, key="K-1")

    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert param is None or body["error"]["param"] == param
    status, _, headers = await world.post(INTENTS, intent_form(), key="K-1")
    assert (status, REPLAYED in headers) == (200, False)


async def test_a_refusal_while_executing_is_kept(world: StripeWorld) -> None:
    form = {"payment_intent": "pi_unknown"}

    first_status, _, _ = await world.post("/refunds", form, key="K-1")
    status, body, headers = await world.post("/refunds", form, key="K-1")

    assert (first_status, status) == (404, 404)
    assert body["error"]["code"] == "resource_missing"
    assert headers[REPLAYED] == "true"


async def test_a_500_after_the_charge_is_replayed(world: StripeWorld) -> None:
    form = intent_form(amount="1918")

    status, body, headers = await world.post(INTENTS, form, key="K-1")
    again_status, again, again_headers = await world.post(INTENTS, form, key="K-1")

    assert (status, again_status, again) == (500, 500, body)
    assert headers["Stripe-Should-Retry"] == "false"
    assert again_headers[REPLAYED] == "true"
    assert len(await world.charges()) == 1
    (notice,) = await world.endpoint.until_received(1)
    assert notice.event().type == "payment_intent.succeeded"


async def test_a_500_before_the_work_leaves_the_key_free(world: StripeWorld) -> None:
    form = intent_form(amount="1914")

    status, body, headers = await world.post(INTENTS, form, key="K-1")
    assert (status, body["error"]["type"]) == (500, "api_error")
    assert headers["Stripe-Should-Retry"] == "true"
    assert await world.charges() == []

    status, _, headers = await world.post(INTENTS, form, key="K-1")
    assert (status, REPLAYED in headers) == (200, False)


async def test_after_a_day_the_same_key_charges_again(world: StripeWorld) -> None:
    first = await world.pay()
    assert await world.control("POST", "age", {"seconds": 86_000}) == {"aged": 1, "pruned": 0}
    assert (await world.pay()).id == first.id

    assert await world.control("POST", "age", {"seconds": 400}) == {"aged": 1, "pruned": 1}
    second = await world.pay()

    assert second.id != first.id
    assert len(await world.charges()) == 2


async def test_a_request_whose_process_died_frees_its_key_in_time(world: StripeWorld) -> None:
    await world.pay()
    await world.simulator.execute(
        "UPDATE stripe_idempotency SET status = NULL, body = NULL,"
        " leased_until = now() + interval '1 hour'"
    )
    assert (await world.post(INTENTS, intent_form(), key="INV-1"))[0] == 400

    await world.simulator.execute("UPDATE stripe_idempotency SET leased_until = now()")

    await world.pay()
    assert len(await world.charges()) == 2


async def test_two_requests_for_one_intent_at_once_do_not_both_confirm(
    world: StripeWorld,
) -> None:
    intent = await world.pay(confirm=False, off_session=None)
    path = f"{INTENTS}/{intent.id}/confirm"

    answers = await asyncio.gather(*(world.post(path, {}) for _ in range(8)))

    statuses = Counter(status for status, _, _ in answers)
    assert statuses[200] == 1
    assert set(statuses) <= {200, 400, 429}
    codes = {body["error"]["code"] for status, body, _ in answers if status == 429}
    assert codes <= {"lock_timeout"}
    assert len(await world.charges()) == 1


async def test_a_key_has_at_most_255_characters(world: StripeWorld) -> None:
    assert (await world.post(INTENTS, intent_form(), key="k" * 255))[0] == 200
    assert (await world.post(INTENTS, intent_form(), key="k" * 256))[0] == 400
    assert (await world.post(INTENTS, intent_form(), key="clé"))[0] == 400


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer sk_test_other", f"Basic {SECRET_KEY}", "Bearer ", "Bearer sk_tést_öther"],
)
async def test_another_key_is_refused(world: StripeWorld, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with world.simulator.client.post(
        world.api + INTENTS, data=intent_form(), headers=headers
    ) as response:
        body = await response.json()

    assert response.status == 401
    assert body["error"]["type"] == "invalid_request_error"
    assert "sk_test_other" not in body["error"]["message"]


async def test_an_unknown_address_is_told_so(world: StripeWorld) -> None:
    status, body, _ = await world.post("/payment_links", {})

    assert status == 404
    assert body["error"]["message"].startswith("Unrecognized request URL (POST: /v1/payment_links)")
