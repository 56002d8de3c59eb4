"""Notices over HTTP: verified, stored once, acknowledged after the commit, announced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import date

import pytest

from services.webhook import store
from services.webhook.routes import NOTICE_BYTES_MAX
from services.webhook.store import InboundEvent
from shared.clock import system_clock
from shared.gateways.sslcommerz.webhooks import SslcommerzNotices
from shared.identifiers import new_id
from shared.messaging import relay
from tests.integration.webhook.world import REFERENCE, Webhook, rejected, running_webhook
from tests.support.notices import encode, notice, notice_form
from tests.support.polling import DEADLINE_SECONDS, eventually
from tests.support.settings import STORE_ID, STORE_PASSWORD
from tests.support.tcp_proxy import proxied


async def test_a_notice_is_stored_with_its_raw_body_and_announced_to_payments(
    webhook: Webhook,
) -> None:
    body = notice(REFERENCE)
    reply = await webhook.notify(body)

    assert (reply.status, reply.raw) == (200, b"OK")
    (event,) = await webhook.events()
    assert bytes(event["body"]) == body
    assert (event["source"], event["claim"]) == ("notice", "paid")
    assert event["event_day"] == date(2026, 1, 5), "the day inside the reference"

    async def published() -> list[dict[str, object]]:
        return await webhook.published()

    (item,) = await eventually(published)
    assert item["payload"] == {
        "gateway": "sslcommerz",
        "reference": REFERENCE,
        "claim": "paid",
        "validationId": "2601051200001abcdefghijk",
        "amount": 115_000,
        "currency": "BDT",
        "receivedAt": event["received_at"].isoformat().replace("+00:00", "Z"),
    }
    (row,) = await webhook.outbox_payloads()
    assert (row["id"], row["queue"]) == (item["id"], "payments.medium")


@pytest.mark.parametrize(
    ("amount", "queue"),
    [
        ("2000.01", "payments.high"),
        ("2000.00", "payments.medium"),
        ("1000.00", "payments.medium"),
        ("999.99", "payments.normal"),
        ("nonsense", "payments.normal"),
    ],
)
async def test_the_amount_decides_the_queue(webhook: Webhook, amount: str, queue: str) -> None:
    assert (await webhook.notify(notice(REFERENCE, currency_amount=amount))).status == 200

    assert await webhook.sql("SELECT queue FROM outbox") == queue


async def test_the_same_notice_again_is_acknowledged_and_changes_nothing(webhook: Webhook) -> None:
    for _ in range(3):
        assert (await webhook.notify(notice(REFERENCE))).status == 200

    assert len(await webhook.events()) == 1
    assert len(await webhook.outbox_payloads()) == 1


async def test_the_same_notice_many_times_at_once_is_one_event(webhook: Webhook) -> None:
    """They share batches with one another and with other notices."""
    bodies = [notice(REFERENCE)] * 30 + [
        notice(new_id("att", system_clock()), val_id=f"val_{number}") for number in range(30)
    ]
    replies = await asyncio.gather(*(webhook.notify(body) for body in bodies))

    assert {reply.status for reply in replies} == {200}
    assert len(await webhook.events()) == 31
    assert len(await webhook.outbox_payloads()) == 31


async def test_different_notices_of_a_payment_are_different_events(webhook: Webhook) -> None:
    for change in ({"status": "FAILED", "val_id": ""}, {}, {"val_id": "another"}):
        assert (await webhook.notify(notice(REFERENCE, **change))).status == 200

    claims = [event["claim"] for event in await webhook.events()]
    assert sorted(claims) == ["failed", "paid", "paid"]


async def test_two_writers_of_the_same_events_in_opposite_orders_do_not_block_each_other(
    webhook: Webhook,
) -> None:
    """As two processes do that get a gateway's repeats in different orders."""
    reader = SslcommerzNotices(STORE_ID, [STORE_PASSWORD])
    started = time.monotonic()
    for _ in range(10):
        bodies = [notice(new_id("att", system_clock())) for _ in range(200)]
        events = [
            InboundEvent("sslcommerz", reader.read({}, body), "notice", system_clock(), body, None)
            for body in bodies
        ]

        async def insert(ordered: list[InboundEvent]) -> int:
            async with webhook.core.database.connection() as connection:
                return len(await store.insert_events(connection, ordered))

        counts = await asyncio.gather(insert(events), insert(events[::-1]))
        assert sum(counts) == 200
    assert time.monotonic() - started < 5


