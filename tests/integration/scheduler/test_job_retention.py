"""Jobs leave some days after their end, a whole day at a time; nothing else leaves with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.scheduler.handlers.job_retention import sweep
from services.scheduler.store import job_retention as store
from services.scheduler.store.tables import PARTITIONED_TABLES
from shared import partitions
from shared.contracts.scheduler import ChargeSubscription
from tests.integration.scheduler.world import Scheduler, failed, running_scheduler, succeeded
from tests.support.clocks import START

DAY_SECONDS = 86_400.0


@pytest.fixture
async def service(new_database: str, redis_url: str) -> AsyncIterator[Scheduler]:
    """Run a scheduler that keeps jobs for two days. Days that a test drops are made anew here."""
    async with running_scheduler(new_database, redis_url, JOB_KEEP_DAYS=2) as service:
        await partitions.maintain(service.core.database, PARTITIONED_TABLES, START.date())
        yield service


async def charged(service: Scheduler, count: int = 1) -> list[ChargeSubscription]:
    """Charge new subscriptions, of which those that fail are not charged again soon."""
    plan = await service.plan(dunning={"days": [20], "end": "cancel"}, graceDays=20)
    for _ in range(count):
        await service.subscribe(plan)
    assert await service.bill_due() == count
    return await service.orders()


async def ended_days_ago(service: Scheduler, days: float) -> None:
    """Let all jobs have ended so long ago, by the database's clock."""
    await service.sql(
        "UPDATE job SET updated_at = clock_timestamp() - make_interval(secs => $1)",
        days * DAY_SECONDS,
    )


async def stats(service: Scheduler) -> dict[str, Any]:
    data = (await service.api.call("GET", "/api/jobs/stats")).data
    assert isinstance(data, dict)
    return {name: number for name, number in data.items() if number}


async def days_of(service: Scheduler) -> set[str]:
    async with service.core.database.connection() as connection:
        return {str(day) for day in await store.list_days(connection)}


async def test_a_day_leaves_when_its_last_job_ended_long_enough_ago(service: Scheduler) -> None:
    paid, unpaid = await charged(service, 2)
    await service.hear(succeeded(paid))
    await service.hear(failed(unpaid))
    service.clock.advance(4 * DAY_SECONDS)
    (later,) = await charged(service)
    before = await stats(service)

    await ended_days_ago(service, 1.9)
    assert await sweep(service.runtime)
    kept = await days_of(service)
    await ended_days_ago(service, 2.1)
    assert await sweep(service.runtime)

    assert before == {"completed": 1, "failed": 1, "waiting": 1}
    assert "2026-01-05" in kept
    assert "2026-01-05" not in await days_of(service)
    assert await stats(service) == {"waiting": 1}
    (left,) = await service.rows("SELECT payment_id FROM job")
    assert left["payment_id"] == later.payment_id
    assert await service.sql("SELECT count(*) FROM billing_cycle") == 3
    gone = await service.api.call("GET", f"/api/jobs/job_{paid.payment_id[4:]}")
    assert gone.status == 404


async def test_a_day_stays_while_one_of_its_jobs_has_not_ended(service: Scheduler) -> None:
    paid, open_ = await charged(service, 2)
    await service.hear(succeeded(paid))
    service.clock.advance(30 * DAY_SECONDS)
    await ended_days_ago(service, 30)

    assert await sweep(service.runtime)

    assert await service.sql("SELECT count(*) FROM job") == 2
    await service.hear(failed(open_, attempts_made=2))
    await ended_days_ago(service, 3)
    assert await sweep(service.runtime)
    assert await service.sql("SELECT count(*) FROM job") == 0
    assert await stats(service) == {}


async def test_today_stays_whatever_the_database_thinks(service: Scheduler) -> None:
    (order,) = await charged(service)
    await service.hear(succeeded(order))
    await ended_days_ago(service, 30)
    service.clock.advance(2 * DAY_SECONDS)

    assert await sweep(service.runtime)

    assert await service.sql("SELECT count(*) FROM job") == 1


async def test_a_sweep_gives_up_a_table_that_is_in_use(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_WAIT", "50ms")
    (order,) = await charged(service)
    await service.hear(succeeded(order))
    service.clock.advance(10 * DAY_SECONDS)
    await ended_days_ago(service, 3)

    async with service.core.database.transaction() as connection:
        await connection.execute("UPDATE job SET progress = 100")
        is_through = await sweep(service.runtime)

    assert not is_through
    assert await service.sql("SELECT count(*) FROM job") == 1
    assert await sweep(service.runtime)
    assert await service.sql("SELECT count(*) FROM job") == 0


async def test_two_workers_do_not_sweep_at_once(service: Scheduler) -> None:
    (order,) = await charged(service)
    await service.hear(succeeded(order))
    service.clock.advance(10 * DAY_SECONDS)
    await ended_days_ago(service, 3)

    async with service.core.database.transaction() as connection:
        assert await store.take_turn(connection)
        assert not await sweep(service.runtime)
    assert await service.sql("SELECT count(*) FROM job") == 1


async def test_late_money_just_before_the_lock_keeps_its_day(
    service: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order,) = await charged(service)
    await service.hear(failed(order))
    service.clock.advance(10 * DAY_SECONDS)
    await ended_days_ago(service, 3)
    lock_jobs = store.lock_jobs

    async def lock_after_late_money(connection: Any) -> bool:
        await service.hear(succeeded(order))
        return await lock_jobs(connection)

    monkeypatch.setattr(store, "lock_jobs", lock_after_late_money)
    assert await sweep(service.runtime)

    assert await stats(service) == {"completed": 1}
    assert await service.sql("SELECT count(*) FROM job") == 1


async def test_jobs_outside_of_any_day_leave_one_by_one(service: Scheduler) -> None:
    service.clock.advance(100 * DAY_SECONDS)
    ended, open_ = await charged(service, 2)
    await service.hear(succeeded(ended))
    assert await service.sql("SELECT count(*) FROM job_default") == 2
    await ended_days_ago(service, 3)

    assert await sweep(service.runtime)

    (left,) = await service.rows("SELECT payment_id FROM job")
    assert left["payment_id"] == open_.payment_id
    assert await stats(service) == {"waiting": 1}
