"""Natural batching: nothing waits without a reason, and nobody pays for a neighbour's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from shared.batching import RATE_WINDOW_SECONDS, Batcher
from shared.errors import DatabaseUnavailableError

#: Longer than any of these tests should take; a lost wake-up must fail, not hang.
DEADLINE_SECONDS = 5.0


class Flush:
    """A flush that remembers its batches, waits for its gate, and fails for poisonous items."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started_at: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: dict[str, Exception] = {}
        self.outage: Exception | None = None

    async def __call__(self, items: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(items))
        self.started_at.append(asyncio.get_running_loop().time())
        await self.gate.wait()
        if self.outage is not None:
            raise self.outage
        for item in items:
            if item in self.failures:
                raise self.failures[item]
        return [item.upper() for item in items]


@pytest.fixture
async def flush() -> Flush:
    return Flush()


async def turn() -> None:
    """Let everything that is ready run once."""
    await asyncio.sleep(0)


async def test_the_first_item_is_flushed_on_the_next_turn_of_the_loop(flush: Flush) -> None:
    batcher = Batcher(flush, spacing_seconds=60)

    future = batcher.submit("a")
    await turn()

    assert flush.batches == [["a"]]
    assert await asyncio.wait_for(future, DEADLINE_SECONDS) == "A"


async def test_items_submitted_one_after_the_other_are_each_flushed(flush: Flush) -> None:
    batcher = Batcher(flush)

    async with asyncio.timeout(DEADLINE_SECONDS):
        assert [await batcher.submit(item) for item in "abc"] == ["A", "B", "C"]

    assert flush.batches == [["a"], ["b"], ["c"]]


async def test_an_item_submitted_by_whoever_was_just_answered_is_not_forgotten(
    flush: Flush,
) -> None:
    batcher = Batcher(flush)
    answers: list[asyncio.Future[str]] = []
    batcher.submit("a").add_done_callback(lambda _: answers.append(batcher.submit("b")))

    async with asyncio.timeout(DEADLINE_SECONDS):
        while not answers or not answers[0].done():
            await turn()

    assert flush.batches == [["a"], ["b"]]


async def test_items_that_arrive_during_a_flush_share_the_next(flush: Flush) -> None:
    batcher = Batcher(flush)
    flush.gate.clear()

    futures = [batcher.submit("a")]
    await turn()
    futures += [batcher.submit("b"), batcher.submit("c")]
    assert len(batcher) == 2
    flush.gate.set()

    assert await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_SECONDS) == ["A", "B", "C"]
    assert flush.batches == [["a"], ["b", "c"]]


async def test_a_batch_is_never_larger_than_its_limit(flush: Flush) -> None:
    batcher = Batcher(flush, size_max=2)

    futures = [batcher.submit(item) for item in "abcde"]
    await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_SECONDS)

    assert flush.batches == [["a", "b"], ["c", "d"], ["e"]]


async def test_no_more_flushes_are_in_flight_than_allowed(flush: Flush) -> None:
    batcher = Batcher(flush, size_max=1, flushes_max=2)
    flush.gate.clear()

    futures = [batcher.submit(item) for item in "abc"]
    for _ in range(5):
        await turn()
    assert flush.batches == [["a"], ["b"]]

    flush.gate.set()
    await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_SECONDS)
    assert flush.batches == [["a"], ["b"], ["c"]]


async def test_a_poisonous_item_does_not_take_its_neighbours_along(flush: Flush) -> None:
    batcher = Batcher(flush)
    flush.failures["b"] = ValueError("poison")

    futures = [batcher.submit(item) for item in "abc"]
    await asyncio.wait_for(batcher.drain(), DEADLINE_SECONDS)

    assert [futures[0].result(), futures[2].result()] == ["A", "C"]
    assert isinstance(futures[1].exception(), ValueError)
    assert flush.batches == [["a", "b", "c"], ["a"], ["b"], ["c"]]


