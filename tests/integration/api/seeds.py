"""Something of everything that has an id, so that a request may name what exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import asyncpg

from shared.clock import system_clock
from shared.identifiers import new_id
from tests.support.http_api import Api

#: What may stand where: by the name of a parameter, as Schemathesis calls it, or by the name of an
#: operation and of a parameter of that operation alone.
Known: TypeAlias = Mapping[str | tuple[str, str], Sequence[str]]

#: Of what actions use up there must be enough.
MANY: Final = 20

CARD_PAYMENT: Final[Mapping[str, Any]] = {
    "gateway": "stripe",
    "method": {"type": "card", "paymentMethod": "pm_card_visa"},
    "amount": 50_000,
    "currency": "EUR",
    "customer": {"id": "cus_1"},
    "product": {"id": "course_1"},
}
DECLINED_PAYMENT: Final = {
    **CARD_PAYMENT,
    "method": {"type": "card", "paymentMethod": "pm_card_chargeDeclinedInsufficientFunds"},
}
CHECKOUT: Final = {
    "gateway": "sslcommerz",
    "amount": 150_000,
    "currency": "BDT",
    "customer": {"id": "cus_2"},
    "product": {"id": "course_2"},
}
STORED_CARD: Final = {
    "gateway": "stripe",
    "customer": {"id": "cus_1"},
    "method": {"type": "card", "paymentMethod": "pm_card_visa", "gatewayCustomer": "cus_1"},
}
PROFILE: Final = {"limits": {"maxConcurrentPayments": 40}, "reason": "a sale"}

_INSERT_DEAD_LETTER: Final = """
    INSERT INTO dead_letter (queue, sender, message_id, message_name, payload, reason)
    SELECT 'payments.normal', 'webhook', number, 'webhook.notice_received.v1', '{}', 'unknown'
      FROM generate_series(1, $1) AS number
 RETURNING id
"""

_INSERT_PARKED: Final = """
    INSERT INTO outbox (queue, message_name, payload, sends, parked_at)
    SELECT 'enrollment.grants', 'payments.payment_succeeded.v1', '{}', 20, clock_timestamp()
      FROM generate_series(1, $1) AS number
 RETURNING id
"""

#: A refund of which the gateway says nothing, step by step: it must be asked for first.
_INSERT_REFUND: Final = """
    INSERT INTO refund (
               id, payment_id, gateway, amount, currency, state, reason, requested_by,
               next_look_at, created_at, updated_at)
    VALUES ($1, $2, 'stripe', 100, 'EUR', 'requested', 'as agreed', 'admin', $3, $3, $3)
"""
_FORGET_REFUND: Final = """
    UPDATE refund SET state = 'unknown', sends = 1, sent_at = $2 WHERE id = $1
"""

_PARK_RETRIES: Final = """
    UPDATE retry SET state = 'parked' WHERE payment_id = ANY($1)
"""

_INSERT_DISPUTE: Final = """
    INSERT INTO dispute (
               id, payment_id, gateway, handle, amount, currency, state, reason, next_look_at,
               opened_at, created_at, updated_at)
    VALUES ($1, $2, 'stripe', 'dp_1', 50000, 'EUR', 'inquiry', 'fraudulent', $3, $3, $3, $3)
"""


async def plant(api: Api, database_url: str) -> Known:
    """Make it, through the API where that is possible."""

    async def made(path: str, body: Mapping[str, Any], method: str = "POST") -> Any:
        return (await api.call(method, path, dict(body))).data

    paid = [await made("/api/payments", CARD_PAYMENT) for _ in range(3)]
    declined = [await made("/api/payments", DECLINED_PAYMENT) for _ in range(3)]
    retried = [await made("/api/payments/process", DECLINED_PAYMENT) for _ in range(MANY)]
    waiting = [await made("/api/payments", CHECKOUT) for _ in range(2 * MANY)]
    held = waiting[:MANY]
    for each in held:
        await made(f"/api/payments/{each['id']}/hold", {"reason": "to be looked at"})
    examples = (paid[0], declined[0], retried[0], waiting[0])
    assert [each["state"] for each in examples] == [
        "succeeded",
        "failed",
        "retry_scheduled",
        "pending",
    ]
    methods = [await made("/api/payment-methods", STORED_CARD) for _ in range(3)]
    part = {"amount": 100, "reason": "as agreed"}
    refund = await made(f"/api/payments/{paid[0]['id']}/refunds", part)
    profiles = [f"sale-{number}" for number in range(MANY)]
    for name in ("rush", *profiles):
        await made(f"/api/operations/profiles/{name}", PROFILE, "PUT")
    check = await made(
        "/api/operations/settlement-checks",
        {"gateway": "stripe", "day": "2026-01-31", "reason": "monthly"},
    )
    now = system_clock()
    dispute_id, refund_ids = new_id("dsp", now), [new_id("ref", now) for _ in range(MANY)]
    connection = await asyncpg.connect(database_url, server_settings={"search_path": "payments"})
    try:
        letters = await connection.fetch(_INSERT_DEAD_LETTER, MANY)
        parked = await connection.fetch(_INSERT_PARKED, MANY)
        for refund_id in refund_ids:
            await connection.execute(_INSERT_REFUND, refund_id, paid[2]["id"], now)
            await connection.execute(_FORGET_REFUND, refund_id, now)
        parked_retries = [each["id"] for each in retried[: MANY // 2]]
        await connection.execute(_PARK_RETRIES, parked_retries)
        await connection.execute(_INSERT_DISPUTE, dispute_id, paid[1]["id"], now)
    finally:
        await connection.close()
    # One operation resumes all of them, so that there may be none left when these two are tried.
    message = f"/api/payments/parked-messages/msg_{parked[0]['id']}"
    await made(message, {}, "GET")
    await made(f"{message}/resume", {"reason": "the service is back"})
    scheduled_retries = [each["id"] for each in retried[MANY // 2 :]]
    return {
        "path.paymentId": [each["id"] for each in (*paid, *declined, *waiting[MANY - 3 :])],
        ("holds.release", "path.paymentId"): [each["id"] for each in held],
        ("holds.hold", "path.paymentId"): [each["id"] for each in waiting[MANY:]],
        ("refunds.create", "path.paymentId"): [each["id"] for each in paid],
        "path.transactionId": scheduled_retries,
        ("retries.ask", "path.transactionId"): [each["id"] for each in declined],
        ("retries.resume", "path.transactionId"): parked_retries,
        "path.paymentMethodId": [each["id"] for each in methods],
        "path.userId": [CARD_PAYMENT["customer"]["id"]],
        "path.refundId": [refund["id"], *refund_ids],
        ("refunds.decide", "path.refundId"): refund_ids,
        "path.disputeId": [dispute_id],
        "path.checkId": [check["id"]],
        "path.name": ["rush", "normal"],
        ("profiles.delete", "path.name"): profiles,
        "path.gateway": ["stripe", "sslcommerz"],
        "path.deadLetterId": [f"dlt_{row['id']}" for row in letters],
        "path.messageId": [f"msg_{row['id']}" for row in parked[1:]],
        "body.gateway": ["stripe", "sslcommerz"],
    }
