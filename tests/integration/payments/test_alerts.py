"""Alerts are raised once per episode, by one of many workers, and kept as history."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.payments.handlers import alerts
from services.payments.store import alerts as alert_store
from shared.contracts.base import Message
from shared.contracts.payments import AlertCleared, AlertRaised
from shared.contracts.subscriptions import SUBSCRIPTIONS, Subscription
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing
from tests.integration.payments.world import Payments
from tests.support.messages import notice_received
from tests.support.queues import key_of

QUEUE = "payments.normal"


@pytest.fixture(autouse=True)
def _somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a service subscribe to the facts, so that they are sent."""
    listening = Subscription("webhook", ("webhook.checkouts",), lambda _fact: "webhook.checkouts")
    table: Mapping[type[Message], tuple[Subscription, ...]] = {
        **SUBSCRIPTIONS,
        AlertRaised: (listening,),
        AlertCleared: (listening,),
    }
    monkeypatch.setattr(outbox, "SUBSCRIPTIONS", MappingProxyType(table))


async def queue(payments: Payments, count: int) -> None:
    """Let so many messages wait, and no others."""
    await payments.core.redis.delete(key_of(QUEUE))
    notice = notice_received("att_1")
    await payments.core.publisher.send(
        [
            Outgoing(number, QUEUE, notice.name, notice.encode(), None)
            for number in range(1, count + 1)
        ]
    )


async def history(payments: Payments, query: str = "") -> list[dict[str, Any]]:
    reply = await payments.api.call("GET", f"/api/operations/alerts{query}", key="reader")
    found: list[dict[str, Any]] = reply.data["alerts"]
    return found


def counted(alert: str, event: str) -> float:
    labels = {"alert": alert, "event": event}
    return REGISTRY.get_sample_value("payments_alerts_total", labels) or 0.0


async def test_a_long_queue_is_told_once_and_once_that_it_is_over(payments: Payments) -> None:
    before = counted("queue_length", "raised"), counted("queue_length", "cleared")
    await queue(payments, 100)
    await alerts.look(payments.runtime)
    assert await history(payments) == []

    for count in (101, 250, 120):
        await queue(payments, count)
        await alerts.look(payments.runtime)
        payments.clock.advance(5)
    (episode,) = await history(payments, "?open=true")
    assert episode["alert"] == "queue_length"
    assert (episode["threshold"], episode["raisedValue"]) == (100, 101)
    assert (episode["worstValue"], episode["lastValue"]) == (250, 120)
    (raised,) = await payments.facts(AlertRaised)
    assert (raised["alert"], raised["value"], raised["alertId"]) == (
        "queue_length",
        101,
        episode["id"],
    )

    await queue(payments, 0)
    await alerts.look(payments.runtime)
    assert await payments.facts(AlertCleared) == []
    payments.clock.advance(60)
    for _ in range(2):
        await alerts.look(payments.runtime)

    (cleared,) = await payments.facts(AlertCleared)
    assert (cleared["alertId"], cleared["worstValue"]) == (episode["id"], 250)
    assert await history(payments, "?open=true") == []
    (over,) = await history(payments, "?open=false&alert=queue_length")
    assert over["clearedAt"] is not None
    assert (counted("queue_length", "raised"), counted("queue_length", "cleared")) == (
        before[0] + 1,
        before[1] + 1,
    )


async def test_the_next_episode_is_another_one(payments: Payments) -> None:
    for _ in range(2):
        await queue(payments, 200)
        await alerts.look(payments.runtime)
        await queue(payments, 0)
        await alerts.look(payments.runtime)
        payments.clock.advance(60)
        await alerts.look(payments.runtime)

    found = await history(payments)
    assert len({episode["id"] for episode in found}) == 2
    assert len(await payments.facts(AlertRaised)) == 2


async def test_of_many_workers_that_see_it_one_tells(payments: Payments) -> None:
    await queue(payments, 200)

    await asyncio.gather(*(alerts.look(payments.runtime) for _ in range(10)))

    assert len(await history(payments)) == 1
    assert len(await payments.facts(AlertRaised)) == 1


async def test_of_many_workers_one_measures_at_a_time(payments: Payments) -> None:
    async def take() -> bool:
        async with payments.core.database.connection() as connection:
            return await alert_store.take_turn(connection, 60)

    turns = await asyncio.gather(*(take() for _ in range(10)))

    assert sum(turns) == 1
    await payments.sql("UPDATE alert_turn SET measured_at = measured_at - interval '1 minute'")
    assert await take()


async def test_rates_and_times_are_told_of_enough_results(payments: Payments) -> None:
    await payments.sql(
        "INSERT INTO step_count (at, gateway, from_state, to_state, payments, measured,"
        " milliseconds, durations)"
        " VALUES ($1, 'stripe', 'pending', 'succeeded', 17, 17, 680000,"
        " array_fill(40000, ARRAY[17])),"
        " ($1, 'stripe', 'pending', 'failed', 2, 2, 80000, '{40000, 40000}')",
        payments.clock.now,
    )
    await payments.sql(
        "INSERT INTO gateway_calls (gateway, second, calls, failures) VALUES ('stripe', $1, 19, 9)",
        payments.clock.now,
    )
    await alerts.look(payments.runtime)
    assert await history(payments) == [], "19 are too few to judge by"

    await payments.sql(
        "INSERT INTO step_count (at, gateway, from_state, to_state, payments, measured,"
        " milliseconds, durations)"
        " VALUES ($1, 'stripe', 'pending', 'failed', 1, 1, 40000, '{40000}')",
        payments.clock.now,
    )
    await payments.sql("UPDATE gateway_calls SET calls = 20")
    await alerts.look(payments.runtime)

    values = {episode["alert"]: episode["raisedValue"] for episode in await history(payments)}
    assert values == {"success_rate": 85, "processing_time": 40, "error_rate": 45}


async def test_thresholds_are_settings(payments: Payments) -> None:
    settings = payments.runtime.settings.model_copy(update={"queue_alert_threshold": 5})
    await queue(payments, 6)

    await alerts.look(replace(payments.runtime, settings=settings))

    (episode,) = await history(payments)
    assert (episode["threshold"], episode["raisedValue"]) == (5, 6)


async def test_without_redis_a_queue_alert_stays_as_it_is(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue(payments, 200)
    await alerts.look(payments.runtime)

    async def away(*_arguments: object) -> None:
        return None

    monkeypatch.setattr("services.payments.handlers.backlog.ready_messages", away)
    for _ in range(2):
        payments.clock.advance(3_600)
        await alerts.look(payments.runtime)

    (episode,) = await history(payments)
    assert (episode["clearedAt"], episode["lastValue"]) == (None, 200)


@pytest.mark.parametrize(
    ("query", "field"), [("alert=noise", "alert"), ("open=perhaps", "open"), ("cursor=1", "cursor")]
)
async def test_a_wrong_query_is_refused(payments: Payments, query: str, field: str) -> None:
    reply = await payments.api.call("GET", f"/api/operations/alerts?{query}")

    assert reply.status == 400
    assert field in reply.error["details"]
