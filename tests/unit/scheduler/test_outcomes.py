"""What is heard of a charge changes its job as far as it is news, and nothing when it is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.scheduler.domain.model import Job, JobStatus, SubscriptionState
from tests.unit.scheduler.world import START, Story

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def charging(**changes: object) -> Story:
    """Return a story whose first period is being charged."""
    story = Story(**changes)  # type: ignore[arg-type]
    story.pass_until(START)
    return story


def job(story: Story) -> Job:
    """Return the job of the charge in flight, or of the only one there was."""
    (found,) = story.jobs.values()
    return found


def test_it_is_accepted_and_sent_in_whatever_order_that_is_told() -> None:
    story, reverse = charging(), charging()
    story.progress(story.charging(), "accepted", attempts=0)
    story.progress(story.charging(), "sent")
    reverse.progress(reverse.charging(), "sent")
    reverse.progress(reverse.charging(), "accepted", attempts=0)
    for each in (story, reverse):
        assert (job(each).status, job(each).progress) == (JobStatus.ACTIVE, 50)


def test_a_later_try_that_is_sent_ends_the_wait_for_it() -> None:
    story = charging()
    story.fail(retry_after=HOUR)
    story.progress(story.charging(), "sent", attempts=1)
    assert (job(story).status, job(story).retry_at) == (JobStatus.DELAYED, START + HOUR)
    story.progress(story.charging(), "sent", attempts=2)
    assert (job(story).status, job(story).retry_at) == (JobStatus.ACTIVE, None)
    story.fail(retry_after=HOUR, attempts=1)
    assert job(story).status is JobStatus.ACTIVE


def test_a_retry_that_gets_another_time_is_told_again() -> None:
    story = charging()
    story.fail(retry_after=HOUR)
    story.fail(retry_after=HOUR)
    assert story.events()[-1:] == ["retry_scheduled"]
    assert story.events().count("retry_scheduled") == 1
    story.fail(retry_after=DAY)
    assert job(story).retry_at == START + DAY
    assert story.events().count("retry_scheduled") == 2


def test_on_a_test_clock_old_news_of_a_retry_make_no_second_one() -> None:
    story = charging(clock_id="clk_one", as_of=START)
    story.fail(retry_after=DAY)
    story.pass_until(START + DAY)
    assert story.messages()[-1] == "retry_charge"
    story.fail(retry_after=DAY, failed_at=START)
    assert story.subscription.retry_at is None
    assert story.messages().count("retry_charge") == 1


def test_of_two_news_of_one_try_the_later_one_holds_whichever_comes_last() -> None:
    """First a doubt, soon asked about; then the certainty, whose retry waits for an order."""
    doubt = {"kind": "network_error", "retry_after": timedelta(0), "waits_for_order": False}
    certainty = {"kind": "processing_error", "retry_after": DAY, "failed_at": START + HOUR}
    for order in ([doubt, certainty], [doubt, certainty, certainty, doubt], [certainty, doubt]):
        story = charging(clock_id="clk_one", as_of=START)
        for news in order:
            story.fail(**{"failed_at": START, **news})  # type: ignore[arg-type]
        assert story.subscription.retry_at == job(story).retry_at == START + DAY
        assert job(story).failed_reason == "processing_error:51"
        assert story.subscription.reason == "processing_error"


def test_a_retry_that_is_planned_anew_after_its_order_waits_for_another_one() -> None:
    """A worker died with the retry in its hands, and nothing was tried."""
    story = charging(clock_id="clk_one", as_of=START)
    story.fail(retry_after=DAY)
    story.pass_until(START + DAY)
    story.fail(retry_after=DAY, failed_at=START + HOUR)
    story.pass_until(START + 2 * DAY)
    assert story.messages().count("retry_charge") == 2


def test_an_end_counts_however_early_whoever_tells_it_believes_it_is() -> None:
    story = charging()
    story.fail(retry_after=HOUR, failed_at=START + HOUR)
    story.fail(failed_at=START)
    assert job(story).status is JobStatus.FAILED
    assert story.subscription.charging is None


def test_what_is_held_waits_for_a_person_and_is_told_once() -> None:
    story = charging()
    story.progress(story.charging(), "held")
    story.progress(story.charging(), "held")
    story.progress(story.charging(), "sent")
    assert (job(story).status, job(story).failed_reason) == (JobStatus.DELAYED, "held_for_review")
    assert story.events().count("charge_held") == 1
    assert story.subscription.charging is not None
    story.pay()
    assert job(story).status is JobStatus.COMPLETED


@pytest.mark.parametrize(("attempts", "progress"), [(0, 30), (1, 50)])
def test_a_failure_tells_how_far_it_came(attempts: int, progress: int) -> None:
    story = charging()
    story.fail(attempts=attempts)
    assert (job(story).status, job(story).progress) == (JobStatus.FAILED, progress)


def test_nothing_is_heard_after_the_end_but_money() -> None:
    story = charging()
    payment = story.charging()
    story.fail(attempts=2)
    ended = job(story)
    story.progress(payment, "sent", attempts=3)
    story.progress(payment, "held", attempts=3)
    story.fail(payment, attempts=3, retry_after=HOUR)
    story.fail(payment, attempts=3)
    assert job(story) == ended
    story.pay(payment, attempts=1)
    assert (job(story).status, job(story).attempts_made) == (JobStatus.COMPLETED, 2)
    assert story.state() is SubscriptionState.ACTIVE
    paid = job(story)
    story.fail(payment, attempts=3)
    story.pay(payment, attempts=3)
    assert job(story) == paid
