"""The audit finds retries that nobody makes, and the story says when one is due."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local import explain
from deploy.local.invariants.findings import Findings
from deploy.local.invariants.retries import NO_RETRY_LATE
from deploy.local.service_databases import open_databases
from tests.integration.local.stored_payments import Stored, Tables, open_tables

_RETRY = """
    INSERT INTO retry (payment_id, state, gateway, priority, customer_id, product_id, amount,
                       currency, kind, code, continues, next_attempt_at, created_at, updated_at)
    SELECT id, $2, gateway, priority, customer_id, product_id, amount, currency,
           'insufficient_funds', '51', true,
           clock_timestamp() + make_interval(mins => $3), created_at, created_at
      FROM payment
     WHERE id = $1
"""


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def scheduled(tables: Tables, minutes: int, state: str = "scheduled") -> Stored:
    """Store a payment that shall be tried again so many minutes from now."""
    names = await tables.failed()
    await tables.execute(
        "payments",
        "UPDATE payment SET state = 'retry_scheduled', reason = 'insufficient_funds:51',"
        " next_check_at = NULL WHERE id = $1",
        names.payment_id,
    )
    await tables.execute("payments", _RETRY, names.payment_id, state, minutes)
    return names


async def findings_in(url: str) -> list[str]:
    findings = Findings()
    async with open_databases({"DATABASE_URL": url}) as databases:
        await NO_RETRY_LATE.check(databases, findings)
    return [f"{example.subject} {example.problem}" for example in findings.examples]


async def test_a_retry_that_waits_for_its_time_is_no_fault(
    new_database: str, tables: Tables
) -> None:
    await scheduled(tables, 10)
    await scheduled(tables, -1)
    await scheduled(tables, -600, "parked")
    await scheduled(tables, -600, "waiting")

    assert await findings_in(new_database) == []


async def test_a_retry_that_nobody_makes_is_found(new_database: str, tables: Tables) -> None:
    late, lost = await scheduled(tables, -10), await scheduled(tables, 10)
    await tables.execute("payments", "DELETE FROM retry WHERE payment_id = $1", lost.payment_id)

    first, second = await findings_in(new_database)

    assert first.startswith(f"{late.payment_id} its retry is scheduled, due at")
    assert second == f"{lost.payment_id} is retry_scheduled without a retry"


async def test_what_a_pause_keeps_is_not_late(new_database: str, tables: Tables) -> None:
    await scheduled(tables, -10)
    await tables.execute(
        "payments",
        "INSERT INTO control (key, reason, set_by, set_at)"
        " VALUES ('pause:all', 'incident', 'ada', clock_timestamp())",
    )

    assert await findings_in(new_database) == []


async def test_the_story_says_when_the_next_try_is_due(new_database: str, tables: Tables) -> None:
    names, parked = await scheduled(tables, 10), await scheduled(tables, 10, "parked")

    story = await explain.explain({"DATABASE_URL": new_database}, names.payment_id)
    other = await explain.explain({"DATABASE_URL": new_database}, parked.payment_id)

    assert story.now == "retry_scheduled"
    assert story.next.startswith("it is tried again at 20")
    assert story.because == "insufficient_funds:51"
    assert other.next == "an operator resumes its retry"
