"""A caller over its rate is told when to come back, and costs the others nothing."""

from __future__ import annotations

import pytest

from shared.errors import TooManyRequestsError
from shared.web.rate_limits import BURST_SECONDS, CALLERS_MAX, RateLimit


class Stopwatch:
    """A monotonic clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


def take(limit: RateLimit, caller: str, times: int) -> None:
    for _ in range(times):
        limit.take(caller)


def test_a_burst_passes_and_the_next_request_does_not(stopwatch: Stopwatch) -> None:
    limit = RateLimit(10, monotonic=stopwatch)
    take(limit, "shop", 10 * BURST_SECONDS)

    with pytest.raises(TooManyRequestsError, match="over 10 requests a second"):
        limit.take("shop")


def test_after_a_second_as_many_requests_pass_as_the_rate_says(stopwatch: Stopwatch) -> None:
    limit = RateLimit(10, monotonic=stopwatch)
    take(limit, "shop", 10 * BURST_SECONDS)
    stopwatch.seconds += 1

    take(limit, "shop", 10)

    with pytest.raises(TooManyRequestsError):
        limit.take("shop")


def test_a_rest_never_fills_the_bucket_beyond_one_burst(stopwatch: Stopwatch) -> None:
    limit = RateLimit(10, monotonic=stopwatch)
    take(limit, "shop", 1)
    stopwatch.seconds += 3_600

    take(limit, "shop", 10 * BURST_SECONDS)

    with pytest.raises(TooManyRequestsError):
        limit.take("shop")


def test_the_wait_it_names_is_enough_and_refused_requests_do_not_lengthen_it(
    stopwatch: Stopwatch,
) -> None:
    limit = RateLimit(0.25, monotonic=stopwatch)
    limit.take("shop")
    for _ in range(3):
        with pytest.raises(TooManyRequestsError) as caught:
            limit.take("shop")
        assert caught.value.retry_after_seconds == 4

    stopwatch.seconds += 4

    limit.take("shop")


def test_callers_do_not_share_a_bucket(stopwatch: Stopwatch) -> None:
    limit = RateLimit(1, monotonic=stopwatch)
    take(limit, "busy", BURST_SECONDS)

    limit.take("other")

    with pytest.raises(TooManyRequestsError):
        limit.take("busy")


def test_the_callers_it_remembers_are_limited_and_the_longest_unseen_go_first(
    stopwatch: Stopwatch,
) -> None:
    limit = RateLimit(1, monotonic=stopwatch)
    take(limit, "busy", BURST_SECONDS)
    for number in range(CALLERS_MAX - 1):
        limit.take(f"address {number}")
    with pytest.raises(TooManyRequestsError):
        limit.take("busy")  # Seen just now, so it is not the one to be forgotten.
    limit.take("one more")
    with pytest.raises(TooManyRequestsError):
        limit.take("busy")

    assert len(limit._buckets) == CALLERS_MAX
