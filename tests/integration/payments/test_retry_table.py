"""Every row of the retry table, through API, database, worker and gateway: how often, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.retry_policy import Decision, Failure, RetryAfter
from shared.gateways.interface import Declined, FailureKind, Outcome, Unknown
from tests.integration.payments.retrying import (
    LOST,
    PROMPT,
    PROMPTED,
    declined,
    paid,
    process,
    processed,
    retry_of,
    wait_until,
)
from tests.integration.payments.world import Payments

K = FailureKind
MINUTE, HOUR = 60.0, 3_600.0

#: What the gateway says each time, and the waits in seconds before the tries after the first.
ROWS: dict[str, tuple[Outcome, list[float]]] = {
    "card_declined": (declined(K.CARD_DECLINED), []),
    "network_error": (declined(K.NETWORK_ERROR), [0, 2, 4]),
    "network_error without an answer": (LOST, [0, 2, 4]),
    "insufficient_funds": (declined(K.INSUFFICIENT_FUNDS), [24 * HOUR, 24 * HOUR]),
    "processing_error": (declined(K.PROCESSING_ERROR), [MINUTE, 2 * MINUTE, 4 * MINUTE]),
    "authentication_failed": (declined(K.AUTHENTICATION_FAILED), [5 * MINUTE, 5 * MINUTE]),
    "rate_limit_exceeded": (declined(K.RATE_LIMIT_EXCEEDED), [30 * MINUTE] * 3),
    "rate_limit_exceeded with a wish of the gateway": (
        declined(K.RATE_LIMIT_EXCEEDED, retry_after_seconds=90.0),
        [90] * 3,
    ),
    "service_unavailable": (declined(K.SERVICE_UNAVAILABLE), [MINUTE, 2 * MINUTE, 4 * MINUTE]),
    "service_unavailable without an answer": (
        Unknown("http_503"),
        [MINUTE, 2 * MINUTE, 4 * MINUTE],
    ),
    "unknown code": (declined(K.UNKNOWN_CODE), [5 * MINUTE, 5 * MINUTE]),
    "cancelled by the customer": (declined(K.CANCELLED), []),
    "expired": (declined(K.EXPIRED), []),
}


async def waits_of(payments: Payments, payment: dict[str, Any]) -> list[float]:
    """Make retries when they are due until there are no more; return the waits before each try."""
    waits: list[float] = []
    waited = timedelta(0)
    for _ in range(20):
        retry = await retry_of(payments, payment)
        if retry["state"] != "scheduled":
            return waits
        waited += wait_until(payments, retry)
        tries = len(payments.gateway.orders)
        assert await payments.retry() == 1
        if len(payments.gateway.orders) > tries:
            waits.append(waited.total_seconds())
            waited = timedelta(0)
    raise AssertionError("it is tried for ever")


@pytest.mark.parametrize(("outcome", "waits"), ROWS.values(), ids=ROWS)
async def test_a_row_of_the_table_is_what_happens(
    payments: Payments, outcome: Outcome, waits: list[float]
) -> None:
    payments.gateway.next_starts += [outcome] * 10
    payment = await processed(payments)

    assert await waits_of(payments, payment) == waits

    retry, ended = await retry_of(payments, payment), await payments.read(payment["id"])
    assert (retry["state"], retry["attemptsMade"]) == ("exhausted", len(waits))
    assert retry["customerAdvice"] is not None
    kind = outcome.kind if isinstance(outcome, Declined) else K(retry["kind"])
    assert ended["state"] == ("cancelled" if kind is K.CANCELLED else "failed")
    assert ended["reason"].startswith(kind)
    references = [order.reference for order in payments.gateway.orders]
    assert len(set(references)) == len(references) == len(waits) + 1
    assert [each["gatewayReference"] for each in retry["attempts"]] == references[1:]


async def test_a_configuration_of_ours_that_is_wrong_is_said_at_once_and_not_retried(
    payments: Payments,
) -> None:
    payments.gateway.next_starts.append(declined(K.CONFIGURATION))
    reply = await process(payments)

    assert (reply.status, reply.error["code"]) == (422, "gateway_refused")
    payment = {"id": reply.error["details"]["paymentId"]}
    assert (await retry_of(payments, payment))["state"] == "exhausted"


@pytest.mark.parametrize("kind", [K.NETWORK_ERROR, K.PROCESSING_ERROR, K.SERVICE_UNAVAILABLE])
async def test_a_prompt_that_failed_for_technical_reasons_has_its_own_row(
    payments: Payments, kind: FailureKind
) -> None:
    """The failure is found by a look, because a phone answers later than the call."""
    payments.gateway.next_starts += [PROMPTED] * 10
    payment = await processed(payments, method=PROMPT)
    waits = []
    for _ in range(4):
        payments.clock.advance(3_600)
        payments.gateway.next_look_ups.append(declined(kind))
        assert await payments.look() == 1
        retry = await retry_of(payments, payment)
        if retry["state"] == "scheduled":
            waits.append(wait_until(payments, retry).total_seconds())
            assert await payments.retry() == 1

    assert waits == [5, 10, 20]
    assert (await retry_of(payments, payment))["state"] == "exhausted"
    assert (await payments.read(payment["id"]))["state"] == "failed"


async def test_a_prompt_whose_customer_has_no_money_is_tried_again_a_day_later(
    payments: Payments,
) -> None:
    payments.gateway.next_starts += [PROMPTED, PROMPTED]
    payment = await processed(payments, method=PROMPT)
    payments.clock.advance(5)
    payments.gateway.next_look_ups.append(declined(K.INSUFFICIENT_FUNDS))
    await payments.look()
    waiting, retry = await payments.read(payment["id"]), await retry_of(payments, payment)

    assert (waiting["state"], waiting["nextCheckAt"]) == ("retry_scheduled", None)
    assert wait_until(payments, retry) == timedelta(hours=24)
    await payments.retry()
    prompted = await payments.read(payment["id"])
    assert prompted["state"] == "pending"
    # The customer has as long as for the first prompt, although that was a day ago.
    assert prompted["expiresAt"] > prompted["updatedAt"]
    payments.gateway.charge(prompted["gatewayReference"])
    payments.clock.advance(5)
    await payments.look()
    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    assert (await retry_of(payments, payment))["state"] == "succeeded"


async def test_a_retry_that_succeeds_is_announced_with_the_payment(payments: Payments) -> None:
    payments.gateway.next_starts += [declined(K.INSUFFICIENT_FUNDS), paid()]
    payment = await processed(payments)
    assert (payment["state"], payment["reason"]) == (
        "retry_scheduled",
        "insufficient_funds:code_of_insufficient_funds",
    )
    payments.clock.advance(24 * HOUR - 1)
    assert await payments.retry() == 0
    payments.clock.advance(1)
    assert await payments.retry() == 1

    assert (await payments.read(payment["id"]))["state"] == "succeeded"
    retry = await retry_of(payments, payment)
    assert (retry["state"], retry["attemptsMade"], retry["customerAdvice"]) == (
        "succeeded",
        1,
        None,
    )
    assert len(await payments.announcements()) == 1
    assert await payments.story(payment) == [
        *("created", "retry_scheduled", "retry_begun", "confirmed"),
    ]


async def test_each_kind_of_failure_counts_for_itself(payments: Payments) -> None:
    funds, technical = declined(K.INSUFFICIENT_FUNDS), declined(K.PROCESSING_ERROR)
    payments.gateway.next_starts += [technical, funds, technical, funds, technical, funds]
    payment = await processed(payments)

    assert await waits_of(payments, payment) == [
        *(MINUTE, 24 * HOUR, 2 * MINUTE, 24 * HOUR, 4 * MINUTE),
    ]
    assert (await retry_of(payments, payment))["kind"] == K.INSUFFICIENT_FUNDS


async def test_a_card_is_tried_eight_times_at_most_whatever_the_reasons(
    payments: Payments,
) -> None:
    kinds = [K.NETWORK_ERROR, K.PROCESSING_ERROR, K.SERVICE_UNAVAILABLE, K.RATE_LIMIT_EXCEEDED]
    payments.gateway.next_starts += [declined(kind) for kind in kinds * 3]
    payment = await processed(payments)
    await waits_of(payments, payment)

    assert len(payments.gateway.orders) == 8
    assert (await retry_of(payments, payment))["state"] == "exhausted"


async def test_a_plug_in_has_the_last_word_and_one_that_fails_changes_nothing(
    payments: Payments,
) -> None:
    def plug_in(failure: Failure, _planned: Decision) -> Decision:
        if failure.failures_of_kind == 1:
            return RetryAfter(timedelta(seconds=33))
        raise RuntimeError("a bug of the installation")

    planner = payments.runtime.retries
    planner.policy = replace(planner.policy, plugin=plug_in)
    payments.gateway.next_starts += [declined(K.UNKNOWN_CODE)] * 4
    payment = await processed(payments)

    assert await waits_of(payments, payment) == [33, 5 * MINUTE]


async def test_a_payment_without_automatic_retries_fails_as_ever(payments: Payments) -> None:
    payments.gateway.next_starts.append(declined(K.PROCESSING_ERROR))
    payment = (await payments.post(method={"type": "card", "paymentMethod": "pm_1"})).data

    assert (payment["state"], payment["nextCheckAt"]) == ("failed", None)
    reply = await payments.api.call("GET", f"/api/payments/retry/{payment['id']}")
    assert reply.status == 404
    assert await payments.sql("SELECT count(*) FROM retry") == 0
