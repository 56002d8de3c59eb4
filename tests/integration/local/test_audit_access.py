"""The audit follows what subscriptions give to the enrollments in it, and explain tells of both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from deploy.local import audit, explain
from deploy.local.invariants.findings import Findings
from deploy.local.story import Story, UnknownPaymentError
from shared.contracts.payments import ChargeSucceeded
from shared.contracts.scheduler import AccessGranted
from tests.integration.local.stored_payments import (
    AMOUNT,
    START,
    Stored,
    Tables,
    new_names,
    open_tables,
)

TOLD = "access_is_told"
FOLLOWED = "enrolled_while_subscribed"
ENROLLED = "enrolled_exactly_when_paid"
ENROLLMENTS = "enrollment_history_agrees"
GONE = "revoked_exactly_when_gone"

_PLAN = """
    INSERT INTO plan (id, product_id, product_name, amount, currency, interval_unit,
                      interval_every, gateway, grace, dunning_days, dunning_end, catch_up,
                      catch_up_max, name, created_at, updated_at)
    VALUES ('pln_1', 'course-1', 'Course', 150000, 'BDT', 'month', 1, 'stripe', '3 days', '{1}',
            'cancel', 'current', 1, 'Monthly', $1, $1)
        ON CONFLICT DO NOTHING
"""

_SUBSCRIPTION = """
    INSERT INTO subscription (id, customer_id, plan_id, state, reason, priority, auto_pay, zone,
                              anchor, start_at, period_number, period_start, period_end, due_at,
                              has_access, access_sequence, created_at, updated_at)
    VALUES ($1, $2, 'pln_1', 'active', 'paid', 'normal', true, 'UTC', $3, $3, 0, $3,
            $3::timestamptz + interval '1 month', $3::timestamptz + interval '1 month', $4, $5,
            $3, $3)
"""

_ACCESS = """
    INSERT INTO subscription_access (subscription_id, sequence, customer_id, product_id,
                                     has_access, told_at)
    VALUES ($1, $2, $3, 'course-1', $4, $5)
