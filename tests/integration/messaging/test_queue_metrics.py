"""The gauges of the queues, measured from Redis alone."""

from __future__ import annotations

from prometheus_client import REGISTRY

from shared.messaging import outbox
from shared.messaging.queue_metrics import measure_memory, measure_queues
from shared.process import Core
from tests.support.messages import payment_succeeded
from tests.support.queues import bodies_on, key_of, outgoing

GRANTS = "enrollment.grants"


def messages(state: str) -> float | None:
    return REGISTRY.get_sample_value("queue_messages", {"queue": GRANTS, "state": state})


async def test_a_thousand_messages_in_batches_are_counted_while_no_worker_runs(
    payments_core: Core,
) -> None:
    items = [outgoing(number, payment_succeeded()) for number in range(1_000)]
    assert await payments_core.publisher.send(items)
    assert len(await bodies_on(payments_core.redis, GRANTS)) == 10

    await measure_queues(payments_core.redis, [GRANTS])

    assert {state: messages(state) for state in ("ready", "in_flight", "delayed", "dead")} == {
        "ready": 1_000,
        "in_flight": 0,
        "delayed": 0,
        "dead": 0,
    }
    age = REGISTRY.get_sample_value("queue_oldest_age_seconds", {"queue": GRANTS})
    assert age is not None
    assert 0 <= age < 10


async def test_what_a_worker_has_taken_is_in_flight_and_an_empty_queue_has_no_age(
    payments_core: Core,
) -> None:
    for size in (100, 7):
        await payments_core.publisher.send([outgoing(n, payment_succeeded()) for n in range(size)])
    await payments_core.redis.lpop(key_of(GRANTS))

    await measure_queues(payments_core.redis, [GRANTS])
    assert (messages("ready"), messages("in_flight")) == (7, 100)

    await payments_core.redis.flushdb()
    await measure_queues(payments_core.redis, [GRANTS])
    assert (messages("ready"), messages("in_flight")) == (0, 0)
    assert REGISTRY.get_sample_value("queue_oldest_age_seconds", {"queue": GRANTS}) == 0


async def test_a_body_that_is_no_json_does_not_stop_the_measurement(payments_core: Core) -> None:
    key = key_of(GRANTS)
    await payments_core.redis.hset(f"{key}.msgs", "foreign", b"\xff")
    await payments_core.redis.rpush(key, "foreign")

    await measure_queues(payments_core.redis, [GRANTS])

    assert messages("ready") == 1


async def test_the_core_measures_its_queues_its_outbox_and_its_dead_letters(
    payments_core: Core,
) -> None:
    async with payments_core.database.transaction() as connection:
        await outbox.append(connection, [(payment_succeeded(), None)] * 3)
        await outbox.store_dead_letter(
            connection,
            queue="payments.high",
            sender="",
            message_id=None,
            message_name="?",
            payload="{}",
            reason="not a batch",
        )

    await payments_core.measure()

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"service": "payments", **labels})

    assert value("outbox_messages", state="waiting") == 3
    assert value("outbox_messages", state="parked") == 0
    assert value("dead_letters") == 1
    assert (value("outbox_oldest_age_seconds") or 0) > 0


async def test_memory_is_told_with_its_limit(payments_core: Core) -> None:
    limit = 1_000 * 2**20
    await payments_core.redis.config_set("maxmemory", limit)
    try:
        await measure_memory(payments_core.redis)
    finally:
        await payments_core.redis.config_set("maxmemory", 0)

    used = REGISTRY.get_sample_value("redis_memory_bytes", {"kind": "used"})
    assert used is not None
    assert 0 < used < limit
    assert REGISTRY.get_sample_value("redis_memory_bytes", {"kind": "limit"}) == limit