async def test_an_unknown_gateway_is_not_there(webhook: Webhook) -> None:
    before = rejected("unknown_gateway", "unknown")
    reply = await webhook.notify(notice(REFERENCE), gateway="paypall")

    assert (reply.status, reply.error["code"]) == (404, "not_found")
    assert rejected("unknown_gateway", "unknown") == before + 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"currency_amount": "1.00"}, "wrong_signature"),
        ({"verify_sign": "0" * 32}, "wrong_signature"),
        ({"verify_sign_sha2": "0" * 64}, "wrong_signature"),
        ({"verify_key": ""}, "not_signed"),
        ({"verify_sign": ""}, "not_signed"),
        ({"verify_key": "status,tran_id"}, "too_little_signed"),
        ({"verify_key": "status,tran_id,nothing"}, "signed_field_missing"),
        ({"store_id": "another"}, "other_store"),
    ],
)
async def test_a_notice_without_a_valid_proof_is_refused_counted_and_never_logged(
    webhook: Webhook,
    change: dict[str, str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = rejected(reason)
    form = notice_form(REFERENCE, value_b="the customer's secret") | change
    reply = await webhook.notify(encode(form))

    assert (reply.status, reply.error["code"]) == (401, "unauthorized")
    assert rejected(reason) == before + 1
    assert await webhook.events() == []
    said = "".join(capsys.readouterr())
    assert "secret" not in said
    assert form["verify_key"][:20] not in said or not form["verify_key"]
    assert REFERENCE not in reply.raw.decode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff\xfe\x00", "not_a_form"),
        (b"tran_id=%00", "not_a_form"),
        (b"tran_id=%ff%fe", "not_a_form"),
        (b"tran_id=1&tran_id=2", "field_given_twice"),
        (b"&".join(b"f%d=1" % number for number in range(200)), "too_many_fields"),
    ],
)
async def test_what_cannot_be_read_is_refused(webhook: Webhook, body: bytes, reason: str) -> None:
    before = rejected(reason)
    reply = await webhook.notify(body)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert rejected(reason) == before + 1


async def test_a_genuine_notice_without_a_reference_cannot_be_read(webhook: Webhook) -> None:
    assert (await webhook.notify(notice(""))).status == 400


async def test_a_genuine_notice_with_a_foreign_reference_is_kept_all_the_same(
    webhook: Webhook,
) -> None:
    """Another system may share the store; payments says that it is none of ours."""
    for reference, day in (("INV-1", date(2026, 1, 5)), ("x" * 5_000, date(2026, 1, 5))):
        assert (await webhook.notify(notice(reference))).status == 200
        (found,) = (e for e in await webhook.events() if e["event_key"].startswith(reference[:5]))
        assert found["event_day"] == day
    assert (await webhook.notify(notice("INV-2", tran_date="not a date"))).status == 200
    assert len(await webhook.events()) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"val_id": "v" * 50_000},
        {"status": "দাম"},
        {"status": "s" * 3_000},
        {"currency_amount": "9" * 30, "currency_type": "XXX"},
        {"tran_date": "9999-12-31 23:59:59"},
    ],
)
async def test_a_genuine_notice_with_odd_values_is_stored(
    webhook: Webhook, change: dict[str, str]
) -> None:
    assert (await webhook.notify(notice(REFERENCE, **change))).status == 200
    assert len(await webhook.events()) == 1


