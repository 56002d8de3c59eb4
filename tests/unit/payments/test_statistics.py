"""What statistics count, and what it adds up to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.settlement import Change
from services.payments.domain.statistics import StepCount, add_up, step
from tests.support.clocks import START
from tests.support.payments import payment_in

S = PaymentState


def count(before: str, after: str, payments: int = 1, **changes: Any) -> StepCount:
    values: dict[str, Any] = {"measured": 0, "milliseconds": 0, "classes": {}} | changes
    return StepCount("sslcommerz", before, after, payments, **values)


def change_to(before: Payment, state: PaymentState) -> Change:
    return Change(before._replace(state=state), "event")


def test_a_payment_that_comes_to_rest_is_measured_since_the_work_began() -> None:
    before = payment_in(S.PROCESSING)
    since = START - timedelta(seconds=1.5)

    found = step(before, change_to(before, S.SUCCEEDED), START, since=since)

    assert found is not None
    assert (found.before, found.after, found.milliseconds) == (S.PROCESSING, S.SUCCEEDED, 1_500)
    assert (found.payment_id, found.gateway) == (before.id, before.gateway)


@pytest.mark.parametrize("after", [S.PENDING, S.PROCESSING, S.UNKNOWN])
def test_a_payment_that_goes_on_waiting_is_no_step(after: PaymentState) -> None:
    before = payment_in(S.PENDING)

    assert step(before, change_to(before, after), START, since=START) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [(S.FAILED, S.PROCESSING), (S.REFUNDED, S.SUCCEEDED), (S.PENDING, S.RETRY_SCHEDULED)],
)
def test_what_is_no_result_is_not_measured(before: PaymentState, after: PaymentState) -> None:
    old = payment_in(before)

    found = step(old, change_to(old, after), START, since=START)

    assert found is not None
    assert found.milliseconds is None


@pytest.mark.parametrize(("seconds", "kept"), [(-5.0, 0), (40 * 86_400.0, 2**31 - 1)])
def test_a_duration_stays_within_what_can_be_stored(seconds: float, kept: int) -> None:
    before = payment_in(S.UNKNOWN)
    since = START - timedelta(seconds=seconds)

    found = step(before, change_to(before, S.FAILED), START, since=since)

    assert found is not None
    assert found.milliseconds == kept


def test_steps_add_up_by_their_result() -> None:
    tally = add_up(
        [
            count("pending", "succeeded", 90, measured=90, milliseconds=90_000),
            count("pending", "failed", 5, measured=5, milliseconds=100_000),
            count("pending", "cancelled", 3),
            count("pending", "on_hold", 2),
            count("pending", "processing", 1_000),
            count("pending", "retry_scheduled", 7),
        ]
    )

    assert (tally.processed, tally.succeeded, tally.failed, tally.on_hold) == (100, 90, 8, 2)
    assert tally.retried == 7
    assert tally.success_rate == 90
    assert tally.average_seconds == 2
    assert (tally.completed_now, tally.failed_now) == (90, 8)


def test_a_late_success_counts_as_both_but_is_completed_now() -> None:
    tally = add_up([count("pending", "failed"), count("failed", "succeeded")])

    assert (tally.succeeded, tally.failed) == (1, 1)
    assert (tally.completed_now, tally.failed_now) == (1, 0)


def test_money_that_goes_back_is_no_result() -> None:
    tally = add_up(
        [
            count("pending", "succeeded"),
            count("succeeded", "refunded"),
            count("refunded", "succeeded"),
            count("succeeded", "disputed"),
        ]
    )

    assert (tally.processed, tally.succeeded, tally.completed_now) == (1, 1, 1)


def test_what_was_there_before_the_counting_is_counted_by_its_state() -> None:
    tally = add_up([count("", "refunded", 3), count("", "failed", 2), count("", "succeeded", 5)])

    assert (tally.succeeded, tally.failed) == (8, 2)
    assert (tally.completed_now, tally.failed_now) == (8, 2)


def test_a_payment_that_is_released_to_its_retry_is_not_another_retry() -> None:
    assert add_up([count("on_hold", "retry_scheduled")]).retried == 0


def test_of_nothing_there_is_no_rate() -> None:
    tally = add_up([])

    assert (tally.success_rate, tally.average_seconds, tally.percentile_seconds(0.5)) == (
        None,
        None,
        None,
    )
