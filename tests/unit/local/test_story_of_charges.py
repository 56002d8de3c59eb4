"""What is told of a charge of a subscription is told in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import asyncpg
import pytest

from deploy.local.story_outlook import outlook
from deploy.local.story_words import history
from services.payments.handlers.charge_orders import NO_ROOM

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def row(**values: Any) -> asyncpg.Record:
    """Return what is read like a row."""
    return cast("asyncpg.Record", values)


def waiting(**changes: Any) -> asyncpg.Record:
    values = {
        "state": "retry_scheduled",
        "reason": "insufficient_funds:insufficient_funds",
        "next_check_at": None,
        "retry_state": "waiting",
        "next_attempt_at": NOW,
        "subscription_id": "sub_1",
    }
    return row(**(values | changes))


@pytest.mark.parametrize("event", ["ordered", "order_refused", "retry_ordered", "charge_cancelled"])
def test_each_step_of_a_charge_has_a_sentence(event: str) -> None:
    line = row(at=NOW, event=event, state="created", reason=None, next_check_at=None)

    (entry,) = history([line])

    assert entry.text != event
    assert " " in entry.text


def test_a_retry_on_a_test_clock_waits_for_that_and_not_for_a_time() -> None:
    told = outlook(waiting(), None, messages=[], dead_letters=[])

    assert told.next == "it is tried again when its test clock comes to its time"


@pytest.mark.parametrize("reason", [NO_ROOM, "paused:new"])
def test_what_is_not_begun_yet_says_why(reason: str) -> None:
    payment = waiting(state="created", reason=reason, next_check_at=NOW, retry_state=None)

    told = outlook(payment, None, messages=[], dead_letters=[])

    assert told.because != reason
