"""The audit finds means of payment that the scheduler was not told of, and figures that are off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from deploy.local.invariants.figures import FIGURES_AGREE
from deploy.local.invariants.findings import Findings, Invariant
from deploy.local.invariants.payment_methods import METHODS_ARE_TOLD
from deploy.local.service_databases import open_databases
from shared.contracts.payments import PaymentMethodRemoved
from shared.identifiers import new_id
from tests.integration.local.stored_payments import Tables, open_tables

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)

_METHOD = """
    INSERT INTO payment_method (id, gateway, kind, customer_id, customer, details, created_at,
                                removed_at)
    VALUES ($1, 'campay', 'prompt', $2, $3, $4, $5, $6)
"""

_KNOWN = """
    INSERT INTO payment_method (id, customer_id, gateway, kind, stored_at, removed_at)
    VALUES ($1, $2, 'campay', 'prompt', $3, $4)
"""

_REMOVED = """
    INSERT INTO outbox (queue, message_name, payload)
    VALUES ('scheduler.methods', $1, json_build_object('paymentMethodId', $2::text))
"""

_COUNTED = """
    INSERT INTO billing_count_new (day, plan_id, what, is_test, times, amount)
    VALUES ('2026-01-05', 'pln_1', $1, $2, $3, 0)
"""

_JOB_TALLY = "INSERT INTO job_tally (status, jobs) VALUES ($1, $2)"

_TOTAL = """
    INSERT INTO billing_total (plan_id, what, is_test, times, amount)
    VALUES ('pln_1', $1, false, $2, 0)
"""


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def stored(tables: Tables, removed_at: datetime | None = None) -> str:
    """Let payments have a means of payment of `cus_1`."""
    method_id = new_id("pmt", NOW)
    data = ("{}", '{"phone": "237677123456"}') if removed_at is None else (None, None)
    await tables.execute("payments", _METHOD, method_id, "cus_1", *data, NOW, removed_at)
    return method_id


async def known(
    tables: Tables, method_id: str, customer_id: str = "cus_1", removed_at: datetime | None = None
) -> None:
    """Let the scheduler know of one."""
    await tables.execute("scheduler", _KNOWN, method_id, customer_id, NOW, removed_at)


async def findings_of(invariant: Invariant, url: str) -> Findings:
    findings = Findings()
    async with open_databases({"DATABASE_URL": url}) as databases:
        await invariant.check(databases, findings)
    return findings


async def problems(invariant: Invariant, url: str) -> list[tuple[str, ...]]:
    return [tuple(each) for each in (await findings_of(invariant, url)).examples]


async def test_what_the_scheduler_knows_is_no_fault_nor_what_is_on_its_way(
    new_database: str, tables: Tables
) -> None:
    await known(tables, await stored(tables))
    await known(tables, await stored(tables, NOW), removed_at=NOW)
    # The scheduler may hear of the removal before we look.
    await known(tables, await stored(tables), removed_at=NOW)
    removed = await stored(tables, NOW)
    await known(tables, removed)
    await tables.execute("payments", _REMOVED, PaymentMethodRemoved.name, removed)

    found = await findings_of(METHODS_ARE_TOLD, new_database)

    assert (found.checked, found.waiting, found.violations) == (4, 1, 0)


async def test_a_method_of_which_the_scheduler_knows_nothing_or_something_else_is_found(
    new_database: str, tables: Tables
) -> None:
    unknown, removed, another_s = (
        await stored(tables),
        await stored(tables, NOW),
        await stored(tables),
    )
    await known(tables, removed)
    await known(tables, another_s, customer_id="cus_2")

    a_prompt = "a prompt of campay and"
    assert sorted(await problems(METHODS_ARE_TOLD, new_database)) == sorted(
        [
            (unknown, f"{a_prompt} cus_1, but the scheduler knows nothing"),
            (removed, f"it is removed, but the scheduler knows {a_prompt} cus_1"),
            (another_s, f"{a_prompt} cus_1, but the scheduler knows {a_prompt} cus_2"),
        ]
    )


async def test_figures_that_are_not_those_of_the_subscriptions_are_a_warning(
    new_database: str, tables: Tables
) -> None:
    async def counted(what: str, times: int, *, is_test: bool = False) -> Any:
        await tables.execute("scheduler", _COUNTED, what, is_test, times)

    await counted("is_active", 2)
    await counted("opened", 7)
    await tables.execute("scheduler", _TOTAL, "is_active", -2)
    assert await problems(FIGURES_AGREE, new_database) == []

    await counted("is_past_due", 3)
    await counted("is_past_due", 1, is_test=True)
    for status, jobs in (("failed", 2), ("failed", -1), ("active", 3), ("active", -3)):
        await tables.execute("scheduler", _JOB_TALLY, status, jobs)

    assert await problems(FIGURES_AGREE, new_database) == [
        ("pln_1", "0 past_due, but 3 are counted"),
        ("pln_1", "0 on test clocks past_due, but 1 are counted"),
        ("jobs", "0 failed, but 1 are counted"),
    ]
    assert FIGURES_AGREE.is_warning, "no money is wrong for that"
