"""An alert is one episode: raised once, followed, and cleared after a while of being well."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.alerts import CLEARED_AFTER, Episode, Measurement, Reading, follow
from tests.support.clocks import START

QUEUE, RATE = Measurement.QUEUE_LENGTH, Measurement.SUCCESS_RATE


def read(value: float | None, measurement: Measurement = QUEUE) -> Reading:
    return Reading(measurement, 90 if measurement is RATE else 100, value)


def raised(value: float = 150, measurement: Measurement = QUEUE) -> Episode:
    episode = follow(read(value, measurement), None, new_id="alt_1", now=START)
    assert episode is not None
    return episode


@pytest.mark.parametrize(
    ("reading", "is_passed"),
    [
        (read(100), False),
        (read(101), True),
        (read(None), False),
        (read(90, RATE), False),
        (read(89.9, RATE), True),
    ],
)
def test_a_threshold_is_passed_on_its_bad_side(reading: Reading, is_passed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert reading.is_passed is is_passed
    begun = follow(reading, None, new_id="alt_1", now=START)
    assert (begun is not None) is is_passed


def test_an_episode_goes_on_with_its_worst_value() -> None:
    episode = raised(150)
    for value in (500, 120):
        after = follow(read(value), episode, new_id="alt_2", now=START)
        assert after is not None
        episode = after

    assert (episode.id, episode.raised_value) == ("alt_1", 150)
    assert (episode.worst_value, episode.last_value) == (500, 120)


def test_the_worst_of_a_rate_is_the_lowest() -> None:
    episode = follow(read(40, RATE), raised(80, RATE), new_id="alt_2", now=START)

    assert episode is not None
    assert (episode.worst_value, episode.last_value) == (40, 40)


def test_an_episode_is_over_after_a_while_of_being_well() -> None:
    well = follow(read(10), raised(), new_id="alt_2", now=START)
    assert well is not None
    assert (well.well_since, well.cleared_at) == (START, None)

    almost = follow(
        read(10), well, new_id="alt_2", now=START + CLEARED_AFTER - timedelta(seconds=1)
    )
    assert almost is not None
    assert almost.cleared_at is None

    over = follow(read(10), almost, new_id="alt_2", now=START + CLEARED_AFTER)
    assert over is not None
    assert over.cleared_at == START + CLEARED_AFTER


def test_a_relapse_is_the_same_episode() -> None:
    well = follow(read(10), raised(), new_id="alt_2", now=START)
    ill = follow(read(101), well, new_id="alt_2", now=START + timedelta(seconds=59))

    assert ill is not None
    assert (ill.id, ill.well_since) == ("alt_1", None)


def test_with_too_little_to_measure_an_episode_ends_too() -> None:
    well = follow(read(None), raised(), new_id="alt_2", now=START)
    over = follow(read(None), well, new_id="alt_2", now=START + CLEARED_AFTER)

    assert over is not None
    assert (over.cleared_at, over.last_value) == (START + CLEARED_AFTER, 150)


@given(st.lists(st.one_of(st.none(), st.floats(0, 300)), max_size=60))
def test_of_any_readings_there_is_never_more_than_one_open_episode(
    values: list[float | None],
) -> None:
    episode, begun, over = None, 0, 0
    for number, value in enumerate(values):
        now = START + timedelta(seconds=20 * number)
        after = follow(read(value), episode, new_id=f"alt_{number}", now=now)
        begun += episode is None and after is not None
        if after is not None and after.cleared_at is not None:
            over += 1
            after = None
        episode = after

    assert begun - over == (episode is not None)
