"""The audit checks the periods and charges of subscriptions, and finds each fault by its name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.local import audit
from deploy.local.invariants.figures import FIGURES_AGREE
from deploy.local.invariants.findings import Findings
from services.scheduler.domain.periods import boundary
from shared.contracts.payments import ChargeFailed, ChargeSucceeded
from shared.contracts.scheduler import ChargeSubscription, RetryCharge
from tests.integration.local.stored_payments import AMOUNT, Tables, new_names
from tests.integration.local.subscriptions.stored import (
    CYCLE,
    JOB,
    RHYTHM,
    Subscribed,
    charged,
    subscribe,
)

FOLLOW = "periods_follow"
PAID = "periods_paid_once"
RESOLVED = "charges_are_resolved"
AGREE = "subscriptions_agree"
LATE = "no_subscription_late"
ASIDE = "no_subscription_set_aside"


async def findings_in(url: str) -> dict[str, Findings]:
    results = await audit.audit({"DATABASE_URL": url})
    # Rows that are stored past the scheduler are in no figure.
    return {
        result.invariant.name: result.findings
        for result in results
        if result.invariant is not FIGURES_AGREE
    }


def problems(found: dict[str, Findings]) -> dict[str, list[str]]:
    return {
        name: [example.problem for example in findings.examples]
        for name, findings in found.items()
        if findings.violations
    }


async def test_subscriptions_without_a_fault_are_clean(new_database: str, tables: Tables) -> None:
    await subscribe(tables)
    await subscribe(tables)

    found = await findings_in(new_database)

    assert problems(found) == {}
    assert (found[FOLLOW].checked, found[PAID].checked, found[AGREE].checked) == (6, 12, 2)
    assert (found[LATE].checked, found[LATE].waiting) == (2, 2)


async def change(tables: Tables, subscribed: Subscribed, what: str, *values: Any) -> None:
    query = f"UPDATE subscription SET {what} WHERE id = $1"  # noqa: S608 - of this file
    await tables.execute("scheduler", query, subscribed.id, *values)


async def charging(tables: Tables, subscribed: Subscribed, state: str) -> None:
    """Let the last period be charged, by a payment of that state."""
    what = "is_unpaid = true, charging = $2, due_at = NULL"
    await change(tables, subscribed, what, subscribed.last)
    await tables.execute(
        "scheduler",
        "UPDATE billing_cycle SET state = 'charging', paid_at = NULL WHERE payment_id = $1",
        subscribed.last,
    )
    await tables.execute(
        "scheduler",
        "UPDATE job SET status = 'active', finished_at = NULL WHERE payment_id = $1",
        subscribed.last,
    )
    await tables.execute(
        "payments",
        """
        UPDATE payment
           SET state = $2, next_check_at = CASE WHEN $2 = 'pending'
                                                THEN clock_timestamp() + interval '1 minute' END,
               gateway_payment_id = NULL
         WHERE id = $1
        """,
        subscribed.last,
        state,
    )


async def test_a_charge_in_hand_is_waiting(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await charging(tables, subscribed, "pending")

    found = await findings_in(new_database)

    assert {RESOLVED, PAID, AGREE, LATE, FOLLOW}.isdisjoint(problems(found))
    assert (found[RESOLVED].checked, found[RESOLVED].waiting) == (1, 1)
    assert found[LATE].classes["charging"] == 1


async def test_an_order_and_an_outcome_that_are_on_their_way_are_waiting(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await charging(tables, subscribed, "failed")
    await tables.message("payments", "scheduler.outcomes", ChargeFailed.name, about(subscribed))
    other = await subscribe(tables)
    await charging(tables, other, "pending")
    await tables.execute("payments", "DELETE FROM payment WHERE id = $1", other.last)
    await tables.message("scheduler", "payments.charges", ChargeSubscription.name, about(other))

    found = await findings_in(new_database)

    assert {RESOLVED, PAID, AGREE}.isdisjoint(problems(found))
    assert (found[RESOLVED].checked, found[RESOLVED].waiting) == (2, 2)


async def test_a_success_on_its_way_is_waiting(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await charging(tables, subscribed, "succeeded")
    await tables.message("payments", "scheduler.outcomes", ChargeSucceeded.name, about(subscribed))

    found = await findings_in(new_database)

    assert {RESOLVED, PAID}.isdisjoint(problems(found))
    assert (found[PAID].waiting, found[RESOLVED].waiting) == (1, 1)


async def test_a_retry_that_an_order_will_wake_is_waiting(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await retry_waiting(tables, subscribed)
    assert (
        "whose retry waits for an order" in problems(await findings_in(new_database))[RESOLVED][0]
    )

    await tables.message("scheduler", "payments.charges", RetryCharge.name, about(subscribed))

    assert RESOLVED not in problems(await findings_in(new_database))


def about(subscribed: Subscribed) -> str:
    return f'{{"paymentId": "{subscribed.last}"}}'


async def retry_waiting(tables: Tables, subscribed: Subscribed) -> None:
    await charging(tables, subscribed, "retry_scheduled")
    await tables.execute(
        "payments",
        """
        INSERT INTO retry (payment_id, gateway, priority, state, customer_id, product_id, amount,
                           currency, kind, code, continues, created_at, updated_at)
        VALUES ($1, 'sslcommerz', 'normal', 'waiting', 'customer', 'course-1', 1, 'BDT',
                'processing_error', 'x', true, now(), now())
        """,
        subscribed.last,
    )


async def open_period_late(tables: Tables, subscribed: Subscribed) -> None:
    await tables.execute(
        "scheduler",
        "UPDATE billing_cycle SET period_start = period_start + interval '1 hour'"
        " WHERE subscription_id = $1 AND number = 1",
        subscribed.id,
    )


async def leave_out_a_period(tables: Tables, subscribed: Subscribed) -> None:
    await tables.execute(
        "scheduler",
        "DELETE FROM billing_cycle WHERE subscription_id = $1 AND number = 1",
        subscribed.id,
    )
    await tables.execute(
        "payments",
        "UPDATE payment SET subscription_id = NULL WHERE id = $1",
        subscribed.payments[1].payment_id,
    )
    await tables.enrollment(subscribed.payments[1])


async def bill_a_period_twice(tables: Tables, subscribed: Subscribed) -> None:
    names = await charged(tables, subscribed.id)
    start, end = boundary(RHYTHM, 1), boundary(RHYTHM, 2)
    row = (subscribed.id, start + timedelta(hours=1), end, 1, AMOUNT, names.payment_id)
    await tables.execute("scheduler", CYCLE, *row)


async def move_the_anchor(tables: Tables, subscribed: Subscribed) -> None:
    await change(tables, subscribed, "anchor = anchor - interval '1 hour'")


async def charge_beside(tables: Tables, subscribed: Subscribed) -> None:
    await charged(tables, subscribed.id)


async def charge_a_paid_period(tables: Tables, subscribed: Subscribed) -> None:
    names = await charged(tables, subscribed.id)
    await tables.execute(
        "scheduler",
        """
        INSERT INTO subscription_history (subscription_id, at, event, state, reason, period_start,
                                          payment_id)
        VALUES ($1, now(), 'paid_twice', 'active', 'paid', $2, $3)
        """,
        subscribed.id,
        boundary(RHYTHM, 2),
        names.payment_id,
    )


async def bury_a_success(tables: Tables, subscribed: Subscribed) -> None:
    names = await charged(tables, subscribed.id)
    payload = f'{{"paymentId": "{names.payment_id}"}}'
    await tables.dead_letter("scheduler", ChargeSucceeded.name, payload, "a bug")


async def take_another_amount(tables: Tables, subscribed: Subscribed) -> None:
    await tables.execute(
        "scheduler",
        "UPDATE billing_cycle SET amount = 1 WHERE payment_id = $1",
        subscribed.last,
    )


async def pay_by_nobody(tables: Tables, subscribed: Subscribed) -> None:
    await tables.execute(
        "scheduler",
        "UPDATE billing_cycle SET payment_id = 'pay_of_nobody' WHERE payment_id = $1",
        subscribed.last,
    )
    await tables.execute(
        "payments",
        "UPDATE payment SET subscription_id = NULL WHERE id = $1",
        subscribed.last,
    )
    await tables.enrollment(subscribed.payments[-1])


async def lose_an_outcome(tables: Tables, subscribed: Subscribed) -> None:
    await charging(tables, subscribed, "failed")


async def bury_an_outcome(tables: Tables, subscribed: Subscribed) -> None:
    await charging(tables, subscribed, "failed")
    await tables.dead_letter("scheduler", ChargeFailed.name, about(subscribed), "a bug")


async def lose_an_order(tables: Tables, subscribed: Subscribed) -> None:
    await charging(tables, subscribed, "pending")
    await tables.execute("payments", "DELETE FROM payment WHERE id = $1", subscribed.last)


async def charge_twice_at_a_time(tables: Tables, subscribed: Subscribed) -> None:
    await charging(tables, subscribed, "pending")
    names = new_names()
    await tables.payment(names, "pending", next_check_at=datetime.now(UTC) + timedelta(minutes=1))
    await tables.history(names, ["created", "pending"])
    await tables.execute(
        "payments",
        "UPDATE payment SET subscription_id = $2 WHERE id = $1",
        names.payment_id,
        subscribed.id,
    )
    start = boundary(RHYTHM, 2)
    await tables.execute("scheduler", JOB, subscribed.id, names.payment_id, start, AMOUNT)


async def forget_a_job(tables: Tables, subscribed: Subscribed) -> None:
    await charging(tables, subscribed, "pending")
    await tables.execute("scheduler", "DELETE FROM job WHERE payment_id = $1", subscribed.last)


async def leave_a_job(tables: Tables, subscribed: Subscribed) -> None:
    await tables.execute(
        "scheduler",
        "UPDATE job SET status = 'active', finished_at = NULL WHERE payment_id = $1",
        subscribed.last,
    )


async def leave_a_period_unpaid(tables: Tables, subscribed: Subscribed) -> None:
    await tables.execute(
        "scheduler",
        "UPDATE billing_cycle SET state = 'unpaid', paid_at = NULL WHERE payment_id = $1",
        subscribed.payments[0].payment_id,
    )
    await tables.execute(
        "payments",
        "UPDATE payment SET subscription_id = NULL WHERE id = $1",
        subscribed.payments[0].payment_id,
    )
    await tables.enrollment(subscribed.payments[0])


async def forget_that_it_is_paid(tables: Tables, subscribed: Subscribed) -> None:
    await change(tables, subscribed, "is_unpaid = true")


async def give_no_access(tables: Tables, subscribed: Subscribed) -> None:
    await change(tables, subscribed, "has_access = false")


async def be_late(tables: Tables, subscribed: Subscribed) -> None:
    await change(tables, subscribed, "due_at = now() - interval '1 hour'")


async def be_late_on_a_clock(tables: Tables, subscribed: Subscribed) -> None:
    await put_on_clock(tables, subscribed, is_advancing=False)


async def put_on_clock(tables: Tables, subscribed: Subscribed, *, is_advancing: bool) -> None:
    await tables.execute(
        "scheduler",
        "INSERT INTO test_clock (id, name, now, is_advancing, created_at)"
        " VALUES ('clk_1', 'a year', '2026-08-01T00:00:00Z', $1, now())",
        is_advancing,
    )
    await change(
        tables,
        subscribed,
        "clock_id = 'clk_1', as_of = period_start, due_at = period_end",
    )


async def set_aside(tables: Tables, subscribed: Subscribed) -> None:
    await change(tables, subscribed, "problem = 'ValueError: a bug', due_at = period_start")


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (open_period_late, (FOLLOW, "has no period from 2026-02-28 08:30:00 to 2026-02-28 09")),
        (
            leave_out_a_period,
            (FOLLOW, "has no period from 2026-02-28 08:30:00 to 2026-03-31"),
        ),
        (bill_a_period_twice, (FOLLOW, "has periods that overlap from 2026-02-28 09:30:00 to")),
        (move_the_anchor, (FOLLOW, "by its anchor it is from 2026-01-31 07:30:00 to")),
        (charge_beside, (PAID, ", which knows nothing of it")),
        (charge_a_paid_period, (PAID, "has paid a period of sub_")),
        (bury_a_success, (PAID, ", and its message is a dead letter")),
        (take_another_amount, (PAID, f", which took {AMOUNT} BDT")),
        (pay_by_nobody, (PAID, "with pay_of_nobody, which payments does not know")),
        (lose_an_outcome, (RESOLVED, ", which is failed, and no message is on its way")),
        (bury_an_outcome, (RESOLVED, ", which is failed, and its message is a dead letter")),
        (lose_an_order, (RESOLVED, ", which payments does not know, and no message is on its way")),
        (charge_twice_at_a_time, (RESOLVED, "charges its period of 2026-03-31 07:30 by pay_")),
        (forget_a_job, (AGREE, ", but its job is None")),
        (leave_a_job, (AGREE, "does not wait for it")),
        (leave_a_period_unpaid, (AGREE, "its period of 2026-01-31 08:30 is unpaid")),
        (forget_that_it_is_paid, (AGREE, "unpaid: True, charging: None), but its period is paid")),
        (give_no_access, (AGREE, "is active and paid, but gives no access")),
        (be_late, (LATE, "was due at")),
        (be_late_on_a_clock, (LATE, "of clock clk_1, which has gone on")),
        (set_aside, (ASIDE, "ValueError: a bug")),
    ],
)
async def test_a_fault_is_found(
    new_database: str,
    tables: Tables,
    subscribed: Subscribed,
    fault: Callable[[Tables, Subscribed], Awaitable[None]],
    found: tuple[str, str],
) -> None:
    found_by, problem = found
    await fault(tables, subscribed)

    told = problems(await findings_in(new_database))

    assert any(problem in text for text in told.get(found_by, [])), told


async def test_what_was_paid_twice_and_given_back_is_only_counted(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await charge_a_paid_period(tables, subscribed)
    await tables.execute(
        "payments",
        "UPDATE payment SET state = 'refunded' WHERE id NOT IN (SELECT unnest($1::text[]))",
        [names.payment_id for names in subscribed.payments],
    )

    found = (await findings_in(new_database))[PAID]

    assert found.violations == 0
    assert found.classes == {"paid twice": 1, "given back": 1}


async def test_a_clock_that_is_advancing_and_a_question_are_waiting(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await put_on_clock(tables, subscribed, is_advancing=True)
    asking = await subscribe(tables)
    await change(tables, asking, "asks_to_catch_up = true, due_at = NULL")

    found = await findings_in(new_database)

    assert {LATE, ASIDE}.isdisjoint(problems(found))
    assert found[LATE].classes["asked which periods are billed"] == 1
    assert found[ASIDE].waiting == 1
