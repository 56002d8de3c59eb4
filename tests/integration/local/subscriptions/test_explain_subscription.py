"""A subscription's story: what happened, its periods and charges, and what comes next."""

from __future__ import annotations

import io
import re
from datetime import timedelta

import pytest
from rich.console import Console

from deploy.local import explain, explain_subscription
from deploy.local.command import main
from deploy.local.subscription_story import SubscriptionStory, UnknownSubscriptionError, as_json
from deploy.local.subscription_words import _EVENTS
from services.scheduler.domain.periods import boundary
from shared.contracts.payments import ChargeFailed
from tests.integration.local.stored_payments import START, Tables
from tests.integration.local.subscriptions.stored import RHYTHM, Subscribed
from tests.support.modules import REPOSITORY


async def tell(url: str, subscribed: Subscribed) -> SubscriptionStory:
    return await explain_subscription.explain_subscription({"DATABASE_URL": url}, subscribed.id)


def printed(story: SubscriptionStory) -> str:
    target = Console(file=io.StringIO(), width=200)
    explain_subscription.render(target, story)
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


async def happen(
    tables: Tables, subscribed: Subscribed, event: str, state: str = "active", reason: str = "paid"
) -> None:
    await tables.execute(
        "scheduler",
        """
        INSERT INTO subscription_history (subscription_id, at, written_at, event, state, reason,
                                          period_start, payment_id)
        VALUES ($1, $2, $3, $4, $5, $6, $2, $7)
        """,
        subscribed.id,
        boundary(RHYTHM, 2),
        START + timedelta(seconds=1),
        event,
        state,
        reason,
        subscribed.last,
    )


async def change(tables: Tables, what: str) -> None:
    await tables.execute("scheduler", f"UPDATE subscription SET {what}")  # noqa: S608 - of this file


async def test_everything_is_told_in_its_order(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await happen(tables, subscribed, "period_opened", reason="period_opened")
    await happen(tables, subscribed, "charge_failed", "past_due", "insufficient_funds")
    await happen(tables, subscribed, "paid", "active", "recovered")

    story = await tell(new_database, subscribed)
    text = printed(story)

    assert [line.entry.event for line in story.lines] == ["period_opened", "charge_failed", "paid"]
    assert f"active: a period began (2026-03-31 07:30:00), by {subscribed.last}" in text
    assert (
        f"active → past_due: the charge failed for good, by {subscribed.last}, because: "
        "there is not enough money (insufficient_funds)"
    ) in text
    assert "2026-02-28 08:30" in text
    assert all(names.bank_id in text for names in subscribed.payments)
    assert "1500.00 BDT every 1 month" in story.summary
    assert story.outlook.next.startswith("its next period begins at")
    told = as_json(story)
    assert [period["number"] for period in told["periods"]] == [0, 1, 2]
    assert [charge["paymentId"] for charge in told["charges"]] == [
        names.payment_id for names in subscribed.payments
    ]


async def test_on_a_test_clock_both_times_are_told(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await tables.execute(
        "scheduler",
        "INSERT INTO test_clock (id, name, now, created_at) VALUES ('clk_1', 'x', now(), now())",
    )
    await change(tables, "clock_id = 'clk_1', as_of = period_start")
    await happen(tables, subscribed, "paid")

    story = await tell(new_database, subscribed)

    assert story.lines[0].own_time == boundary(RHYTHM, 2)
    assert "On its clock" in printed(story)
    assert story.summary.endswith("on test clock clk_1")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("problem = 'a bug'", ("nothing, until an operator clears its problem", "a bug")),
        (
            "asks_to_catch_up = true, due_at = NULL, reason = 'catch_up_asked'",
            (
                "somebody says which periods are billed",
                "periods went by unbilled (catch_up_asked)",
            ),
        ),
        (
            "state = 'paused', due_at = NULL, reason = 'paused_by_operator'",
            ("nothing, until somebody resumes it", "somebody paused it (paused_by_operator)"),
        ),
        (
            "state = 'ended', due_at = NULL, has_access = false, reason = 'ran_its_periods'",
            ("nothing: that is for good", "it was to run so many periods (ran_its_periods)"),
        ),
        (
            "cancels_at_period_end = true, due_at = period_end",
            ("it ends at 2026-04-30 07:30:00.000 UTC", "paid"),
        ),
        (
            "state = 'past_due', due_at = period_start, reason = 'insufficient_funds'",
            (
                "dunning step 1 of 1 comes at 2026-03-31 07:30:00.000 UTC",
                "there is not enough money (insufficient_funds)",
            ),
        ),
        (
            "state = 'past_due', due_at = period_start, dunning_step = 1",
            ("it is cancelled at 2026-03-31 07:30:00.000 UTC", "paid"),
        ),
        (
            "state = 'past_due', due_at = period_end, grace_until = period_end",
            ("access ends at 2026-04-30 07:30:00.000 UTC", "paid"),
        ),
        (
            "charging = 'pay_1', due_at = NULL",
            ("payments takes the order on", "pay_1 was ordered"),
        ),
    ],
)
async def test_what_comes_next_is_told(
    new_database: str,
    tables: Tables,
    subscribed: Subscribed,
    what: str,
    expected: tuple[str, str],
) -> None:
    await change(tables, what)

    assert (await tell(new_database, subscribed)).outlook[1:] == expected


async def test_an_unresolved_charge_is_told_with_what_payments_knows(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    await tables.execute("scheduler", "UPDATE subscription SET charging = $1", subscribed.last)

    outlook = (await tell(new_database, subscribed)).outlook

    assert outlook.because == f"{subscribed.last} is succeeded"


async def test_a_dead_letter_about_it_is_told(
    new_database: str, tables: Tables, subscribed: Subscribed
) -> None:
    payload = f'{{"subscriptionId": "{subscribed.id}"}}'
    await tables.dead_letter("scheduler", ChargeFailed.name, payload, "a bug")

    story = await tell(new_database, subscribed)

    assert story.lines[-1].entry.event == "dead_letter_stored"
    assert story.outlook[1:] == ("an operator retries the dead letter", "a bug")


async def test_an_unknown_one_is_refused_and_a_job_leads_to_its_payment(
    new_database: str, subscribed: Subscribed
) -> None:
    unknown = Subscribed("sub_01ARZ3NDEKTSV4RRFFQ69G5FAV", [])
    with pytest.raises(UnknownSubscriptionError, match="no subscription has the id sub_01ARZ"):
        await tell(new_database, unknown)

    story = await explain.explain({"DATABASE_URL": new_database}, f"job_{subscribed.last[4:]}")
    assert story.payment_id == subscribed.last


def test_words_are_those_of_events_that_the_scheduler_writes() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in (REPOSITORY / "services" / "scheduler").rglob("*.py")
    )
    composed = {"charge_accepted", "charge_sent", "charge_held"}  # With the step of a message.
    composed |= {"charged_by_dunning", "charged_by_trigger"}  # With the occasion of a charge.

    written = {event for event in _EVENTS if re.search(rf"""["']{event}["']""", sources)}
    assert _EVENTS.keys() - written == composed


def test_the_command_tells_it_to_people_and_machines(
    new_database: str,
    subscribed: Subscribed,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", new_database)

    assert main(["explain", subscribed.id]) == 0
    assert capsys.readouterr().out.startswith(f"{subscribed.id}: Monthly")
    assert main(["explain", subscribed.id, "--json"]) == 0
    assert f'"subscriptionId": "{subscribed.id}"' in capsys.readouterr().out
    assert main(["explain", "sub_01ARZ3NDEKTSV4RRFFQ69G5FAV"]) == 1
