"""The audit finds each kind of fault, names it, and is silent about what is only on its way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from deploy.local import audit, service_databases
from deploy.local.invariants.catalogue import INVARIANTS
from deploy.local.invariants.findings import Result
from deploy.local.postgres_server import PostgresServer
from deploy.local.service_databases import DatabaseUnusableError
from shared.contracts.payments import PaymentSucceeded
from shared.contracts.webhook import NoticeReceived
from tests.integration.local.stored_payments import Stored, Tables, new_names, open_tables
from tests.support.blocking import run_blocking

EVENTS = "events_are_carried_on"
SUCCESSES = "one_success_per_payment"
LEDGERS = "ledgers_agree"
BOOKS = "books_agree"
HISTORY = "history_agrees"
ENROLLED = "enrolled_exactly_when_paid"
ENROLLMENTS = "enrollment_history_agrees"
MESSAGES = "no_message_late"
LOOKS = "no_payment_late"
DEAD = "dead_letters"


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def check(url: str) -> dict[str, Result]:
    results = await audit.audit({"DATABASE_URL": url})
    return {result.invariant.name: result for result in results}


def violated(results: dict[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.findings.violations}


async def store_one_of_each(tables: Tables) -> Stored:
    await tables.pending()
    await tables.failed()
    await tables.held()
    await tables.held(charged=100)
    await tables.succeeded()
    return await tables.succeeded()


async def test_a_clean_database_passes(new_database: str, tables: Tables) -> None:
    await store_one_of_each(tables)

    results = await check(new_database)

    assert violated(results) == set()
    assert audit.is_clean(list(results.values()))
    assert results[EVENTS].findings.checked == 5
    assert results[LEDGERS].findings.classes == {"match": 3, "held": 1}
    assert results[ENROLLED].findings.checked == 4
    assert results[LOOKS].findings.waiting == 1


async def test_an_empty_database_passes(new_database: str) -> None:
    assert violated(await check(new_database)) == set()


Fault = Callable[[Tables, Stored], Awaitable[None]]


def by(service: str, query: str) -> Fault:
    """Make a fault by a statement whose $1 is the id or name that the query is about."""

    async def make(tables: Tables, names: Stored) -> None:
        subjects = {
            "webhook": names.event_key,
            "payments": names.payment_id,
            "enrollment": names.enrollment_id,
            "simulator": names.reference,
        }
        for statement in query.split(";"):
            arguments = [subjects[service]] if "$1" in statement else []
            await tables.execute(service, statement, *arguments)

    return make


async def lose_the_payment(tables: Tables, _names: Stored) -> None:
    stray = new_names()
    await tables.notice(stray)


async def charge_an_unknown_payment(tables: Tables, _names: Stored) -> None:
    await tables.charge(new_names())


async def charge_twice(tables: Tables, names: Stored) -> None:
    await tables.charge(names)


async def charge_twice_unequally(tables: Tables, names: Stored) -> None:
    await tables.charge(names, amount=1)


async def charge_in_two_attempts(tables: Tables, names: Stored) -> None:
    second = new_names()
    await tables.execute(
        "payments",
        """
        INSERT INTO attempt (reference, payment_id, number, state, created_at)
        VALUES ($1, $2, 2, 'abandoned', $3)
        """,
        second.reference,
        names.payment_id,
        second.at,
    )
    await tables.charge(second)


async def charge_a_failed_payment(tables: Tables, _names: Stored) -> None:
    await tables.charge(await tables.failed())


async def charge_a_waiting_payment_twice(tables: Tables, _names: Stored) -> None:
    waiting = await tables.pending()
    await tables.charge(waiting)
    await tables.charge(waiting)


async def enroll_after_failure(tables: Tables, _names: Stored) -> None:
    await tables.enrollment(await tables.failed())


async def record_a_failure_as_further_payment(tables: Tables, names: Stored) -> None:
    failed = await tables.failed()
    await tables.execute(
        "enrollment",
        "INSERT INTO further_payment VALUES ($1, $2, 'recorded', 1, 'BDT')",
        failed.payment_id,
        names.enrollment_id,
    )


async def record_a_first_payment_again(tables: Tables, names: Stored) -> None:
    await tables.execute(
        "enrollment",
        "INSERT INTO further_payment VALUES ($1, $2, 'recorded', 1, 'BDT')",
        names.payment_id,
        names.enrollment_id,
    )


async def let_a_message_grow_old(tables: Tables, names: Stored) -> None:
    await tables.notice_message(names, age_seconds=100)


async def park_a_message(tables: Tables, names: Stored) -> None:
    await tables.notice_message(names)
    await tables.execute("webhook", "UPDATE outbox SET parked_at = clock_timestamp()")


async def park_the_message_of_a_lost_event(tables: Tables, _names: Stored) -> None:
    stray = new_names()
    await tables.notice(stray)
    await park_a_message(tables, stray)


async def overdue_a_payment(tables: Tables, _names: Stored) -> None:
    pending = await tables.pending()
    await tables.execute(
        "payments",
        "UPDATE payment SET next_check_at = $2 WHERE id = $1",
        pending.payment_id,
        pending.at - timedelta(minutes=3),
    )


@pytest.mark.parametrize(
    ("fault", "found_by", "problem"),
    [
        pytest.param(lose_the_payment, {EVENTS}, "no payment with its reference", id="lost event"),
        pytest.param(
            by(
                "webhook",
                "INSERT INTO inbound_event SELECT gateway, event_key, event_day - 40, source, "
                "claim, received_at, body FROM inbound_event WHERE event_key = $1",
            ),
            {EVENTS},
            "is stored 2 times",
            id="event stored twice",
        ),
        pytest.param(
            park_the_message_of_a_lost_event,
            {EVENTS, MESSAGES},
            "its message is parked",
            id="event whose message is parked",
        ),
        pytest.param(
            by(
                "payments",
                "INSERT INTO payment_history (payment_id, at, event, state) "
                "SELECT $1, now(), 'x', state FROM unnest(ARRAY['failed', 'succeeded']) AS state",
            ),
            {HISTORY, SUCCESSES},
            "has succeeded 2 times",
            id="second success",
        ),
        pytest.param(
            by(
                "payments",
                "UPDATE payment SET gateway_payment_id = (SELECT gateway_payment_id FROM payment "
                "WHERE state = 'succeeded' AND id <> $1) WHERE id = $1",
            ),
            {SUCCESSES, LEDGERS},
            "shares the charge bank-.* with other payments",
            id="charge of another payment",
        ),
        pytest.param(
            by("payments", "UPDATE payment SET gateway_payment_id = NULL WHERE id = $1"),
            {SUCCESSES, LEDGERS, BOOKS},
            "succeeded without a charge",
            id="success without a charge",
        ),
        pytest.param(
            by("payments", "UPDATE payment SET reason = 'surplus_charge' WHERE id = $1"),
            {SUCCESSES},
            "charged more than once",
            id="surplus charge",
        ),
        pytest.param(charge_twice, {LEDGERS}, "was charged 2 times", id="duplicate charge"),
        pytest.param(
            charge_twice_unequally, {LEDGERS}, "was charged 2 times", id="conflicting duplicate"
        ),
        pytest.param(
            charge_in_two_attempts, {LEDGERS}, "was charged 2 times", id="two attempts charged"
        ),
        pytest.param(
            charge_a_waiting_payment_twice,
            {LEDGERS},
            "was charged 2 times",
            id="waiting payment charged twice",
        ),
        pytest.param(
            by("simulator", "UPDATE charge SET currency_amount = 149999 WHERE reference = $1"),
            {LEDGERS},
            "was charged 149999 BDT .* but is about 150000 BDT",
            id="other amount charged",
        ),
        pytest.param(
            by("simulator", "DELETE FROM charge WHERE reference = $1"),
            {LEDGERS},
            "the gateway has charged nothing",
            id="charge missing there",
        ),
        pytest.param(
            charge_an_unknown_payment,
            {LEDGERS},
            "no payment has this reference",
            id="unknown charge",
        ),
        pytest.param(
            charge_a_failed_payment, {LEDGERS}, "pay_.* is failed for good", id="failed but charged"
        ),
        pytest.param(
            by("payments", "UPDATE payment_history SET state = 'pending' WHERE payment_id = $1"),
            {HISTORY},
            "is succeeded, but its history ends with pending",
            id="other last state",
        ),
        pytest.param(
            by("payments", "DELETE FROM payment_history WHERE payment_id = $1"),
            {HISTORY},
            "is succeeded, but its history ends with nothing",
            id="no history",
        ),
        pytest.param(
            by(
                "payments",
                "ALTER TABLE payment DISABLE TRIGGER USER; "
                "UPDATE payment SET state = 'failed' WHERE id = $1; "
                "INSERT INTO payment_history (payment_id, at, event, state) "
                "VALUES ($1, now(), 'declined', 'failed')",
            ),
            {HISTORY, LEDGERS, BOOKS, ENROLLED},
            "went from succeeded to failed",
            id="out of succeeded",
        ),
        pytest.param(
            by("enrollment", "DELETE FROM enrollment WHERE id = $1"),
            {ENROLLED},
            "nobody is enrolled for it",
            id="paid but not enrolled",
        ),
        pytest.param(
            by("enrollment", "UPDATE enrollment SET product_id = 'course-2' WHERE id = $1"),
            {ENROLLED},
            "for another product",
            id="enrolled for another product",
        ),
        pytest.param(
            enroll_after_failure, {ENROLLED}, "has not succeeded", id="enrolled but not paid"
        ),
        pytest.param(
            record_a_failure_as_further_payment,
            {ENROLLED},
            "has not succeeded",
            id="further payment that failed",
        ),
        pytest.param(
            record_a_first_payment_again,
            {ENROLLED},
            "has had its effect 2 times",
            id="counted twice",
        ),
        pytest.param(
            by("enrollment", "UPDATE enrollment SET state = 'revoked' WHERE id = $1"),
            {ENROLLMENTS},
            "is revoked, but its history ends with granted",
            id="revoked by nobody",
        ),
        pytest.param(let_a_message_grow_old, {MESSAGES}, "was to be sent again", id="late message"),
        pytest.param(park_a_message, {MESSAGES}, "is parked", id="parked message"),
        pytest.param(overdue_a_payment, {LOOKS}, "is pending, to be looked at", id="late look"),
        pytest.param(
            by(
                "payments",
                "ALTER TABLE payment DROP CONSTRAINT waiting_has_a_time; "
                "UPDATE payment SET next_check_at = NULL WHERE state = 'pending'",
            ),
            {LOOKS},
            "is pending without a next look",
            id="stuck payment",
        ),
    ],
)
async def test_a_fault_is_found(
    new_database: str, tables: Tables, fault: Fault, found_by: set[str], problem: str
) -> None:
    names = await store_one_of_each(tables)

    await fault(tables, names)

    results = await check(new_database)
    assert violated(results) == found_by
    problems = [
        f"{example.subject} {example.problem}"
        for result in results.values()
        for example in result.findings.examples
    ]
    assert any(re.search(problem, text) for text in problems), problems
    assert not audit.is_clean(list(results.values()))


async def test_what_is_on_its_way_is_no_fault(new_database: str, tables: Tables) -> None:
    """Each step of a payment between two services, as the audit may meet it."""
    noticed = new_names()
    await tables.notice(noticed)
    await tables.notice_message(noticed)
    charged = await tables.pending()
    await tables.charge(charged)
    paid_late = await tables.failed()
    await tables.charge(paid_late)
    await tables.notice_message(paid_late)
    about_to_be_noticed = await tables.failed()
    await tables.charge(about_to_be_noticed)
    await tables.execute(
        "simulator",
        "INSERT INTO notice (gateway, reference, status, url, headers, body, due_at)"
        " VALUES ('sslcommerz', $1, 'VALID', '', '{}', '', $2)",
        about_to_be_noticed.reference,
        about_to_be_noticed.at,
    )
    announced = await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")
    await tables.execute("enrollment", "DELETE FROM enrollment_history")
    await tables.success_message(announced)

    results = await check(new_database)

    assert violated(results) == set()
    assert results[EVENTS].findings.waiting == 1
    assert results[LEDGERS].findings.classes == {"match": 1, "waiting": 3}
    assert results[ENROLLED].findings.waiting == 1
    assert results[MESSAGES].findings.waiting == 3


async def test_a_foreign_notice_ends_as_a_dead_letter_and_a_warning(
    new_database: str, tables: Tables
) -> None:
    foreign = new_names()
    await tables.notice(foreign)
    payload = json.dumps({"reference": foreign.reference})
    await tables.dead_letter("payments", NoticeReceived.name, payload, "no payment has it")

    results = await check(new_database)

    assert violated(results) == {DEAD}
    assert results[EVENTS].findings.classes == {"dead letter": 1}
    assert audit.is_clean(list(results.values()))


async def test_a_notice_of_another_system_is_none_of_ours(
    new_database: str, tables: Tables
) -> None:
    await tables.notice(new_names())
    await tables.execute("webhook", "UPDATE inbound_event SET reference = 'INV-1'")

    results = await check(new_database)

    assert violated(results) == set()
    assert results[EVENTS].findings.classes == {"of another system": 1}


@pytest.mark.parametrize("change", ["reference = NULL", "event_key = 'evt_1'"])
async def test_an_event_is_followed_by_its_reference_or_by_its_key_of_old(
    new_database: str, tables: Tables, change: str
) -> None:
    await tables.failed()
    await tables.execute("webhook", f"UPDATE inbound_event SET {change}")  # noqa: S608 - ours
    followed = await check(new_database)
    await tables.execute("payments", "DELETE FROM attempt")
    lost = await check(new_database)

    assert violated(followed) == set()
    assert EVENTS in violated(lost)


async def test_a_success_in_the_dead_letters_is_a_fault_with_its_reason(
    new_database: str, tables: Tables
) -> None:
    names = await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")
    payload = json.dumps({"paymentId": names.payment_id})
    await tables.dead_letter("enrollment", PaymentSucceeded.name, payload, "a bug")

    (example,) = (await check(new_database))[ENROLLED].findings.examples

    assert names.payment_id == example.subject
    assert example.problem.endswith("a dead letter: a bug")


async def test_faults_are_found_on_every_page(
    new_database: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_databases, "PAGE_ROWS_MAX", 2)
    for _ in range(7):
        await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")
    await tables.execute("simulator", "DELETE FROM charge")
    await tables.execute(
        "webhook",
        "UPDATE inbound_event SET reference = overlay(reference PLACING '00' FROM 5 FOR 2)",
    )

    results = await check(new_database)

    for name in (EVENTS, LEDGERS, ENROLLED):
        assert results[name].findings.violations == 7
        assert len(results[name].findings.examples) == 5


async def test_without_a_simulator_the_ledgers_are_not_compared(
    new_database: str, tables: Tables
) -> None:
    names = await tables.succeeded()
    await tables.charge(names)
    await tables.execute("simulator", "DROP SCHEMA simulator CASCADE")

    results = await check(new_database)

    assert violated(results) == set()
    assert results[LEDGERS].skipped == "there is no simulator here"


async def test_payments_of_a_real_gateway_are_not_sought_in_the_simulator(
    new_database: str, tables: Tables
) -> None:
    await tables.succeeded()
    for table in ("charge", "session CASCADE"):
        await tables.execute("simulator", f"TRUNCATE {table}")

    assert violated(await check(new_database)) == set()


async def test_a_database_without_tables_cannot_be_checked(
    new_database: str, tables: Tables
) -> None:
    await tables.execute("enrollment", "DROP SCHEMA enrollment CASCADE")

    with pytest.raises(DatabaseUnusableError, match="enrollment has no tables yet: run `sluice"):
        await check(new_database)


def command(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", "audit", *arguments],
        env={"PATH": os.environ["PATH"]} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_exit_code_tells_a_clean_database_from_a_faulty_one(new_database: str) -> None:
    environment = {"DATABASE_URL": new_database}

    clean = command("--json", environment=environment)

    assert (clean.returncode, clean.stderr) == (audit.CLEAN, "")
    assert json.loads(clean.stdout)["clean"] is True

    async def leave_a_fault() -> None:
        async with open_tables(new_database) as tables:
            await tables.notice(new_names())

    run_blocking(leave_a_fault())
    faulty = command(environment=environment)

    assert faulty.returncode == audit.VIOLATED
    assert "To do: The message of this notice is lost" in faulty.stdout
    assert f"1 of {len(INVARIANTS)} invariants are violated." in faulty.stdout


def test_without_a_database_the_audit_says_what_to_do(tmp_path: Path) -> None:
    refused = command("--data-dir", str(tmp_path), environment={})

    assert refused.returncode == 2
    assert "no Sluice is running on" in refused.stderr
    assert refused.stdout == ""


def test_an_unreachable_database_is_not_a_clean_one(postgres: PostgresServer) -> None:
    refused = command(environment={"DATABASE_URL": postgres.url("nobody")})

    assert refused.returncode == 2
    assert "cannot use the database of webhook" in refused.stderr
