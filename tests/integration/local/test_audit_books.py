"""The audit compares the ledger with payments, with its own snapshot and with the simulator."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deploy.local import audit
from deploy.local.environment import gateways_at_simulator
from deploy.local.invariants.findings import Findings
from tests.integration.local.stored_payments import AMOUNT, Stored, Tables, open_tables

PLAYED = gateways_at_simulator("http://127.0.0.1:1", {})


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def found_by(url: str, name: str) -> Findings:
    results = await audit.audit({**PLAYED, "DATABASE_URL": url})
    return next(each.findings for each in results if each.invariant.name == name)


async def book(
    tables: Tables, names: Stored, kind: str, debit: str, credit: str, *, amount: int = AMOUNT
) -> None:
    await tables.execute(
        "payments",
        """
        INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount, currency)
        VALUES ($1, $2, $2, $3, $4, $5, 'BDT')
        """,
        names.payment_id,
        kind,
        debit,
        credit,
        amount,
    )


async def move(tables: Tables, names: Stored, kind: str, amount: int, age: str = "1 hour") -> None:
    """Let the simulator move money after the charge, so long ago."""
    await tables.execute(
        "simulator",
        """
        INSERT INTO movement (gateway, reference, gateway_payment_id, kind, name, handle, amount,
                              currency, moved_at)
        VALUES ('sslcommerz', $1, $2, $3, 'x', 'x', $4, 'BDT', now() - $5::text::interval)
        """,
        names.reference,
        names.bank_id,
        kind,
        amount,
        age,
    )


async def test_books_that_are_in_order_are_clean(new_database: str, tables: Tables) -> None:
    await tables.succeeded()
    await tables.held()
    await tables.failed()
    await tables.pending()
    released = await tables.succeeded()
    await tables.execute(
        "payments",
        "UPDATE ledger_transfer SET credit = 'held', amount = 90 WHERE payment_id = $1",
        released.payment_id,
    )
    await book(tables, released, "release", "held", "revenue", amount=90)

    for name in ("books_agree", "movements_agree"):
        findings = await found_by(new_database, name)
        assert findings.violations == 0, findings.examples
        assert findings.checked >= 3


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        pytest.param(
            "DELETE FROM ledger_transfer WHERE payment_id = $1",
            "has taken money that is not in the ledger",
            id="not booked",
        ),
        pytest.param(
            "UPDATE ledger_transfer SET amount = 1 WHERE payment_id = $1",
            f"is about {AMOUNT}, but revenue by it is 1",
            id="another amount",
        ),
        pytest.param(
            "UPDATE ledger_transfer SET credit = 'held' WHERE payment_id = $1",
            f"is not on hold, but the ledger holds {AMOUNT} of it",
            id="held for nothing",
        ),
        pytest.param(
            "UPDATE payment SET gateway_payment_id = NULL WHERE id = $1",
            "has taken no money, but the ledger has some of it",
            id="money from nowhere",
        ),
        pytest.param(
            "INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount,"
            " currency) VALUES ($1, 'refund', 'r', 'refunds', 'gateway:sslcommerz', 5, 'BDT')",
            "gave back 0, but by the ledger 5",
            id="a refund that is none",
        ),
        pytest.param(
            "INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount,"
            " currency) VALUES ($1, 'dispute_opened', 'd', 'disputed', 'gateway:sslcommerz', 5,"
            " 'BDT')",
            "0 of it are disputed, by the ledger 5",
            id="a dispute that is none",
        ),
        pytest.param(
            "INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount,"
            " currency) VALUES ($1, 'dispute_lost', 'd', 'dispute_losses', 'gateway:sslcommerz',"
            " 5, 'BDT')",
            "0 of it are lost, by the ledger 5",
            id="a loss that is none",
        ),
    ],
)
async def test_a_payment_that_differs_from_the_ledger_is_found(
    new_database: str, tables: Tables, statement: str, problem: str
) -> None:
    await tables.succeeded()
    wrong = await tables.succeeded()
    await tables.execute("payments", statement, wrong.payment_id)

    findings = await found_by(new_database, "books_agree")

    assert [tuple(each) for each in findings.examples] == [(wrong.payment_id, problem)]


async def test_money_on_hold_that_the_ledger_does_not_hold_is_found(
    new_database: str, tables: Tables
) -> None:
    wrong = await tables.held()
    await book(tables, wrong, "release", "held", "revenue")

    findings = await found_by(new_database, "books_agree")

    assert [each.problem for each in findings.examples] == [
        "is on hold, but the ledger holds nothing of it"
    ]


async def test_a_movement_of_no_payment_is_found(new_database: str, tables: Tables) -> None:
    lost = await tables.succeeded()
    await tables.execute("payments", "DELETE FROM payment WHERE id = $1", lost.payment_id)

    findings = await found_by(new_database, "books_agree")

    assert [each.problem for each in findings.examples] == [
        "is in the ledger, but there is no such payment"
    ]


async def test_a_snapshot_that_is_not_the_sum_of_its_movements_is_found(
    new_database: str, tables: Tables
) -> None:
    await tables.succeeded()
    await tables.execute(
        "payments", "INSERT INTO ledger_snapshot (until) VALUES (clock_timestamp())"
    )
    await tables.execute(
        "payments",
        "INSERT INTO ledger_balance VALUES ('revenue', 'BDT', 0, $1), ('cash', 'BDT', 1, 0)",
        AMOUNT,
    )

    findings = await found_by(new_database, "books_agree")

    assert [each.subject for each in findings.examples] == ["cash BDT", "gateway:sslcommerz BDT"]


@pytest.mark.parametrize(
    ("kind", "amount", "age", "expected"),
    [
        pytest.param("refund", 5, "1 hour", "mismatch", id="a refund that we do not know"),
        pytest.param("dispute", 5, "1 hour", "mismatch", id="a dispute that we do not know"),
        pytest.param("dispute", 5, "1 second", "waiting", id="news on their way"),
        pytest.param("fee", 5, "1 hour", "match", id="a fee, which is no customer's"),
    ],
)
async def test_what_the_simulator_moved_is_looked_for_in_the_ledger(  # noqa: PLR0917 - a table
    new_database: str, tables: Tables, kind: str, amount: int, age: str, expected: str
) -> None:
    names = await tables.succeeded()
    await move(tables, names, kind, amount, age)

    findings = await found_by(new_database, "movements_agree")

    assert dict(findings.classes) == {expected: 1}
    assert findings.violations == (expected == "mismatch")


async def test_what_the_ledger_gave_back_is_looked_for_at_the_simulator(
    new_database: str, tables: Tables
) -> None:
    names, other = await tables.succeeded(), await tables.succeeded()
    for each in (names, other):
        await book(tables, each, "refund", "refunds", "gateway:sslcommerz", amount=5)
    await move(tables, other, "refund", 5)

    findings = await found_by(new_database, "movements_agree")

    assert [tuple(each) for each in findings.examples] == [
        (names.payment_id, "5 was given back by our ledger, 0 by the gateway's")
    ]


async def test_a_refund_and_a_dispute_that_came_back_are_even(
    new_database: str, tables: Tables
) -> None:
    names = await tables.succeeded()
    await move(tables, names, "refund", 5)
    await move(tables, names, "refund_returned", 5)
    await move(tables, names, "dispute", 7)
    await move(tables, names, "dispute_returned", 7)

    findings = await found_by(new_database, "movements_agree")

    assert dict(findings.classes) == {"match": 1}