"""


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def findings_in(url: str) -> dict[str, Findings]:
    results = await audit.audit({"DATABASE_URL": url})
    found = {result.invariant.name: result.findings for result in results}
    return {name: found[name] for name in (TOLD, FOLLOWED, ENROLLED, ENROLLMENTS, GONE)}


def problems(found: dict[str, Findings]) -> dict[str, list[str]]:
    return {
        name: [example.problem for example in findings.examples]
        for name, findings in found.items()
        if findings.violations
    }


def subscription_of(names: Stored) -> str:
    return f"sub_{names.payment_id[4:]}"


async def told(tables: Tables, names: Stored, *, sequence: int = 1, gives: bool = True) -> None:
    """Store a subscription that has said for the so-manieth time who may use what."""
    await tables.execute("scheduler", _PLAN, START)
    await tables.execute(
        "scheduler",
        _SUBSCRIPTION,
        subscription_of(names),
        names.customer_id,
        names.at,
        gives,
        sequence,
    )


async def heard(tables: Tables, names: Stored, *, sequence: int = 1, gives: bool = True) -> None:
    """Let enrollment have heard of it."""
    await tables.execute(
        "enrollment",
        _ACCESS,
        subscription_of(names),
        sequence,
        names.customer_id,
        gives,
        names.at,
    )


async def line(tables: Tables, names: Stored, event: str, state: str) -> None:
    await tables.execute(
        "enrollment",
        """
        INSERT INTO enrollment_history (enrollment_id, event, subscription_id)
        VALUES ($1, $2, CASE WHEN $2 NOT LIKE '%_by_hand' THEN $3 END)
        """,
        names.enrollment_id,
        event,
        subscription_of(names),
    )
    await tables.execute(
        "enrollment", "UPDATE enrollment SET state = $2 WHERE id = $1", names.enrollment_id, state
    )


async def enrolled(tables: Tables, names: Stored) -> None:
    """Store an enrollment that a subscription gave."""
    await tables.execute(
        "enrollment",
        "INSERT INTO enrollment (id, customer_id, product_id, state)"
        " VALUES ($1, $2, 'course-1', 'active')",
        names.enrollment_id,
        names.customer_id,
    )
    await line(tables, names, "granted", "active")


async def charged(tables: Tables) -> Stored:
    """Store a subscription that was charged once, with all that belongs to it."""
    names = new_names()
    await tables.payment(names, "succeeded", bank_id=names.bank_id)
    await tables.execute(
        "payments",
        "UPDATE payment SET subscription_id = $2 WHERE id = $1",
        names.payment_id,
        subscription_of(names),
    )
    await tables.history(names, ["created", "pending", "succeeded"])
    await tables.charge(names)
    await told(tables, names)
    await heard(tables, names)
    await enrolled(tables, names)
    return names


async def ended(tables: Tables, names: Stored) -> None:
    """Let a charged subscription end."""
    await tables.execute(
        "scheduler",
        "UPDATE subscription SET has_access = false, access_sequence = 2 WHERE id = $1",
        subscription_of(names),
    )
    await tables.execute(
        "enrollment",
        "UPDATE subscription_access SET has_access = false, sequence = 2, reason = 'past_due'"
        " WHERE subscription_id = $1",
        subscription_of(names),
    )
    await line(tables, names, "revoked_with_subscription", "revoked")


async def test_subscriptions_that_are_followed_are_clean(new_database: str, tables: Tables) -> None:
    await charged(tables)
    await ended(tables, await charged(tables))
    by_operator = await charged(tables)
    await line(tables, by_operator, "revoked_by_hand", "revoked")
    kept = await charged(tables)
    await ended(tables, kept)
    await line(tables, kept, "granted_by_hand", "active")

    found = await findings_in(new_database)

    assert problems(found) == {}
    assert (found[TOLD].checked, found[FOLLOWED].checked) == (4, 4)


async def test_what_is_on_its_way_to_enrollment_is_no_fault(
    new_database: str, tables: Tables
) -> None:
    names = new_names()
    await told(tables, names)
    message = granted(names)
    await tables.message("scheduler", "enrollment.access", message.name, message.encode())

    found = await findings_in(new_database)

    assert problems(found) == {}
    assert found[TOLD].waiting == 1


async def test_enrollment_may_have_heard_more_than_was_read_a_moment_ago(
    new_database: str, tables: Tables
) -> None:
    names = await charged(tables)
    await tables.execute("enrollment", "UPDATE subscription_access SET sequence = 3")
    await tables.execute(
        "scheduler",
        "UPDATE subscription SET has_access = false, access_sequence = 2 WHERE id = $1",
        subscription_of(names),
    )

    assert problems(await findings_in(new_database)) == {}


def granted(names: Stored) -> AccessGranted:
    return AccessGranted(
        subscription_id=subscription_of(names),
        customer_id=names.customer_id,
        product_id="course-1",
        sequence=1,
        granted_at=names.at,
    )


async def lose_the_news(tables: Tables, _names: Stored) -> None:
    await told(tables, new_names())


async def bury_the_news(tables: Tables, _names: Stored) -> None:
    names = new_names()
    await told(tables, names)
    message = granted(names)
    await tables.dead_letter("enrollment", message.name, message.encode(), "a bug")


async def lose_the_end(tables: Tables, names: Stored) -> None:
    await tables.execute(
        "scheduler",
        "UPDATE subscription SET has_access = false, access_sequence = 2 WHERE id = $1",
        subscription_of(names),
    )


async def hear_another_thing(tables: Tables, _names: Stored) -> None:
    await tables.execute("enrollment", "UPDATE subscription_access SET has_access = false")
    await tables.execute("enrollment", "UPDATE enrollment SET state = 'revoked'")
    await tables.execute(
        "enrollment",
        "INSERT INTO enrollment_history (enrollment_id, event, subscription_id)"
        " SELECT id, 'revoked_with_subscription', 'sub_1' FROM enrollment",
    )


async def take_away_what_is_given(tables: Tables, names: Stored) -> None:
    await line(tables, names, "revoked_with_subscription", "revoked")


async def enroll_nobody(tables: Tables, _names: Stored) -> None:
    await tables.execute("enrollment", "DELETE FROM enrollment")


async def keep_what_is_over(tables: Tables, names: Stored) -> None:
    await ended(tables, names)
    await line(tables, names, "regranted", "active")


async def enroll_by_the_payment(tables: Tables, names: Stored) -> None:
    await tables.execute(
        "enrollment",
        "UPDATE enrollment SET payment_id = $2 WHERE id = $1",
        names.enrollment_id,
        names.payment_id,
    )


@pytest.mark.parametrize(
    ("fault", "found_by", "problem"),
    [
        (lose_the_news, TOLD, "but enrollment knows nothing, and no message is on its way"),
        (bury_the_news, TOLD, "and its message is a dead letter"),
        (lose_the_end, TOLD, "ends access (2), but enrollment knows gives access (1)"),
        (hear_another_thing, TOLD, "gives access (1), but enrollment knows ends access (1)"),
        (take_away_what_is_given, FOLLOWED, "is revoked"),
        (enroll_nobody, FOLLOWED, "gives access, but nobody is enrolled"),
        (keep_what_is_over, FOLLOWED, "is active, but its subscription is over"),
        (enroll_by_the_payment, ENROLLED, "and not on its subscription sub_"),
    ],
)
async def test_a_fault_is_found(
    new_database: str,
    tables: Tables,
    fault: Callable[[Tables, Stored], Awaitable[None]],
    found_by: str,
    problem: str,
) -> None:
    names = await charged(tables)
    await fault(tables, names)

    found = problems(await findings_in(new_database))

    assert set(found) == {found_by}
    assert problem in found[found_by][0]


async def story_of(url: str, given: str) -> Story:
    return await explain.explain({"DATABASE_URL": url}, given)


async def test_the_story_of_a_charge_tells_of_its_subscription_and_who_is_enrolled(
    new_database: str, tables: Tables
) -> None:
    names = await charged(tables)
    subscription = subscription_of(names)

    story = await story_of(new_database, names.payment_id)

    assert story.summary.endswith(f", ordered by {subscription}")
    assert [entry.text for entry in story.entries if entry.service == "enrollment"] == [
        f"the customer was enrolled as {names.enrollment_id}, by {subscription}"
    ]
    assert story.now == f"succeeded, and {names.enrollment_id} is active"
    assert (story.next, story.because) == (
        "nothing",
        f"it is final, and {subscription} knows of it",
    )


async def test_the_story_of_a_charge_says_what_the_scheduler_has_not_heard(
    new_database: str, tables: Tables
) -> None:
    names = await charged(tables)
    message = ChargeSucceeded(
        payment_id=names.payment_id,
        subscription_id=subscription_of(names),
        attempts_made=1,
        amount=AMOUNT,
        currency="BDT",
        gateway="sslcommerz",
        gateway_payment_id=names.bank_id,
        succeeded_at=names.at,
    )
    await tables.message("payments", "scheduler.outcomes", message.name, message.encode())

    story = await story_of(new_database, names.payment_id)

    assert story.next.startswith("its message is sent again at")
    assert story.because == "the scheduler has not confirmed it yet"


async def test_an_enrollment_by_a_subscription_leads_to_its_payments(
    new_database: str, tables: Tables
) -> None:
    names = await charged(tables)

    with pytest.raises(UnknownPaymentError, match=f"follows .* {subscription_of(names)}, not a"):
        await story_of(new_database, names.enrollment_id)