async def test_an_outage_is_told_to_all_without_trying_each_alone(flush: Flush) -> None:
    batcher = Batcher(flush)
    flush.outage = DatabaseUnavailableError("PostgreSQL did not answer")

    futures = [batcher.submit(item) for item in "abc"]
    await asyncio.wait_for(batcher.drain(), DEADLINE_SECONDS)

    assert [future.exception() for future in futures] == [flush.outage] * 3
    assert flush.batches == [["a", "b", "c"]]


async def test_an_item_works_again_after_an_outage(flush: Flush) -> None:
    batcher = Batcher(flush)
    flush.outage = DatabaseUnavailableError("PostgreSQL did not answer")
    with pytest.raises(DatabaseUnavailableError):
        await asyncio.wait_for(batcher.submit("a"), DEADLINE_SECONDS)

    flush.outage = None

    assert await asyncio.wait_for(batcher.submit("a"), DEADLINE_SECONDS) == "A"


async def test_who_no_longer_waits_does_not_disturb_the_others(flush: Flush) -> None:
    batcher = Batcher(flush)
    gone, waiting = batcher.submit("a"), batcher.submit("b")

    gone.cancel()

    assert await asyncio.wait_for(waiting, DEADLINE_SECONDS) == "B"


async def test_flushes_are_spaced_also_when_nobody_waited_at_the_end_of_the_last(
    flush: Flush,
) -> None:
    spacing_seconds = 0.05
    batcher = Batcher(flush, spacing_seconds=spacing_seconds)

    async with asyncio.timeout(DEADLINE_SECONDS):
        await batcher.submit("a")
        await batcher.submit("b")

    # The loop's clock may be one tick of its resolution early.
    assert flush.started_at[1] - flush.started_at[0] >= spacing_seconds * 0.9


async def test_below_the_rate_of_load_nothing_waits(flush: Flush) -> None:
    batcher = Batcher(flush, spacing_seconds=DEADLINE_SECONDS, load_rate=1_000_000)

    async with asyncio.timeout(DEADLINE_SECONDS / 2):
        for item in "abcd":
            await batcher.submit(item)

    assert flush.batches == [["a"], ["b"], ["c"], ["d"]]


async def test_above_the_rate_of_load_items_gather(flush: Flush) -> None:
    spacing_seconds = 0.05
    batcher = Batcher(flush, size_max=10**6, spacing_seconds=spacing_seconds, load_rate=10)
    loop = asyncio.get_running_loop()
    begun = loop.time()

    futures = []
    # The first window measures the rate. A busy machine may need more than the others.
    while sum(at > begun + 2 * RATE_WINDOW_SECONDS for at in flush.started_at[-3:]) < 3:
        assert loop.time() < begun + DEADLINE_SECONDS
        futures.append(batcher.submit("a"))
        await turn()
    await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_SECONDS)

    spaced = [at for at in flush.started_at if at > begun + 2 * RATE_WINDOW_SECONDS]
    assert all(after - before >= spacing_seconds * 0.9 for before, after in pairwise(spaced))


async def test_a_full_batch_does_not_wait_for_the_spacing(flush: Flush) -> None:
    batcher = Batcher(flush, size_max=2, spacing_seconds=60)

    futures = [batcher.submit(item) for item in "abcd"]

    await asyncio.wait_for(asyncio.gather(*futures), DEADLINE_SECONDS)
    assert flush.batches == [["a", "b"], ["c", "d"]]


async def test_drain_waits_for_what_waits_and_what_is_in_flight(flush: Flush) -> None:
    batcher = Batcher(flush, size_max=1)
    flush.gate.clear()
    futures = [batcher.submit(item) for item in "ab"]
    draining = asyncio.create_task(batcher.drain())
    await turn()
    assert not draining.done()

    flush.gate.set()
    await asyncio.wait_for(draining, DEADLINE_SECONDS)

    assert all(future.done() for future in futures)


async def test_drain_of_an_idle_batcher_returns_at_once(flush: Flush) -> None:
    await asyncio.wait_for(Batcher(flush).drain(), DEADLINE_SECONDS)
