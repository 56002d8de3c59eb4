"""The audit follows what is given back: sums, states, times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from deploy.local import audit
from deploy.local.explain import explain
from deploy.local.invariants.findings import Findings
from tests.integration.local.stored_payments import AMOUNT, Stored, Tables, open_tables

SUMS = "refunds_add_up"
DUE = "no_refund_late"
SUCCESSES = "one_success_per_payment"
LOOKS = "no_payment_late"
HISTORY = "history_agrees"

#: Named as a process names them; the number makes them sort.
REFUND_ID = "ref_01KE70EHG0JY1QREBD77BRA2Z9"
DISPUTE_ID = "dsp_01KE70EHG0JY1QREBD77BRA2Z9"

Fault = Callable[[Tables, Stored], Awaitable[None]]


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def problems(url: str) -> dict[str, list[str]]:
    """Return what the invariants about refunds, successes and times have found."""
    results = await audit.audit({"DATABASE_URL": url})
    found: dict[str, Findings] = {result.invariant.name: result.findings for result in results}
    return {
        name: [example.problem for example in found[name].examples]
        for name in (SUMS, DUE, SUCCESSES, LOOKS, HISTORY)
        if found[name].violations
    }


async def refunded(
    tables: Tables, amount: int = AMOUNT, *, settled: str | None = "succeeded"
) -> Stored:
    """Store a payment with a refund, as the database itself keeps its sums."""
    names = await tables.succeeded()
    await tables.execute(
        "payments",
        "INSERT INTO refund (id, payment_id, gateway, amount, currency, state, reason,"
        " requested_by, next_look_at, created_at, updated_at)"
        " VALUES ($1, $2, 'sslcommerz', $3, 'BDT', 'requested', 'why', 'operator', now(), $4, $4)",
        REFUND_ID,
        names.payment_id,
        amount,
        names.at,
    )
    if settled is None:
        return names
    await tables.execute(
        "payments",
        "UPDATE refund SET state = $2, next_look_at = NULL WHERE id = $1",
        REFUND_ID,
        settled,
    )
    if settled == "succeeded":
        state = "refunded" if amount == AMOUNT else "partially_refunded"
        await change_state(tables, names, state)
    return names


async def change_state(tables: Tables, names: Stored, state: str) -> None:
    await tables.execute(
        "payments", "UPDATE payment SET state = $2 WHERE id = $1", names.payment_id, state
    )
    await tables.history(names, [state])


async def disputed(tables: Tables, state: str = "lost") -> Stored:
    names = await tables.succeeded()
    await tables.execute(
        "payments",
        "INSERT INTO dispute (id, payment_id, gateway, handle, amount, currency, state, reason,"
        " next_look_at, opened_at, created_at, updated_at)"
        " VALUES ($1, $2, 'sslcommerz', 'du_1', $3, 'BDT', $4, 'fraudulent', now(), $5, $5, $5)",
        DISPUTE_ID,
        names.payment_id,
        AMOUNT,
        state,
        names.at,
    )
    await change_state(tables, names, "disputed")
    return names


@pytest.mark.parametrize(
    ("amount", "settled"),
    [
        pytest.param(AMOUNT, "succeeded", id="all"),
        pytest.param(100, "succeeded", id="a part"),
        pytest.param(AMOUNT, "failed", id="refused"),
        pytest.param(AMOUNT, None, id="under way"),
    ],
)
async def test_what_was_given_back_adds_up(
    new_database: str, tables: Tables, amount: int, settled: str | None
) -> None:
    await refunded(tables, amount, settled=settled)

    assert await problems(new_database) == {}


async def test_a_payment_may_come_back_from_its_dispute_and_succeeds_once(
    new_database: str, tables: Tables
) -> None:
    names = await disputed(tables, "opened")
    await tables.execute("payments", "UPDATE dispute SET state = 'won'")
    await change_state(tables, names, "succeeded")

    assert await problems(new_database) == {}


async def say_it_gave_back_more(tables: Tables, names: Stored) -> None:
    await tables.execute(
        "payments",
        "UPDATE payment SET refunded_amount = refunded_amount - 1 WHERE id = $1",
        names.payment_id,
    )


async def give_back_too_much(tables: Tables, names: Stored) -> None:
    await tables.execute("payments", "ALTER TABLE payment DROP CONSTRAINT refunds_within_amount")
    await tables.execute(
        "payments", "UPDATE payment SET amount = amount - 1 WHERE id = $1", names.payment_id
    )


async def forget_the_state(tables: Tables, names: Stored) -> None:
    await change_state(tables, names, "succeeded")


async def grow_old(tables: Tables, _names: Stored) -> None:
    await tables.execute(
        "payments",
        "UPDATE refund SET next_look_at = clock_timestamp() - interval '1 hour' WHERE id = $1",
        REFUND_ID,
    )


@pytest.mark.parametrize(
    ("fault", "found_by", "problem"),
    [
        pytest.param(say_it_gave_back_more, SUMS, "but its refunds are", id="another sum"),
        pytest.param(give_back_too_much, SUMS, "gives back", id="too much"),
        pytest.param(forget_the_state, SUMS, "is succeeded, but", id="another state"),
        pytest.param(grow_old, DUE, "its gateway to be asked", id="late"),
    ],
)
async def test_a_fault_is_found(
    new_database: str, tables: Tables, fault: Fault, found_by: str, problem: str
) -> None:
    names = await refunded(tables)

    await fault(tables, names)

    found = await problems(new_database)
    assert any(problem in text for text in found[found_by]), found


async def test_a_disputed_payment_has_a_dispute(new_database: str, tables: Tables) -> None:
    await disputed(tables)
    assert await problems(new_database) == {}

    await tables.execute("payments", "DELETE FROM dispute")

    assert (await problems(new_database)).keys() == {SUMS}


@pytest.mark.parametrize(
    "control",
    [
        pytest.param(
            "INSERT INTO control (key, reason, set_by, set_at)"
            " VALUES ('pause:gateway:sslcommerz', 'why', 'operator', now())",
            id="paused",
        ),
        pytest.param(
            "INSERT INTO gateway_breaker (gateway, state, since, until, reason)"
            " VALUES ('sslcommerz', 'open', now(), now() + interval '1 minute', 'failures')",
            id="breaker open",
        ),
    ],
)
async def test_what_may_not_be_called_is_not_late(
    new_database: str, tables: Tables, control: str
) -> None:
    names = await refunded(tables, settled=None)
    waiting = await tables.pending()
    await grow_old(tables, names)
    await tables.execute(
        "payments",
        "UPDATE payment SET next_check_at = clock_timestamp() - interval '1 hour' WHERE id = $1",
        waiting.payment_id,
    )
    assert (await problems(new_database)).keys() == {DUE, LOOKS}

    await tables.execute("payments", control)

    assert await problems(new_database) == {}


async def test_the_story_tells_of_refunds(new_database: str, tables: Tables) -> None:
    names = await refunded(tables)

    story = await explain({"DATABASE_URL": new_database}, names.payment_id)

    told = [entry.text for entry in story.entries if entry.event == "refund_recorded"]
    assert told == [
        f"operator asked for 1500.00 BDT to be given back as {REFUND_ID}; that is succeeded now"
    ]
    assert (story.now, story.next) == ("refunded", "nothing: all of it was given back")
