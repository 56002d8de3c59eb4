"""Notices by GET, customers who come back from any gateway, and gateways that are off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import jwt
import orjson
import pytest
import structlog
from pydantic import SecretStr

from shared.clock import system_clock
from shared.contracts.webhook import DisputeNoticed
from shared.gateways.campay.keys import CampayKeys
from shared.gateways.stripe.keys import StripeKeys
from shared.identifiers import as_uuid, new_id
from tests.integration.webhook.world import PAYMENT_ID, Webhook, rejected, running_webhook
from tests.support.http_api import Reply
from tests.support.queues import items_on
from tests.support.stripe_answers import SECRET_KEY, WEBHOOK_SECRET, event, signature

KEY = "demo-campay-webhook-key-0123456789abcdef"
HANDLE = "0b6f2c1e-5a55-4c39-9d0e-3f1f7f0a1b2c"
SHOP = "https://shop.example/thanks?order=7"

DISPUTE = {
    "id": "du_1",
    "object": "dispute",
    "amount": 1_999,
    "currency": "usd",
    "metadata": {},
    "payment_intent": "pi_1",
}

CAMPAY = CampayKeys(campay_token=SecretStr("token"), campay_webhook_key=SecretStr(KEY))


@pytest.fixture
async def webhook(new_database: str, redis_url: str) -> AsyncIterator[Webhook]:
    async with running_webhook(new_database, redis_url, gateways={"campay": CAMPAY}) as webhook:
        yield webhook


def query(reference: str, **changes: Any) -> str:
    """Return the fields of a genuine callback of now."""
    now = int(system_clock().timestamp())
    claims = {"source": "CamPay", "iat": now, "exp": now + 300}
    fields = {
        "status": "SUCCESSFUL",
        "reference": HANDLE,
        "amount": "5000",
        "currency": "XAF",
        "operator": "MTN",
        "external_reference": as_uuid(reference),
        "phone_number": "237670000000",
        "signature": jwt.encode(claims, KEY, algorithm="HS256"),
    }
    return urlencode(fields | changes)


async def get(webhook: Webhook, path: str) -> Reply:
    return await webhook.api.call("GET", path, key=None)


async def test_a_notice_by_get_is_stored_with_its_query_as_its_body(webhook: Webhook) -> None:
    reference = new_id("att", system_clock())
    text = query(reference)
    reply = await get(webhook, f"/webhooks/campay?{text}")

    assert (reply.status, reply.raw) == (200, b"OK")
    (event,) = await webhook.events()
    assert (event["gateway"], event["claim"], event["body"]) == ("campay", "paid", text.encode())
    (item,) = await webhook.published()
    assert item["payload"]["reference"] == reference
    assert item["payload"]["validationId"] == HANDLE
    assert (item["payload"]["amount"], item["payload"]["currency"]) == (5_000, "XAF")


async def test_the_same_notice_by_get_and_by_post_is_one_event(webhook: Webhook) -> None:
    text = query(new_id("att", system_clock()))
    for _ in range(2):
        assert (await get(webhook, f"/webhooks/campay?{text}")).status == 200
    assert (await webhook.notify(text.encode(), "campay")).status == 200

    assert len(await webhook.events()) == 1


async def test_a_notice_by_get_without_a_proof_is_refused_and_its_query_is_shown_nowhere(
    webhook: Webhook,
) -> None:
    before = rejected("wrong_signature", "campay")
    text = query(new_id("att", system_clock()), signature="made.up.secret")
    with structlog.testing.capture_logs() as lines:
        reply = await get(webhook, f"/webhooks/campay?{text}")

    assert (reply.status, reply.error["code"]) == (401, "unauthorized")
    assert rejected("wrong_signature", "campay") == before + 1
    assert await webhook.events() == []
    for shown in (repr(lines), reply.raw.decode()):
        assert "237670000000" not in shown
        assert "secret" not in shown


@pytest.mark.parametrize(
    "text", ["", "?", "?%00", "?%ff=1", "?a=1&a=2", "?signature=" + "x" * 7000]
)
async def test_any_query_is_refused_without_an_error_of_ours(webhook: Webhook, text: str) -> None:
    assert (await get(webhook, f"/webhooks/campay{text}")).status in {400, 401}
    assert await webhook.events() == []


async def test_a_gateway_that_is_off_is_not_heard(webhook: Webhook) -> None:
    reply = await webhook.notify(b"a=1", "sslcommerz")

    assert (reply.status, reply.error["code"]) == (404, "not_found")


async def test_a_notice_about_a_dispute_is_a_message_of_its_own(
    new_database: str, redis_url: str
) -> None:
    keys = StripeKeys(
        stripe_secret_key=SecretStr(SECRET_KEY), stripe_webhook_secret=SecretStr(WEBHOOK_SECRET)
    )
    now = int(system_clock().timestamp())
    body = orjson.dumps(event("charge.dispute.closed", DISPUTE, created=now))
    headers = {"Content-Type": "application/json", "Stripe-Signature": signature(body, now)}
    async with running_webhook(new_database, redis_url, gateways={"stripe": keys}) as webhook:
        for _ in range(2):
            reply = await webhook.api.call(
                "POST", "/webhooks/stripe", body, key=None, headers=headers
            )
            assert reply.status == 200

        (stored,) = await webhook.events()
        assert (stored["claim"], stored["reference"]) == ("dispute", "pi_1")
        (row,) = await webhook.outbox_payloads()
        assert row["queue"] == "payments.disputes"
        message = DisputeNoticed.decode(orjson.loads(row["payload"]))
        assert (message.gateway, message.dispute, message.reference) == ("stripe", "du_1", "pi_1")
        assert (message.amount, message.currency) == (1_999, "USD")
        (item,) = await items_on(webhook.core.redis, "payments.disputes")
        assert item["name"] == DisputeNoticed.name


async def remember(webhook: Webhook, reference: str) -> None:
    await webhook.sql(
        "INSERT INTO return_address (reference, payment_id, return_url) VALUES ($1, $2, $3)",
        reference,
        PAYMENT_ID,
        SHOP,
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("result", ["success", "fail", "cancel", "back"])
@pytest.mark.parametrize("gateway", ["campay", "fapshi", "stripe"])
async def test_a_customer_comes_back_by_our_reference_and_is_believed_nothing(
    webhook: Webhook, gateway: str, result: str, method: str
) -> None:
    reference = new_id("att", system_clock())
    await remember(webhook, reference)
    claims = "?status=SUCCESSFUL&redirect_status=succeeded&returnUrl=https://evil.example"
    path = f"/return/{gateway}/{reference}/{result}{claims}"
    body = b"status=paid" if method == "POST" else None
    reply = await webhook.api.call(method, path, body, key=None)

    assert reply.status == 303
    assert reply.headers["Location"] == f"{SHOP}&paymentId={PAYMENT_ID}&result={result}"
    assert await webhook.events() == []
    assert await webhook.outbox_payloads() == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/return/campay/att_01KE70EHG0JY1QREBD77BRA2Z9/success", 200),
        ("/return/campay/https:%2F%2Fevil.example/success", 200),
        ("/return/campay/%00/success", 200),
        ("/return/campay/att_01KE70EHG0JY1QREBD77BRA2Z8/maybe", 404),
        ("/return/campay/success", 404),
    ],
)
async def test_an_unknown_reference_gets_a_neutral_page_and_never_a_redirect(
    webhook: Webhook, path: str, status: int
) -> None:
    await remember(webhook, "att_01KE70EHG0JY1QREBD77BRA2Z8")
    reply = await get(webhook, path)

    assert reply.status == status
    assert "Location" not in reply.headers
