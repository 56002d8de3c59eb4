"""How a payment stands as a job, from what is stored of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from services.payments.domain.jobs import JobFacts, JobState, finished_at, job_state, next_step_at
from services.payments.domain.model import PaymentState
from tests.support.clocks import START

S = PaymentState
SOON = START + timedelta(minutes=1)
EARLIER = START - timedelta(minutes=1)


def facts(state: PaymentState, **changes: Any) -> JobFacts:
    values: dict[str, Any] = {
        "next_check_at": None,
        "is_leased": False,
        "retry_state": None,
        "retry_at": None,
    }
    return JobFacts(state, **(values | changes))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts(S.CREATED, next_check_at=SOON), JobState.ACTIVE),
        (facts(S.CREATED, next_check_at=EARLIER), JobState.WAITING),
        (facts(S.PENDING, next_check_at=SOON), JobState.DELAYED),
        (facts(S.PENDING, next_check_at=START), JobState.WAITING),
        (facts(S.PENDING, next_check_at=EARLIER, is_leased=True), JobState.ACTIVE),
        (facts(S.PROCESSING, next_check_at=SOON), JobState.DELAYED),
        (facts(S.UNKNOWN, next_check_at=EARLIER), JobState.WAITING),
        (facts(S.UNKNOWN, next_check_at=SOON, retry_state="running"), JobState.ACTIVE),
        (facts(S.RETRY_SCHEDULED, retry_state="scheduled", retry_at=SOON), JobState.DELAYED),
        (facts(S.RETRY_SCHEDULED, retry_state="scheduled", retry_at=EARLIER), JobState.WAITING),
        (facts(S.RETRY_SCHEDULED, retry_state="running", retry_at=EARLIER), JobState.ACTIVE),
        (facts(S.RETRY_SCHEDULED, retry_state="parked", retry_at=EARLIER), JobState.DELAYED),
        (facts(S.ON_HOLD), JobState.HELD),
        (facts(S.FAILED), JobState.FAILED),
        (facts(S.FAILED, next_check_at=EARLIER), JobState.FAILED),
        (facts(S.CANCELLED), JobState.FAILED),
        (facts(S.SUCCEEDED), JobState.COMPLETED),
        (facts(S.REFUNDED), JobState.COMPLETED),
        (facts(S.PARTIALLY_REFUNDED), JobState.COMPLETED),
        (facts(S.DISPUTED), JobState.COMPLETED),
    ],
)
def test_a_payment_stands_as_its_facts_say(found: JobFacts, expected: JobState) -> None:
    assert job_state(found, START) is expected


def test_every_state_of_a_payment_is_that_of_some_job() -> None:
    assert all(job_state(facts(state), START) in JobState for state in PaymentState)


def test_the_next_step_is_the_earlier_of_look_and_retry() -> None:
    both = facts(S.RETRY_SCHEDULED, next_check_at=SOON, retry_state="scheduled", retry_at=EARLIER)

    assert next_step_at(both) == EARLIER
    assert next_step_at(both._replace(retry_state="parked")) == SOON
    assert next_step_at(facts(S.SUCCEEDED, next_check_at=SOON)) is None


def story(*states: PaymentState) -> list[tuple[datetime, PaymentState]]:
    return [(START + timedelta(seconds=number), state) for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("history", "finished"),
    [
        (story(S.CREATED, S.PENDING, S.SUCCEEDED), 2),
        (story(S.CREATED, S.SUCCEEDED, S.SUCCEEDED), 1),
        (story(S.CREATED, S.SUCCEEDED, S.PARTIALLY_REFUNDED, S.REFUNDED), 1),
        (story(S.CREATED, S.FAILED, S.FAILED), 1),
        (story(S.CREATED, S.FAILED, S.SUCCEEDED), 2),
        (story(S.CREATED, S.FAILED, S.RETRY_SCHEDULED, S.UNKNOWN, S.CANCELLED), 4),
    ],
)
def test_a_job_finished_when_it_came_to_the_end_it_is_at(
    history: list[tuple[datetime, PaymentState]], finished: int
) -> None:
    assert finished_at(history, history[-1][1]) == START + timedelta(seconds=finished)


@pytest.mark.parametrize("state", [S.CREATED, S.PENDING, S.ON_HOLD, S.RETRY_SCHEDULED])
def test_a_job_that_goes_on_has_not_finished(state: PaymentState) -> None:
    assert finished_at(story(S.CREATED, state), state) is None
