"""Customers who come back from the gateway's page: sent on, and believed nothing."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from services.webhook.worker import worker_part
from shared.contracts.payments import CheckoutOpened
from shared.contracts.subscriptions import queues_of
from shared.messaging.publisher import Publisher
from tests.integration.webhook.world import (
    PAYMENT_ID,
    REFERENCE,
    Webhook,
    rejected,
    running_webhook,
    webhook_settings,
)
from tests.support.notices import encode, notice, notice_form
from tests.support.polling import eventually
from tests.support.queues import outgoing, receipts_for
from tests.support.tcp_proxy import proxied

SHOP = "https://shop.example/thanks?order=7&flag#top"


async def remember(webhook: Webhook, return_url: str = SHOP, reference: str = REFERENCE) -> None:
    await webhook.sql(
        "INSERT INTO return_address (reference, payment_id, return_url) VALUES ($1, $2, $3)",
        reference,
        PAYMENT_ID,
        return_url,
    )


@pytest.mark.parametrize("result", ["success", "fail", "cancel"])
async def test_a_customer_is_sent_to_the_address_given_at_creation(
    webhook: Webhook, result: str
) -> None:
    await remember(webhook)
    reply = await webhook.post(f"/return/sslcommerz/{result}", notice(REFERENCE))

    assert reply.status == 303
    parts = urlsplit(reply.headers["Location"])
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "shop.example", "/thanks")
    assert parts.fragment == "top"
    assert parts.query == f"order=7&flag&paymentId={PAYMENT_ID}&result={result}"


@pytest.mark.parametrize(
    "address",
    [
        "https://shop.example",
        "http://127.0.0.1:3000/a/b",
        "https://shop.example/?q=%FF%2f&r=a+b&s=%20",
        "https://shop.example:8443/%E0%A6%A6/?x=[1]&y={2}|^`",
        "https://[::1]:8443/",
        "https://SHOP.example/A%2FB;c=d?=&&",
    ],
)
async def test_an_address_is_used_as_it_was_given(webhook: Webhook, address: str) -> None:
    await remember(webhook, address)
    reply = await webhook.post("/return/sslcommerz/success", notice(REFERENCE))

    assert reply.status == 303
    added = f"paymentId={PAYMENT_ID}&result=success"
    assert reply.headers["Location"] == f"{address}{'&' if '?' in address else '?'}{added}"


async def test_a_genuine_return_is_a_hint_like_any_notice(webhook: Webhook) -> None:
    await remember(webhook)
    await webhook.post("/return/sslcommerz/success", notice(REFERENCE))

    (event,) = await webhook.events()
    assert event["source"] == "return"
    assert len(await webhook.outbox_payloads()) == 1
    await webhook.notify(notice(REFERENCE))
    assert len(await webhook.events()) == 1, "the notice itself says nothing new"


async def test_a_forged_return_sends_the_customer_on_and_stores_nothing(webhook: Webhook) -> None:
    await remember(webhook)
    before = rejected("wrong_signature")
    form = notice_form(REFERENCE) | {"currency_amount": "0.01"}
    reply = await webhook.post("/return/sslcommerz/success", encode(form))

    assert reply.status == 303
    assert reply.headers["Location"].startswith("https://shop.example/")
    assert await webhook.events() == []
    assert await webhook.outbox_payloads() == []
    assert rejected("wrong_signature") == before + 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"tran_id=att_01KE70EHG0JY1QREBD77BRA2Z9",
        b"tran_id=https://evil.example/",
        b"tran_id=%00",
        b"tran_id=%ff",
        b"\xff",
        b"tran_id=a&tran_id=b",
        b"returnUrl=https://evil.example/&redirect=https://evil.example/",
    ],
)
async def test_an_unknown_reference_gets_a_neutral_page_and_never_a_redirect(
    webhook: Webhook, body: bytes
) -> None:
    await remember(webhook)
    reply = await webhook.post("/return/sslcommerz/success", body)

    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Location" not in reply.headers
    assert b"evil" not in reply.raw


async def test_a_customer_who_comes_by_a_link_is_sent_on_too(webhook: Webhook) -> None:
    await remember(webhook)
    reply = await webhook.api.call(
        "GET", f"/return/sslcommerz/cancel?tran_id={REFERENCE}&x=%00", key=None
    )

    assert reply.status == 303
    query = dict(parse_qsl(urlsplit(reply.headers["Location"]).query))
    assert (query["paymentId"], query["result"]) == (PAYMENT_ID, "cancel")


async def test_a_result_that_there_is_not_is_not_found(webhook: Webhook) -> None:
    reply = await webhook.post("/return/sslcommerz/maybe", notice(REFERENCE))

    assert (reply.status, reply.error["code"]) == (404, "not_found")


async def test_an_address_arrives_by_message_and_the_first_one_counts(
    new_database: str, redis_url: str
) -> None:
    (queue,) = queues_of("webhook") - {"webhook.receipts"}
    async with (
        running_webhook(new_database, redis_url) as webhook,
        worker_part(webhook_settings(new_database, redis_url)),
    ):
        payments = Publisher(webhook.core.redis, "payments")
        for number, address in ((1, SHOP), (2, "https://evil.example/"), (1, SHOP)):
            message = CheckoutOpened(payment_id=PAYMENT_ID, reference=REFERENCE, return_url=address)
            item = outgoing(number, message)
            assert item.queue == queue
            await payments.send([item])

        async def confirmed() -> bool:
            return {1, 2} <= set(await receipts_for(webhook.core.redis, "payments"))

        await eventually(confirmed)
        reply = await webhook.post("/return/sslcommerz/success", notice(REFERENCE))
        assert reply.headers["Location"].startswith("https://shop.example/")


async def test_while_postgresql_is_away_a_customer_is_asked_to_come_again(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(new_database) as (proxy, url),
        running_webhook(url, redis_url, direct_database_url=new_database) as webhook,
    ):
        await proxy.cut()
        reply = await webhook.post("/return/sslcommerz/success", notice(REFERENCE))
        assert reply.status == 503
        assert "Retry-After" in reply.headers