async def test_a_notice_may_be_as_large_as_the_limit_and_no_larger(webhook: Webhook) -> None:
    padding = NOTICE_BYTES_MAX - len(notice(REFERENCE, value_b="x"))
    at_limit = notice(REFERENCE, value_b="x" * (padding + 1))
    assert len(at_limit) == NOTICE_BYTES_MAX

    over = await webhook.notify(at_limit + b"x")
    assert (over.status, over.error["code"]) == (413, "too_large")
    assert await webhook.events() == []
    assert (await webhook.notify(at_limit)).status == 200


async def test_a_gateway_that_does_not_announce_the_length_is_heard_up_to_the_limit(
    webhook: Webhook,
) -> None:
    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1_000):
            yield body[start : start + 1_000]

    assert (await webhook.notify(pieces(notice(REFERENCE)))).status == 200
    assert (await webhook.notify(pieces(b"x" * (NOTICE_BYTES_MAX + 1)))).status == 413


async def test_only_post_is_heard(webhook: Webhook) -> None:
    reply = await webhook.api.call("GET", "/webhooks/sslcommerz", key=None)

    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


async def test_while_postgresql_is_away_the_gateway_is_asked_to_come_again(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(new_database) as (proxy, url),
        running_webhook(url, redis_url, direct_database_url=new_database) as webhook,
    ):
        await proxy.cut()
        refused = await webhook.notify(notice(REFERENCE))
        assert (refused.status, refused.error["code"]) == (503, "temporarily_unavailable")
        assert int(refused.headers["Retry-After"]) > 0
        assert await webhook.events() == []
        await proxy.mend()

        async def is_acknowledged() -> bool:
            return (await webhook.notify(notice(REFERENCE))).status == 200

        await eventually(is_acknowledged)
        assert len(await webhook.events()) == 1


async def test_an_acknowledged_notice_is_committed(new_database: str, redis_url: str) -> None:
    """Cut PostgreSQL off under a stream of notices: each one that got a 200 is there."""
    async with (
        proxied(new_database) as (proxy, url),
        running_webhook(url, redis_url, direct_database_url=new_database) as webhook,
    ):
        references = [new_id("att", system_clock()) for _ in range(120)]

        async def send(number: int) -> int:
            if number == 60:
                await proxy.cut()
                await proxy.mend()
            return (await webhook.notify(notice(references[number]))).status

        statuses = await asyncio.gather(*(send(number) for number in range(120)))
        stored = {event["event_key"].partition(":")[0] for event in await webhook.events()}

    acknowledged = {
        reference for reference, status in zip(references, statuses, strict=True) if status == 200
    }
    assert acknowledged <= stored
    assert set(statuses) <= {200, 503}


async def test_while_redis_is_away_notices_are_acknowledged_and_announced_later(
    new_database: str, redis_url: str
) -> None:
    async with (
        proxied(redis_url) as (proxy, url),
        running_webhook(new_database, url, direct_redis_url=redis_url) as webhook,
    ):
        await proxy.cut()
        for number in range(5):
            reply = await webhook.notify(notice(REFERENCE, val_id=f"val_{number}"))
            assert reply.status == 200
        assert await webhook.published() == []
        await proxy.mend()

        await webhook.sql("UPDATE outbox SET send_again_at = clock_timestamp()")
        await relay.resend_due(webhook.core.database, webhook.core.publisher)
        items = await webhook.published()
        assert {item["payload"]["validationId"] for item in items} == {
            f"val_{number}" for number in range(5)
        }


async def test_a_sender_that_waits_for_100_continue_is_told_to_go_on(webhook: Webhook) -> None:
    body = notice(REFERENCE)
    host = webhook.api.url.removeprefix("http://")
    head = (
        f"POST /webhooks/sslcommerz HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(*host.split(":"))
    async with asyncio.timeout(DEADLINE_SECONDS):
        writer.write(head.encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")
