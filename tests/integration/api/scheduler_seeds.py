"""Something of everything in the scheduler that has an id, in the states that operations need."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from services.scheduler.handlers.clock_scan import follow_clocks
from shared.contracts.scheduler import ChargeSubscription
from tests.integration.api.seeds import MANY, Known
from tests.integration.scheduler.world import Scheduler, failed, succeeded

_INSERT_DEAD_LETTER = """
    INSERT INTO dead_letter (queue, sender, message_id, message_name, payload, reason)
    SELECT 'scheduler.outcomes', 'payments', number, 'payments.charge_failed.v1', '{}', 'unknown'
      FROM generate_series(1, $1) AS number
 RETURNING id
"""

_INSERT_PARKED = """
    INSERT INTO outbox (queue, message_name, payload, sends, parked_at)
    SELECT 'payments.charges', 'scheduler.retry_charge.v1', '{}', 20, clock_timestamp()
      FROM generate_series(1, $1) AS number
 RETURNING id
"""

_SET_ASIDE = "UPDATE subscription SET problem = 'no such zone' WHERE id = ANY($1)"


async def plant(service: Scheduler) -> Known:
    """Make it, through the API where that is possible."""
    plan = await service.plan()
    asking_plan = await service.plan(catchUp={"policy": "ask"})
    plans = [await service.plan() for _ in range(MANY)]
    methods = [await service.method() for _ in range(3)]

    async def many(count: int, of: dict[str, Any] = plan) -> list[str]:
        made = [await service.subscribe(of, paymentMethodId=methods[0]) for _ in range(count)]
        return [each["id"] for each in made]

    asking = await many(MANY, asking_plan)
    await service.pay_due()
    service.clock.now += timedelta(days=100)
    await service.bill_due()
    clocks = [await service.made("/api/test-clocks", {"name": "a year"}) for _ in range(2 * MANY)]
    on_clock = await service.subscribe(plan, testClockId=clocks[0]["id"])
    unpaid, paused, running = await many(MANY), await many(MANY), await many(MANY)
    over, doomed = await many(2), await many(2 * MANY)
    await service.bill_due()
    await follow_clocks(service.runtime)
    orders = [each for each in await service.orders() if isinstance(each, ChargeSubscription)]
    await service.hear(
        *(failed(each) if each.subscription_id in unpaid else succeeded(each) for each in orders)
    )
    for each in paused:
        assert (await service.ask({"id": each}, "pause")).status == 200
    for each in over:
        assert (await service.ask({"id": each}, "cancel")).status == 200
    aside = doomed[:MANY]
    await service.rows(_SET_ASIDE, aside)
    letters = await service.rows(_INSERT_DEAD_LETTER, MANY)
    parked = await service.rows(_INSERT_PARKED, MANY)
    # One operation resumes all of them, so that there may be none left when these two are tried.
    message = f"/api/subscriptions/parked-messages/msg_{parked[0]['id']}"
    assert (await service.api.call("GET", message)).status == 200
    await service.made(f"{message}/resume", {"reason": "the service is back"})
    return {
        "path.planId": [plan["id"], *(each["id"] for each in plans)],
        ("plans.archive", "path.planId"): [each["id"] for each in plans],
        "body.planId": [plan["id"], asking_plan["id"]],
        "body.paymentMethodId": methods,
        ("subscriptions.create", "body.customerId"): ["cus_1"],
        ("test_clocks.attach", "body.customerId"): [f"new_{number}" for number in range(MANY)],
        "body.testClockId": [clocks[0]["id"]],
        "path.subscriptionId": [*running[:3], *unpaid[:1], *over, on_clock["id"]],
        ("subscriptions.delete", "path.subscriptionId"): doomed[MANY:],
        ("subscription_commands.pause", "path.subscriptionId"): running,
        ("subscription_commands.resume", "path.subscriptionId"): paused,
        ("subscription_commands.cancel", "path.subscriptionId"): doomed[MANY:],
        ("subscription_commands.trigger", "path.subscriptionId"): unpaid,
        ("subscription_commands.catch_up", "path.subscriptionId"): asking,
        ("set_aside.clear_problem", "path.subscriptionId"): aside,
        "path.jobId": [f"job_{each.payment_id[4:]}" for each in orders[:5]],
        "path.clockId": [each["id"] for each in clocks[:MANY]],
        ("test_clocks.remove", "path.clockId"): [each["id"] for each in clocks[MANY:]],
        "path.deadLetterId": [f"dlt_{row['id']}" for row in letters],
        "path.messageId": [f"msg_{row['id']}" for row in parked[1:]],
    }
