"""POST /api/payments: one payment and one page per key, whatever the gateway says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.gateways.interface import Declined, FailureKind, Outcome, Unknown
from shared.identifiers import is_id
from tests.integration.payments.world import Payments, is_payment_id, order, running_payments
from tests.support.polling import eventually
from tests.support.queues import items_on
from tests.support.tcp_proxy import proxied


def refused(reason: str) -> Outcome:
    return Declined(reason, FailureKind.CONFIGURATION, is_final=True)


async def test_a_payment_is_answered_with_the_page_where_the_customer_pays(
    payments: Payments,
) -> None:
    reply = await payments.post()

    assert reply.status == 201
    payment = reply.data
    assert is_payment_id(payment["id"])
    assert is_id(payment["gatewayReference"], "att")
    assert payment | {"id": None, "gatewayReference": None, "checkoutUrl": None} == {
        "id": None,
        "state": "pending",
        "reason": "customer_must_pay",
        "gateway": "sslcommerz",
        "method": {"type": "checkout"},
        "gatewayReference": None,
        "gatewayPaymentId": None,
        "amount": 115_000,
        "currency": "BDT",
        "refundedAmount": 0,
        "customerId": "cus_1",
        "productId": "course_1",
        "subscriptionId": None,
        "checkoutUrl": None,
        "returnUrl": "https://shop.example/thanks",
        "metadata": {"order": "7"},
        "nextCheckAt": "2026-01-05T12:00:30Z",
        "createdAt": "2026-01-05T12:00:00Z",
        "updatedAt": "2026-01-05T12:00:00Z",
        "expiresAt": "2026-01-06T12:00:00Z",
    }
    assert payment["checkoutUrl"].endswith(payment["gatewayReference"])
    assert await payments.read(payment["id"]) == payment
    assert await payments.story(payment) == ["created", "checkout_opened"]


async def test_the_gateway_hears_the_customer_s_data_and_the_api_never_shows_it(
    payments: Payments,
) -> None:
    reply = await payments.post()
    (asked,) = payments.gateway.orders

    assert (asked.reference, asked.amount.minor_units) == (reply.data["gatewayReference"], 115_000)
    assert (asked.customer.name, asked.customer.email) == ("Ada", "ada@shop.example")
    assert (asked.customer.phone, asked.product_name) == ("0170000", "Course")
    assert b"ada@" not in reply.raw
    assert b"ada@" not in (await payments.api.call("GET", "/api/payments")).raw


async def test_the_reference_is_committed_before_the_gateway_hears_of_it(
    payments: Payments,
) -> None:
    payments.gateway.is_answering.clear()
    creating = asyncio.create_task(payments.post())

    async def asked() -> bool:
        return bool(payments.gateway.orders)

    await eventually(asked)
    states = await payments.rows(
        "SELECT payment.state, attempt.state AS attempt FROM attempt"
        " JOIN payment ON payment.id = payment_id WHERE attempt.reference = $1",
        payments.gateway.orders[0].reference,
    )
    assert [tuple(row) for row in states] == [("created", "started")]
    payments.gateway.is_answering.set()
    assert (await creating).status == 201


async def test_where_the_customer_returns_to_is_announced_to_webhook(payments: Payments) -> None:
    payment = await payments.create()
    await payments.create(returnUrl=None)

    async def published() -> list[dict[str, Any]]:
        return await items_on(payments.core.redis, "webhook.checkouts")

    (item,) = await eventually(published)
    assert item["payload"] == {
        "paymentId": payment["id"],
        "reference": payment["gatewayReference"],
        "returnUrl": "https://shop.example/thanks",
    }


async def test_the_same_key_gives_the_same_payment_and_opens_one_page(payments: Payments) -> None:
    first = await payments.post("key")
    second = await payments.post("key")

    assert (first.status, second.status) == (201, 201)
    assert first.data == second.data
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(payments.gateway.orders) == 1
    assert await payments.sql("SELECT count(*) FROM payment") == 1


async def test_concurrent_requests_with_a_key_open_one_page(payments: Payments) -> None:
    replies = await asyncio.gather(*(payments.post("key") for _ in range(8)))

    assert {reply.status for reply in replies} <= {201, 409}
    assert len({reply.data["id"] for reply in replies if reply.status == 201}) == 1
    assert len(payments.gateway.orders) == 1


async def test_a_gateway_s_refusal_fails_the_payment_for_good(payments: Payments) -> None:
    payments.gateway.next_starts.append(refused("Store Credential Error"))
    reply = await payments.post("key")

    assert (reply.status, reply.error["code"]) == (422, "gateway_refused")
    assert "Store Credential Error" in reply.error["message"]
    payment = await payments.read(reply.error["details"]["paymentId"])
    assert (payment["state"], payment["nextCheckAt"]) == ("failed", None)
    assert payment["reason"] == "gateway_refused:Store Credential Error"
    assert (await payments.post("key")).status == 422, "and the key remembers it"
    assert len(payments.gateway.orders) == 1


async def test_a_silent_gateway_leaves_a_payment_that_is_looked_at_again(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    reply = await payments.post("key")

    assert (reply.status, reply.error["code"]) == (502, "gateway_unavailable")
    assert "Retry-After" in reply.headers
    payment = await payments.read(reply.error["details"]["paymentId"])
    assert (payment["state"], payment["checkoutUrl"]) == ("unknown", None)
    assert payment["reason"] == "checkout_unknown:timeout"
    assert payment["nextCheckAt"] is not None


async def test_a_repeated_request_opens_another_page_only_after_a_look_at_the_first(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    first = await payments.post("key")
    assert payments.gateway.questions == []

    second = await payments.post("key")

    assert second.status == 201
    assert second.data["id"] == first.error["details"]["paymentId"]
    references = [asked.reference for asked in payments.gateway.orders]
    assert payments.gateway.questions == [("look_up", references[0])]
    assert second.data["gatewayReference"] == references[1] != references[0]
    attempts = await payments.rows("SELECT number, state FROM attempt ORDER BY number")
    assert [tuple(row) for row in attempts] == [(1, "abandoned"), (2, "open")]


async def test_while_the_gateway_does_not_say_what_became_of_the_first_no_other_page_is_opened(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key")
    payments.gateway.is_silent = True

    assert (await payments.post("key")).status == 502
    assert len(payments.gateway.orders) == 1

    payments.gateway.is_silent = False
    assert (await payments.post("key")).status == 201
    assert len(payments.gateway.orders) == 2


async def test_a_first_page_that_was_paid_after_all_is_the_answer(payments: Payments) -> None:
    payments.gateway.next_starts.append(Unknown("timeout"))
    await payments.post("key")
    payments.gateway.charge(payments.gateway.orders[0].reference)

    reply = await payments.post("key")

    assert (reply.status, reply.data["state"]) == (201, "succeeded")
    assert len(payments.gateway.orders) == 1
    assert len(await payments.announcements()) == 1


async def test_a_request_that_died_before_the_gateway_answered_is_carried_on(
    payments: Payments,
) -> None:
    """As after SIGKILL: the payment and its attempt are committed, the key is leased."""
    payments.gateway.is_answering.clear()
    dying = asyncio.create_task(payments.post("key"))

    async def asked() -> bool:
        return bool(payments.gateway.orders)

    await eventually(asked)
    await payments.sql("UPDATE idempotency_key SET leased_until = clock_timestamp()")
    payments.gateway.is_answering = asyncio.Event()
    payments.gateway.is_answering.set()
    reply = await payments.post("key")
    dying.cancel()

    assert reply.status == 201
    assert await payments.sql("SELECT count(*) FROM payment") == 1
    assert payments.gateway.questions[0] == ("look_up", payments.gateway.orders[0].reference)


@pytest.mark.parametrize("outcome", ["opened", "refused", "unknown"])
@pytest.mark.parametrize("is_risky", [False, True])
async def test_whatever_the_gateway_says_of_the_page_a_payment_that_was_made_stays_made(
    new_database: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    outcome: str,
    *,
    is_risky: bool,
) -> None:
    async with running_payments(new_database, redis_url) as payments:
        gateway = payments.gateway
        start = gateway.start

        async def pay_first(asked: Any) -> Any:
            result = await start(asked)
            charge = gateway.charge(asked.reference, is_risky=is_risky)
            payment = {"gatewayReference": asked.reference}
            await payments.notify_of(payment, validation_id=charge.validation_id)
            return {
                "opened": result,
                "refused": refused("no"),
                "unknown": Unknown("timeout"),
            }[outcome]

        monkeypatch.setattr(gateway, "start", pay_first)
        reply = await payments.post("key")
        assert reply.status == {"opened": 201, "refused": 422, "unknown": 502}[outcome]
        payment_id = await payments.sql("SELECT id FROM payment")
        payment = await payments.read(payment_id)
        assert payment["state"] == ("on_hold" if is_risky else "succeeded")
        assert payment["reason"] == ("gateway_says_risky" if is_risky else None)
        assert len(await payments.announcements()) == (0 if is_risky else 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"gateway": "paypall"}, "gateway"),
        ({"gateway": None}, "gateway"),
        ({"amount": 0}, "amount"),
        ({"amount": 10.5}, "amount"),
        ({"amount": 10**15 + 1}, "amount"),
        ({"currency": "bdt"}, "currency"),
        ({"currency": "ZZZ"}, "currency"),
        ({"currency": "USD"}, "currency"),
        ({"customer": {}}, "customer.id"),
        ({"customer": {"id": "x" * 101}}, "customer.id"),
        ({"customer": {"id": "a\x00"}}, "customer.id"),
        ({"product": {"id": ""}}, "product.id"),
        ({"returnUrl": "ftp://shop.example/"}, "returnUrl"),
        ({"metadata": {"a": {"b": 1}}}, "metadata.a"),
        ({"metadata": {str(n): "x" for n in range(21)}}, "metadata"),
        ({"more": 1}, "more"),
    ],
)
async def test_a_wrong_order_is_refused_with_the_name_of_its_field(
    payments: Payments, change: dict[str, Any], field: str
) -> None:
    reply = await payments.post(**change)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert field in reply.error["details"]
    assert payments.gateway.orders == []
    assert await payments.sql("SELECT count(*) FROM payment") == 0


async def test_what_a_customer_may_leave_out_may_be_left_out(payments: Payments) -> None:
    payment = await payments.create(
        customer={"id": "c"}, product={"id": "p"}, returnUrl=None, metadata=None
    )

    assert (payment["returnUrl"], payment["metadata"]) == (None, {})
    assert payments.gateway.orders[0].product_name == "p"


async def test_reading_and_writing_need_their_scopes(payments: Payments) -> None:
    body = order()
    assert (await payments.api.call("POST", "/api/payments", body, key="reader")).status == 403
    assert (await payments.api.call("POST", "/api/payments", body, key=None)).status == 401
    assert (await payments.api.call("POST", "/api/payments", body, key="writer")).status == 201
    assert (await payments.api.call("GET", "/api/payments", key="reader")).status == 200


@pytest.mark.parametrize("payment_id", ["pay_1", "pay_01KE70EHG0JY1QREBD77BRA2Z7", "%00", "x" * 99])
async def test_a_payment_that_there_is_not_is_not_found(
    payments: Payments, payment_id: str
) -> None:
    reply = await payments.api.call("GET", f"/api/payments/{payment_id}")

    assert (reply.status, reply.error["code"]) == (404, "not_found")


async def test_while_redis_is_away_payments_are_created_and_announced_later(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(redis_url) as (proxy, url),
        running_payments(new_database, url) as payments,
    ):
        await proxy.cut()
        assert (await payments.post()).status == 201
        assert await payments.sql("SELECT count(*) FROM outbox") == 1


async def test_while_postgresql_is_away_the_caller_is_asked_to_come_again(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(new_database) as (proxy, url),
        running_payments(url, redis_url) as payments,
    ):
        await proxy.cut()
        reply = await payments.post("key")
        assert reply.status == 503
        assert "Retry-After" in reply.headers
        assert payments.gateway.orders == []
        await proxy.mend()

        async def is_created() -> bool:
            return (await payments.post("key")).status == 201

        await eventually(is_created)
        assert len(payments.gateway.orders) == 1
