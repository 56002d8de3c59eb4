"""The audit follows money that went back to the enrollment that it paid for, and from there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from deploy.local import audit
from deploy.local.invariants.findings import Findings
from shared.contracts.payments import PaymentRefunded, RefundReturned
from tests.integration.local.stored_payments import AMOUNT, START, Stored, Tables, open_tables

REVOKED = "revoked_exactly_when_gone"
ENROLLED = "enrolled_exactly_when_paid"
ENROLLMENTS = "enrollment_history_agrees"


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def check(url: str) -> dict[str, Findings]:
    """Return what the three invariants about enrollments have found."""
    results = await audit.audit({"DATABASE_URL": url})
    found = {result.invariant.name: result.findings for result in results}
    return {name: found[name] for name in (REVOKED, ENROLLED, ENROLLMENTS)}


def problems(found: dict[str, Findings]) -> dict[str, list[str]]:
    return {
        name: [example.problem for example in findings.examples]
        for name, findings in found.items()
        if findings.violations
    }


async def refunded(tables: Tables) -> Stored:
    """Store a payment that was given back in whole."""
    names = await tables.succeeded()
    await tables.execute(
        "payments",
        "UPDATE payment SET state = 'refunded', refunded_amount = amount WHERE id = $1",
        names.payment_id,
    )
    await tables.history(names, ["refunded"])
    return names


async def lost(tables: Tables, state: str = "lost") -> Stored:
    """Store a payment that was lost in a dispute."""
    names = await tables.succeeded()
    await tables.execute(
        "payments",
        "UPDATE payment SET state = 'disputed', reason = 'dispute_lost' WHERE id = $1",
        names.payment_id,
    )
    await tables.execute(
        "payments",
        """
        INSERT INTO dispute (id, payment_id, gateway, handle, amount, currency, state, reason,
                             next_look_at, opened_at, created_at, updated_at)
        VALUES ('dsp_' || $1, $1, 'stripe', 'du_' || $1, $2, 'BDT', $3, 'fraudulent', $4, $4, $4,
                $4)
        """,
        names.payment_id,
        AMOUNT,
        state,
        names.at,
    )
    return names


async def reversed_(
    tables: Tables, names: Stored, revocation: str = "done", cause: str = "refunded"
) -> None:
    """Let enrollment know of it."""
    await tables.execute(
        "enrollment",
        """
        INSERT INTO payment_reversal (payment_id, occasion, cause, noticed_at, customer_id,
                                      product_id, revocation, due_at, stored_at)
        VALUES ($1, $2, $3, $4, $5, 'course-1', $6, $7, $4)
        """,
        names.payment_id,
        "refund" if cause == "refunded" else "dsp_1",
        cause,
        names.at,
        names.customer_id,
        revocation,
        START + timedelta(days=3) if revocation == "waiting" else None,
    )
    if revocation == "done":
        await tables.execute(
            "enrollment",
            "UPDATE enrollment SET state = 'revoked' WHERE id = $1",
            names.enrollment_id,
        )
        await tell(tables, names, "revoked_after_refund")


async def tell(tables: Tables, names: Stored, event: str) -> None:
    await tables.execute(
        "enrollment",
        "INSERT INTO enrollment_history (enrollment_id, event, payment_id) VALUES ($1, $2, $3)",
        names.enrollment_id,
        event,
        names.payment_id,
    )


def message_of(names: Stored) -> PaymentRefunded:
    return PaymentRefunded(
        payment_id=names.payment_id,
        refund_id="ref_1",
        customer_id=names.customer_id,
        product_id="course-1",
        amount=AMOUNT,
        currency="BDT",
        refunded_total=AMOUNT,
        is_full=True,
        refunded_at=names.at,
    )


async def test_what_went_back_and_was_taken_away_is_clean(
    new_database: str, tables: Tables
) -> None:
    await reversed_(tables, await refunded(tables))
    await reversed_(tables, await lost(tables), cause="dispute_lost")
    await reversed_(tables, await lost(tables, "opened"), cause="dispute_lost")
    await reversed_(tables, await refunded(tables), "never")
    planned = await refunded(tables)
    await reversed_(tables, planned, "waiting")
    await tell(tables, planned, "revocation_planned")

    found = await check(new_database)

    assert problems(found) == {}
    assert found[REVOKED].waiting == 1


async def test_what_is_on_its_way_to_enrollment_is_no_fault(
    new_database: str, tables: Tables
) -> None:
    gone = await refunded(tables)
    message = message_of(gone)
    await tables.message("payments", "enrollment.revocations", message.name, message.encode())
    back = await tables.succeeded()
    await reversed_(tables, back)
    returned = RefundReturned(
        payment_id=back.payment_id,
        refund_id="ref_1",
        customer_id=back.customer_id,
        product_id="course-1",
        amount=AMOUNT,
        currency="BDT",
        refunded_total=0,
        returned_at=back.at,
    )
    await tables.message("payments", "enrollment.revocations", returned.name, returned.encode())

    found = await check(new_database)

    assert problems(found) == {}
    assert found[REVOKED].waiting == 2


async def test_money_that_was_held_and_given_back_enrolled_nobody(
    new_database: str, tables: Tables
) -> None:
    names = await tables.held()
    await tables.execute(
        "payments",
        "UPDATE payment SET state = 'refunded', refunded_amount = amount WHERE id = $1",
        names.payment_id,
    )

    assert problems(await check(new_database)) == {}


async def lose_the_news(tables: Tables) -> None:
    await refunded(tables)


async def lose_the_news_of_a_dispute(tables: Tables) -> None:
    await lost(tables)


async def bury_the_news(tables: Tables) -> None:
    message = message_of(await refunded(tables))
    await tables.dead_letter("enrollment", message.name, message.encode(), "a bug")


async def take_what_is_paid(tables: Tables) -> None:
    await reversed_(tables, await tables.succeeded())


async def forget_what_is_due(tables: Tables) -> None:
    await reversed_(tables, await refunded(tables), "waiting")
    await tables.execute(
        "enrollment", "UPDATE payment_reversal SET due_at = now() - interval '11 minutes'"
    )


async def take_without_a_line(tables: Tables) -> None:
    await reversed_(tables, await refunded(tables))
    await tables.execute(
        "enrollment", "DELETE FROM enrollment_history WHERE event LIKE 'revoked_%'"
    )


async def refund_what_enrolled_nobody(tables: Tables) -> None:
    names = await refunded(tables)
    await reversed_(tables, names)
    await tables.execute("enrollment", "DELETE FROM enrollment WHERE id = $1", names.enrollment_id)


@pytest.mark.parametrize(
    ("fault", "found_by", "problem"),
    [
        (lose_the_news, REVOKED, "does not know of it, and no message is on its way"),
        (lose_the_news_of_a_dispute, REVOKED, "does not know of it"),
        (bury_the_news, REVOKED, "its message is a dead letter"),
        (take_what_is_paid, REVOKED, "counts as gone at enrollment, but its money is ours"),
        (forget_what_is_due, REVOKED, "(refund) was to be acted on at"),
        (take_without_a_line, ENROLLMENTS, "is revoked, but its history ends with granted"),
        (refund_what_enrolled_nobody, ENROLLED, "nobody is enrolled for it"),
    ],
)
async def test_a_fault_is_found(
    new_database: str,
    tables: Tables,
    fault: Callable[[Tables], Awaitable[None]],
    found_by: str,
    problem: str,
) -> None:
    await tables.succeeded()
    await fault(tables)

    found = problems(await check(new_database))

    assert set(found) == {found_by}
    assert problem in found[found_by][0]
