"""A gateway's limit is split by need, and never more than all of it is in use."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.shares import Share, fair_calls, fair_rates, next_calls, next_rate

WANTED = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=1)


@pytest.mark.parametrize(
    ("limit", "wanted", "expected"),
    [
        pytest.param(10, {"a": 50}, {"a": 10}, id="all of it for one alone"),
        pytest.param(10, {"a": 50, "b": 50}, {"a": 5, "b": 5}, id="halves for two in need"),
        pytest.param(10, {"a": 50, "b": 2}, {"a": 8, "b": 2}, id="what one does not want"),
        pytest.param(10, {"a": 50, "b": 0}, {"a": 9, "b": 1}, id="one for a call to come"),
        pytest.param(10, {"a": 0, "b": 0}, {"a": 5, "b": 5}, id="evenly while nobody calls"),
        pytest.param(9, {"a": 2, "b": 3}, {"a": 4, "b": 5}, id="the rest evenly"),
        pytest.param(1, {"a": 0, "b": 9}, {"a": 0, "b": 1}, id="the only one to who needs it"),
        pytest.param(2, dict.fromkeys("abc", 0), {"a": 1, "b": 1, "c": 0}, id="too few, no need"),
    ],
)
def test_calls_are_split_by_need(
    limit: int, wanted: dict[str, int], expected: dict[str, int]
) -> None:
    assert expected == fair_calls(limit, wanted, turn=0)


@given(limit=st.integers(1, 60), wanted=WANTED, turn=st.integers(0, 10**12))
def test_a_split_gives_away_exactly_the_limit(
    limit: int, wanted: dict[str, int], turn: int
) -> None:
    shares = fair_calls(limit, wanted, turn)

    assert sum(shares.values()) == limit
    assert shares.keys() == wanted.keys()
    assert min(shares.values()) >= (1 if limit >= len(wanted) else 0)


@given(limit=st.integers(1, 60), wanted=WANTED, turn=st.integers(0, 100))
def test_nobody_waits_for_a_share_while_another_has_two_more(
    limit: int, wanted: dict[str, int], turn: int
) -> None:
    shares = fair_calls(limit, wanted, turn)

    for name, share in shares.items():
        if share < wanted[name]:
            assert max(shares.values()) <= share + 1


def test_a_single_call_goes_round() -> None:
    wanted = dict.fromkeys("abc", 50)

    holders = {name for turn in range(3) for name, n in fair_calls(1, wanted, turn).items() if n}

    assert holders == set("abc")


@given(limit=st.floats(0.01, 1_000), wanted=WANTED)
def test_rates_are_split_in_proportion(limit: float, wanted: dict[str, int]) -> None:
    shares = fair_rates(limit, wanted)

    assert sum(shares.values()) == pytest.approx(limit)
    assert min(shares.values()) > 0
    assert all(shares[a] >= shares[b] for a in wanted for b in wanted if wanted[a] >= wanted[b])


def test_a_share_rises_at_once_out_of_what_nobody_holds() -> None:
    assert next_calls(10, Share(calls=3), target=8, held_by_others=4) == (6, 6)


def test_a_share_that_falls_is_held_until_its_holder_has_heard_of_it() -> None:
    assert next_calls(10, Share(calls=8, in_flight=2), target=5, held_by_others=2) == (5, 8)
    assert next_calls(10, Share(calls=5, in_flight=2), target=5, held_by_others=2) == (5, 5)


def test_calls_in_flight_are_held_longer_than_their_share() -> None:
    assert next_calls(10, Share(calls=5, in_flight=8), target=5, held_by_others=2) == (5, 8)


def test_a_new_limit_below_what_is_in_flight_gives_nothing_new() -> None:
    assert next_calls(2, Share(calls=None, in_flight=7), target=2, held_by_others=5) == (0, 7)


def test_rates_rise_and_fall_as_calls_do() -> None:
    assert next_rate(10, Share(rate=3), target=8, held_by_others=4) == (6, 6)
    assert next_rate(10, Share(rate=8), target=5, held_by_others=2) == (5, 8)
    assert next_rate(10, Share(), target=5, held_by_others=12) == (0, 0)


@dataclass
class Process:
    """One that keeps to its share, and hears of a new one only some time after it was stored."""

    keeps_to: int = 0
    in_flight: int = 0
    waiting: int = 0
    #: Stored for it, not heard by it.
    on_its_way: int | None = None


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["sync", "hear", "start", "end", "need"]),
        st.integers(0, 12),
    ),
    max_size=200,
)  # fmt: skip


@given(limit=st.integers(1, 12), steps=STEPS)
def test_no_order_of_events_lets_more_calls_fly_than_there_may(
    limit: int, steps: list[tuple[int, str, int]]
) -> None:
    processes = [Process() for _ in range(4)]
    held = [0] * 4
    for number, (which, what, need) in enumerate(steps):
        process = processes[which]
        if what == "sync" and process.on_its_way is None:
            wanted = {str(n): p.in_flight + p.waiting for n, p in enumerate(processes)}
            target = fair_calls(limit, wanted, number)[str(which)]
            own = Share(calls=process.keeps_to, in_flight=process.in_flight)
            others = sum(held) - held[which]
            process.on_its_way, held[which] = next_calls(limit, own, target, others)
        elif what == "hear" and process.on_its_way is not None:
            process.keeps_to, process.on_its_way = process.on_its_way, None
        elif what == "start" and process.in_flight < process.keeps_to:
            process.in_flight += 1
        elif what == "end" and process.in_flight:
            process.in_flight -= 1
        elif what == "need":
            process.waiting = need

        assert sum(p.in_flight for p in processes) <= sum(held) <= limit
