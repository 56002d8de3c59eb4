"""What payments says of charges: what it changes, in whatever order and as often as it comes."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from services.scheduler.domain.commands import cancel, change_plan
from services.scheduler.domain.model import Move, Plan, Subscription
from services.scheduler.runtime import write
from services.scheduler.store.subscriptions import find_plans, lock_subscriptions, plan_ids
from services.scheduler.worker import handlers_of
from shared.contracts.base import Message
from shared.contracts.scheduler import AccessGranted, CancelCharge, ChargeSubscription
from shared.messaging.receiver import Receiver
from tests.integration.scheduler.world import (
    Scheduler,
    failed,
    progressed,
    running_runtime,
    succeeded,
)
from tests.support.polling import eventually
from tests.support.queues import batch_of

DAY_SECONDS = 86_400.0

Shown = dict[str, Any]


async def charged(service: Scheduler, **changes: Any) -> tuple[Shown, ChargeSubscription]:
    """Return a subscription whose first period is charged, and the order that payments got."""
    subscription = await service.subscribe(await service.plan(**changes))
    return subscription, await billed(service)


async def billed(service: Scheduler) -> ChargeSubscription:
    """Bill the one thing that is due, and return its order."""
    assert await service.bill_due() == 1
    (order,) = await service.orders()
    assert isinstance(order, ChargeSubscription)
    return order


async def state(service: Scheduler, subscription: Shown) -> dict[str, Any]:
    """Return all that is stored of a subscription but when it was written."""
    (row,) = await service.rows("SELECT * FROM subscription WHERE id = $1", subscription["id"])
    hidden = {"updated_at", "version"}
    return {
        "subscription": {name: value for name, value in row.items() if name not in hidden},
        "cycles": [dict(cycle) for cycle in await service.cycles(subscription)],
        "jobs": [
            {name: value for name, value in job.items() if name not in hidden}
            for job in await service.jobs(subscription)
        ],
        "story": await service.story(subscription),
    }


async def command(service: Scheduler, subscription: Shown, decide: Any) -> None:
    """Carry out a command of the domain, as the API does."""
    async with service.core.database.transaction() as connection:
        locked = await lock_subscriptions(connection, [subscription["id"]])
        plans = await find_plans(connection, plan_ids(list(locked.values())))
        (one,) = locked.values()
        await write(connection, [decide(one, plans[one.plan_id])])


async def test_a_charge_goes_from_its_order_to_the_money(service: Scheduler) -> None:
    subscription, order = await charged(service)

    seen: list[tuple[str, int]] = []
    for message in (
        progressed(order),
        progressed(order, "sent", attempts_made=1),
        succeeded(order),
    ):
        await service.hear(message)
        (job,) = await service.jobs(subscription)
        seen.append((job["status"], job["progress"]))

    (job,) = await service.jobs(subscription)
    assert seen == [("active", 30), ("active", 50), ("completed", 100)]
    assert job["gateway_reference"] == f"ch_{order.payment_id[4:]}"
    (cycle,) = await service.cycles(subscription)
    assert (cycle["state"], cycle["payment_id"]) == ("paid", order.payment_id)
    row = (await state(service, subscription))["subscription"]
    assert (row["state"], row["has_access"], row["charging"]) == ("active", True, None)
    assert row["due_at"] == cycle["period_end"]


async def test_what_is_said_twice_changes_nothing(service: Scheduler) -> None:
    subscription, order = await charged(service)
    told: list[Message] = [
        progressed(order),
        progressed(order, "sent", attempts_made=1),
        failed(order, retry_after_seconds=3_600.0),
        progressed(order, "sent", attempts_made=2),
        failed(order, attempts_made=2, may_still_be_paid=True),
        failed(order, attempts_made=2),
        succeeded(order, attempts_made=2),
    ]
    before: dict[str, Any] = {}
    for message in told:
        await service.hear(message)
        before = await state(service, subscription)
        await service.hear(message, message)

        assert await state(service, subscription) == before

    await service.hear(*told)

    assert await state(service, subscription) == before
    granted = [each for each in await service.sent() if isinstance(each, AccessGranted)]
    assert len(granted) == 1


async def test_what_comes_late_takes_nothing_back(service: Scheduler) -> None:
    subscription, order = await charged(service)
    await service.hear(succeeded(order, attempts_made=2))
    before = await state(service, subscription)

    await service.hear(failed(order, retry_after_seconds=3_600.0))
    await service.hear(failed(order, attempts_made=3))
    await service.hear(progressed(order), progressed(order, "held", attempts_made=3))

    assert await state(service, subscription) == before


async def test_all_of_a_charge_may_come_in_one_batch_with_that_of_others(
    service: Scheduler,
) -> None:
    plan = await service.plan()
    subscriptions = [await service.subscribe(plan) for _ in range(3)]
    assert await service.bill_due() == 3
    orders = await service.orders()

    await service.hear(
        *(progressed(order) for order in orders),
        *(failed(order, retry_after_seconds=2.0) for order in orders),
        *(succeeded(order, attempts_made=2) for order in orders),
    )

    for subscription in subscriptions:
        assert await service.story(subscription) == [
            "created",
            "period_opened",
            "charge_accepted",
            "retry_scheduled",
            "paid",
        ]
        (job,) = await service.jobs(subscription)
        assert (job["status"], job["attempts_made"]) == ("completed", 2)


async def test_two_workers_that_hear_the_same_do_it_once(
    service: Scheduler, new_database: str, redis_url: str
) -> None:
    plan = await service.plan()
    subscriptions = [await service.subscribe(plan) for _ in range(20)]
    assert await service.bill_due() == 20
    orders = await service.orders()
    messages = [(number, succeeded(order)) for number, order in enumerate(orders, start=1)]
    turned = [(100 + number, message) for number, message in reversed(messages)]

    async with running_runtime(new_database, redis_url, service.clock) as other:
        receiver = Receiver(other.core.database, other.core.publisher, handlers_of(other))
        service.receiver.accept("scheduler.outcomes", {"batch": batch_of("payments", messages)})
        receiver.accept("scheduler.outcomes", {"batch": batch_of("payments", turned)})

        async def all_done() -> bool:
            return not await service.rows("SELECT FROM subscription WHERE charging IS NOT NULL")

        await eventually(all_done)
        await receiver.close()

    granted = [each for each in await service.sent() if isinstance(each, AccessGranted)]
    assert len(granted) == 20
    for subscription in subscriptions:
        assert await service.story(subscription) == ["created", "period_opened", "paid"]


async def test_a_failure_makes_it_past_due_and_money_that_comes_late_recovers_it(
    service: Scheduler,
) -> None:
    subscription, order = await charged(service)
    await service.hear(failed(order))
    unpaid = await state(service, subscription)

    service.clock.advance(3_600.0)
    await service.hear(succeeded(order))

    assert unpaid["subscription"]["state"] == "past_due"
    assert unpaid["cycles"][0]["state"] == "unpaid"
    now = await state(service, subscription)
    assert (now["subscription"]["state"], now["cycles"][0]["state"]) == ("active", "paid")
    assert now["jobs"][0]["status"] == "completed"


async def test_what_is_closed_at_last_may_be_charged_again(service: Scheduler) -> None:
    _, order = await charged(service)
    await service.hear(failed(order, may_still_be_paid=True))
    service.clock.advance(DAY_SECONDS)
    assert await service.bill_due() == 1
    assert await service.orders() == []

    await service.hear(failed(order))
    service.clock.advance(2 * DAY_SECONDS)
    again = await billed(service)

    assert again.payment_id != order.payment_id


async def test_a_period_that_is_paid_twice_says_so(service: Scheduler) -> None:
    subscription, first = await charged(service)
    await service.hear(failed(first))
    service.clock.advance(DAY_SECONDS)
    second = await billed(service)
    await service.hear(succeeded(second))
    paid = await state(service, subscription)

    await service.hear(succeeded(first))
    await service.hear(succeeded(first))

    after = await state(service, subscription)
    assert after["subscription"] == paid["subscription"]
    assert after["cycles"] == paid["cycles"]
    assert after["cycles"][0]["payment_id"] == second.payment_id
    assert [job["status"] for job in after["jobs"]] == ["completed", "completed"]
    assert after["story"] == [*paid["story"], "paid_twice"]
    counted = "SELECT sum(times)::int FROM billing_count_new WHERE what = 'paid_twice'"
    assert await service.sql(counted) == 1


async def test_money_of_the_first_charge_stops_the_second(service: Scheduler) -> None:
    subscription, first = await charged(service)
    await service.hear(failed(first))
    service.clock.advance(DAY_SECONDS)
    second = await billed(service)

    await service.hear(succeeded(first))
    stops = [each for each in await service.orders() if isinstance(each, CancelCharge)]
    between = await state(service, subscription)
    await service.hear(failed(second, kind="cancelled", code="paid_otherwise", attempts_made=0))

    assert [each.payment_id for each in stops] == [second.payment_id]
    assert between["subscription"]["charging"] == second.payment_id
    after = await state(service, subscription)
    assert (after["subscription"]["state"], after["subscription"]["charging"]) == ("active", None)
    assert after["subscription"]["due_at"] == after["cycles"][0]["period_end"]
    assert [job["status"] for job in after["jobs"]] == ["completed", "failed"]


@pytest.mark.parametrize("end", ["paid", "uncollectible"])
async def test_a_cancelled_subscription_hears_how_its_charge_ended(
    service: Scheduler, end: str
) -> None:
    is_paid = end == "paid"
    subscription, order = await charged(service)
    now = service.clock()

    def cancelled(one: Subscription, plan: Plan) -> Move:
        return cancel(one, plan, now, at_period_end=False)

    await command(service, subscription, cancelled)
    (stop,) = await service.orders()
    await service.hear(
        succeeded(order) if is_paid else failed(order, kind="cancelled", code="cancelled")
    )

    assert isinstance(stop, CancelCharge)
    after = await state(service, subscription)
    row = after["subscription"]
    assert (row["state"], row["charging"], row["has_access"]) == ("cancelled", None, False)
    assert after["cycles"][0]["state"] == end
    assert after["jobs"][0]["status"] == ("completed" if is_paid else "failed")
    assert after["story"][-1] == ("paid_after_end" if is_paid else "charge_failed")
    assert await service.bill_due() == 0


async def test_late_money_counts_for_the_plan_that_billed_it(service: Scheduler) -> None:
    subscription, first = await charged(service)
    dearer = await service.plan(amount=1_990)
    now = service.clock()
    async with service.core.database.connection() as connection:
        next_plan = (await find_plans(connection, [dearer["id"]]))[dearer["id"]]

    def changed(one: Subscription, plan: Plan) -> Move:
        return change_plan(one, plan, next_plan, now)

    await command(service, subscription, changed)
    await service.hear(failed(first))
    service.clock.advance(DAY_SECONDS)
    await service.hear(succeeded(await billed(service)))
    service.clock.advance(31 * DAY_SECONDS)
    second = await billed(service)
    await service.hear(succeeded(first))

    assert second.amount == 1_990
    counted = await service.rows(
        "SELECT plan_id, amount FROM billing_count_new WHERE what = 'paid_twice'"
    )
    assert [tuple(row) for row in counted] == [(first_plan(subscription), 990)]
    row = (await state(service, subscription))["subscription"]
    assert (row["plan_id"], row["charging"]) == (dearer["id"], second.payment_id)


def first_plan(subscription: Shown) -> str:
    """Return the plan with which a subscription was made."""
    return str(subscription["planId"])


async def test_what_was_never_ordered_is_a_dead_letter_and_spoils_no_neighbour(
    service: Scheduler,
) -> None:
    subscription, order = await charged(service)
    other, _ = await charged(service)
    stray = order.model_copy(update={"payment_id": "pay_" + 26 * "0"})
    unknown = order.model_copy(update={"subscription_id": "sub_" + 26 * "0"})
    of_another = order.model_copy(update={"subscription_id": other["id"]})

    await service.hear(
        succeeded(stray), succeeded(unknown), succeeded(of_another), succeeded(order)
    )

    reasons = await service.rows("SELECT reason FROM dead_letter ORDER BY id")
    assert len(reasons) == 3
    assert all("never ordered payment" in row["reason"] for row in reasons)
    assert (await service.cycles(subscription))[0]["state"] == "paid"
    assert (await service.cycles(other))[0]["state"] == "charging"


async def test_money_that_comes_when_its_job_has_left_pays_its_period(
    service: Scheduler,
) -> None:
    subscription, order = await charged(service, dunning={"days": [], "end": "pause"})
    await service.hear(failed(order, may_still_be_paid=True))
    service.clock.advance(10 * DAY_SECONDS)
    assert await service.bill_due() == 1  # Past its grace it is paused.
    await service.sql("DELETE FROM job WHERE payment_id = $1", order.payment_id)

    await service.hear(progressed(order), failed(order))
    unpaid = await state(service, subscription)
    await service.hear(succeeded(order))
    paid = await state(service, subscription)
    await service.hear(succeeded(order))
    await service.hear(failed(order, attempts_made=2), progressed(order, "held"))

    assert unpaid["cycles"][0]["state"] == "uncollectible"
    assert (paid["cycles"][0]["state"], paid["jobs"]) == ("paid", [])
    assert await state(service, subscription) == paid


async def test_messages_that_meet_an_outage_are_handled_later(
    service: Scheduler, new_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.messaging.receiver.REDELIVERY_SECONDS", (0.05, 2, 4))
    subscription, order = await charged(service)
    superuser = await asyncpg.connect(new_database)

    async def is_cut_off() -> bool:
        found = await superuser.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"
        )
        return bool(found)

    async with service.core.database.transaction() as connection:
        await lock_subscriptions(connection, [subscription["id"]])
        hearing = asyncio.create_task(service.hear(succeeded(order)))
        await eventually(is_cut_off)
    await hearing
    await superuser.close()

    assert await service.story(subscription) == ["created", "period_opened", "paid"]


async def test_what_follows_carries_on_the_trace_of_what_led_to_it(service: Scheduler) -> None:
    plan = await service.plan()
    for _ in range(2):
        await service.subscribe(plan)
    assert await service.bill_due() == 2
    orders = await service.orders()
    batch = batch_of("payments", [(n, succeeded(order)) for n, order in enumerate(orders, 1)])
    for number, item in enumerate(batch["items"]):
        item["trace"] = f"00-{number:032x}-{1:016x}-01"

    service.receiver.accept("scheduler.outcomes", {"batch": batch})

    async def given() -> list[asyncpg.Record]:
        return await service.rows(
            "SELECT payload ->> 'subscriptionId' AS subscription, traceparent FROM outbox"
            " WHERE message_name = $1",
            AccessGranted.name,
        )

    rows = await eventually(given)
    assert {row["subscription"]: row["traceparent"] for row in rows} == {
        order.subscription_id: f"00-{number:032x}-{1:016x}-01"
        for number, order in enumerate(orders)
    }
