"""A payment's story: complete, in order, with what comes next, and without personal data."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from rich.console import Console

from deploy.local import explain, story_words
from deploy.local.story import Story, UnknownPaymentError, as_json
from shared.contracts.payments import PaymentSucceeded
from shared.contracts.webhook import DisputeNoticed
from shared.gateways.interface import FailureKind
from tests.integration.local.stored_payments import Tables, new_names, open_tables
from tests.support.blocking import run_blocking


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def tell(url: str, given: str) -> Story:
    return await explain.explain({"DATABASE_URL": url}, given)


def printed(story: Story, *, width: int = 200) -> str:
    target = Console(file=io.StringIO(), width=width)
    explain.render(target, story)
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def outlook(story: Story) -> tuple[str, str, str]:
    return story.now, story.next, story.because


async def test_the_story_is_told_in_order(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()

    story = await tell(new_database, names.payment_id)

    assert [(entry.service, entry.event, entry.state) for entry in story.entries] == [
        ("payments", "created", "created"),
        ("payments", "attempt_started", None),
        ("payments", "checkout_opened", "pending"),
        ("webhook", "notice_received", None),
        ("payments", "confirmed", "succeeded"),
        ("enrollment", "granted", None),
    ]
    assert story.summary == (
        f"1500.00 BDT by sslcommerz (checkout), customer {names.customer_id}, product course-1"
    )
    assert outlook(story) == (
        f"succeeded, and {names.enrollment_id} is active",
        "nothing",
        "it is final and has had its effect",
    )


async def test_every_id_leads_to_the_same_story(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()

    stories = [
        await tell(new_database, given)
        for given in (names.payment_id, names.reference, names.enrollment_id)
    ]

    assert [names.payment_id] * 3 == [story.payment_id for story in stories]
    assert stories[0] == stories[1] == stories[2]


async def test_a_person_reads_times_states_and_reasons(new_database: str, tables: Tables) -> None:
    names = await tables.pending()

    text = printed(await tell(new_database, names.payment_id))

    opened = f"{names.at + timedelta(seconds=1):%Y-%m-%d %H:%M:%S}"
    (line,) = [line for line in text.splitlines() if line.startswith(opened)]
    assert "created → pending: the gateway opened a page" in line
    assert "because: customer_must_pay" in line
    at = f"{names.at + timedelta(minutes=5):%Y-%m-%d %H:%M:%S}"
    assert f"now: pending; next: the gateway is asked at {at}" in text
    assert "because the customer has a page to pay on and no notice has come" in text


async def test_the_notice_and_the_end_of_a_dispute_are_told(
    new_database: str, tables: Tables
) -> None:
    names = await tables.succeeded()
    await tables.execute(
        "webhook",
        """
        INSERT INTO inbound_event (gateway, event_key, event_day, source, claim, received_at, body,
                                   reference)
        VALUES ('sslcommerz', 'evt_1', $1, 'notice', 'dispute', $2, '', $3)
        """,
        names.event_day,
        names.at + timedelta(seconds=6),
        names.bank_id,
    )
    message = DisputeNoticed(
        gateway="sslcommerz",
        dispute="du_1",
        reference=names.bank_id,
        amount=1,
        currency="BDT",
        received_at=names.at,
    )
    await tables.message("webhook", "payments.disputes", message.name, message.encode())
    await tables.execute(
        "enrollment",
        "INSERT INTO enrollment_history (enrollment_id, event, payment_id, at)"
        " VALUES ($1, 'revoked_after_dispute', $2, $3)",
        names.enrollment_id,
        names.payment_id,
        names.at + timedelta(seconds=9),
    )

    story = await tell(new_database, names.payment_id)

    told = [(entry.service, entry.text) for entry in story.entries]
    assert ("webhook", "sslcommerz sent a notice, claiming: dispute (event evt_1)") in told
    assert any(
        text.startswith("webhook.dispute_noticed.v1 waits for its receipt from payments.disputes")
        for _, text in told
    )
    assert any("was taken away, as its money was lost" in text for _, text in told)


async def test_personal_data_stays_where_it_is(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()

    story = await tell(new_database, names.payment_id)

    for text in (printed(story), json.dumps(as_json(story))):
        assert "Rahim" not in text
        assert "example.com" not in text


async def test_text_from_outside_cannot_steer_the_terminal(
    new_database: str, tables: Tables
) -> None:
    names = await tables.failed()
    await tables.execute(
        "payments",
        "UPDATE payment_history SET reason = E'[bold]\\x1b[2Jdeclined' WHERE state = 'failed'",
    )

    text = printed(await tell(new_database, names.payment_id))

    assert "\x1b" not in text
    assert "[bold]\N{REPLACEMENT CHARACTER}[2Jdeclined" in text


async def test_it_tells_which_message_waits_and_until_when(
    new_database: str, tables: Tables
) -> None:
    names = await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")
    await tables.success_message(names)

    story = await tell(new_database, names.payment_id)

    (waiting,) = [entry for entry in story.entries if entry.event == "message_waits"]
    assert waiting.text == (
        "payments.payment_succeeded.v1 waits for its receipt from enrollment.grants; sent 1 times"
    )
    assert waiting.next_at is not None
    assert story.now == "succeeded, not enrolled"
    assert story.next.startswith("its message is sent again at ")


async def test_it_tells_of_a_parked_message(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")
    await tables.success_message(names)
    await tables.execute("payments", "UPDATE outbox SET parked_at = clock_timestamp(), sends = 20")

    story = await tell(new_database, names.payment_id)

    assert story.entries[-1].text.endswith("without a receipt and is parked")
    assert story.next == "an operator sends its message again"


async def test_it_tells_of_a_dead_letter(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")
    payload = json.dumps({"paymentId": names.payment_id})
    await tables.dead_letter("enrollment", PaymentSucceeded.name, payload, "a bug")

    story = await tell(new_database, names.payment_id)

    assert (story.entries[-1].service, story.entries[-1].reason) == ("enrollment", "a bug")
    assert outlook(story)[1:] == ("an operator retries the dead letter", "a bug")

    await tables.execute("enrollment", "UPDATE dead_letter SET retry_at = '2030-01-01T00:00:00Z'")
    story = await tell(new_database, names.payment_id)
    assert story.next.startswith("the dead letter is handled again at 2030-01-01")

    await tables.execute(
        "enrollment", "UPDATE dead_letter SET state = 'discarded', retry_at = NULL"
    )
    story = await tell(new_database, names.payment_id)
    assert story.entries[-1].text.endswith("and an operator discarded it")
    assert story.because == "no message is on its way"


async def test_it_tells_when_a_success_was_lost(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()
    await tables.execute("enrollment", "DELETE FROM enrollment")

    story = await tell(new_database, names.payment_id)

    assert story.because == "no message is on its way"


async def test_a_notice_in_hand_is_why_a_payment_still_waits(
    new_database: str, tables: Tables
) -> None:
    names = await tables.pending()
    await tables.notice(names)
    await tables.notice_message(names)

    story = await tell(new_database, names.payment_id)

    assert story.because == "a notice has come and is being checked"


async def test_payments_at_rest_say_why(new_database: str, tables: Tables) -> None:
    held, failed = await tables.held(), await tables.failed()
    await tables.execute("payments", "UPDATE payment SET reason = 'gateway_says_risky'")

    assert outlook(await tell(new_database, held.payment_id)) == (
        "on_hold",
        "a person must look at it and decide",
        "gateway_says_risky",
    )
    assert (await tell(new_database, failed.payment_id)).next.startswith("it has ended")


async def test_a_further_payment_is_part_of_both_stories(new_database: str, tables: Tables) -> None:
    first = await tables.succeeded()
    second = new_names()
    await tables.payment(second, "succeeded", bank_id=second.bank_id)
    await tables.history(second, ["created", "pending", "succeeded"])
    await tables.execute(
        "enrollment",
        "INSERT INTO further_payment VALUES ($1, $2, 'recorded', 150000, 'BDT')",
        second.payment_id,
        first.enrollment_id,
    )

    story_of_second = await tell(new_database, second.payment_id)

    assert story_of_second.entries[-1].text == (
        f"this payment (1500.00 BDT) was a further one for {first.enrollment_id}, recorded for "
        "the operator: the customer had it already"
    )
    assert outlook(story_of_second)[1:] == (
        "the operator refunds it or answers",
        "it was paid for before",
    )
    story_of_first = await tell(new_database, first.payment_id)
    assert story_of_first.entries[-1].text.startswith(second.payment_id)
    assert story_of_first.next == "nothing"


async def test_operators_are_part_of_the_story(new_database: str, tables: Tables) -> None:
    names = await tables.succeeded()
    await tables.execute(
        "enrollment",
        """
        INSERT INTO enrollment_history (enrollment_id, event, actor, reason)
        VALUES ($1, 'revoked_by_hand', 'support', 'chargeback')
        """,
        names.enrollment_id,
    )
    await tables.execute("enrollment", "UPDATE enrollment SET state = 'revoked'")

    story = await tell(new_database, names.payment_id)

    assert story.entries[-1].text == (
        f"an operator took the enrollment away as {names.enrollment_id}, with the key support"
    )
    assert story.entries[-1].reason == "chargeback"
    assert story.now == f"succeeded, and {names.enrollment_id} is revoked"


async def test_what_operators_did_to_a_payment_is_told_with_their_reason(
    new_database: str, tables: Tables
) -> None:
    names = await tables.held()
    await tables.execute(
        "payments",
        """
        INSERT INTO operator_action (id, at, actor, action, target, reason)
        VALUES ('act_1', clock_timestamp(), 'support', 'look_up', $1, 'the customer called'),
               ('act_2', clock_timestamp(), 'support', 'hold', 'pay_of_another', 'who is that?')
        """,
        names.payment_id,
    )

    story = await tell(new_database, names.payment_id)

    told = [(entry.text, entry.reason) for entry in story.entries if entry.event == "by_hand"]
    assert told == [
        ("an operator had the gateway asked at once, with the key support", "the customer called")
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("pay_01ARZ3NDEKTSV4RRFFQ69G5FAV", "no payment has the id pay_01ARZ"),
        ("att_01ARZ3NDEKTSV4RRFFQ69G5FAV", "no attempt has the reference att_01ARZ"),
        ("enr_01ARZ3NDEKTSV4RRFFQ69G5FAV", "no enrollment has the id enr_01ARZ"),
        ("12345", "'12345' is no id of a payment"),
    ],
)
async def test_an_unknown_id_is_named(new_database: str, given: str, problem: str) -> None:
    with pytest.raises(UnknownPaymentError, match=problem):
        await tell(new_database, given)


async def test_an_enrollment_granted_by_hand_has_no_payment(
    new_database: str, tables: Tables
) -> None:
    names = await tables.succeeded()
    await tables.execute("enrollment", "UPDATE enrollment SET payment_id = NULL")

    with pytest.raises(UnknownPaymentError, match="was granted by hand"):
        await tell(new_database, names.enrollment_id)


def test_the_command_answers_in_json_and_refuses_what_is_unknown(new_database: str) -> None:
    async def store() -> str:
        async with open_tables(new_database) as tables:
            return (await tables.succeeded()).payment_id

    payment_id = run_blocking(store())

    told = command("--json", payment_id, url=new_database)
    unknown = command("pay_01ARZ3NDEKTSV4RRFFQ69G5FAV", url=new_database)

    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads(told.stdout)["entries"][0]["event"] == "created"
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "sluice: no payment has the id pay_01ARZ3NDEKTSV4RRFFQ69G5FAV\n"


def command(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", "explain", *arguments],
        env={"PATH": os.environ["PATH"], "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_a_declined_prompt_is_told_with_its_kind(new_database: str, tables: Tables) -> None:
    names = new_names()
    await tables.payment(names, "failed")
    await tables.notice(names, claim="failed")
    await tables.execute(
        "payments",
        """
        UPDATE payment
           SET gateway = 'fapshi', method = 'prompt', method_details = '{"phone": "237677123456"}'
        """,
    )
    await tables.execute("payments", "UPDATE attempt SET handle = 'Ab3dE6gH', checkout_url = NULL")
    await tables.execute(
        "payments",
        """
        INSERT INTO payment_history (payment_id, at, event, state, reason)
        VALUES ($1, $2, 'accepted', 'pending', 'prompted'),
               ($1, $2, 'declined', 'failed', 'insufficient_funds:Low balance: top up')
        """,
        names.payment_id,
        names.at,
    )
    # The key of such an event says nothing about our reference.
    await tables.execute(
        "webhook", "UPDATE inbound_event SET gateway = 'fapshi', event_key = 'Ab3dE6gH:FAILED'"
    )

    story = await tell(new_database, names.payment_id)

    assert story.summary.startswith("1500.00 BDT by fapshi (prompt), ")
    entries = {entry.event: entry for entry in story.entries}
    assert entries["attempt_started"].text.endswith(f"{names.reference}, and calls it Ab3dE6gH")
    assert entries["accepted"].reason == "prompted"
    assert entries["declined"].text == (
        "the gateway confirmed that no money was taken "
        "(insufficient_funds: there is not enough money)"
    )
    assert entries["declined"].reason == "Low balance: top up"
    assert entries["notice_received"].text == (
        "fapshi sent a notice, claiming: failed (event Ab3dE6gH:FAILED)"
    )
    assert "237677123456" not in printed(story)


async def test_every_kind_of_decline_has_words() -> None:
    assert story_words.DECLINE_KINDS.keys() == set(FailureKind)
