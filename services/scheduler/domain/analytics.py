"""What is counted of subscriptions and their money, and what the counts add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias, TypeVar

from services.scheduler.domain.model import OVER, Move, Subscription, SubscriptionState

#: Subscriptions in a state are counted under this and the state.
_IN_STATE: Final = "is_"

STATE_COUNTS: Final = tuple(f"{_IN_STATE}{state}" for state in SubscriptionState)

#: Counts of subscriptions that are alive: those that can churn.
LIVING: Final = tuple(f"{_IN_STATE}{s}" for s in SubscriptionState if s not in OVER)

#: Ways to pay a period. Money that came twice for one is not ours to keep, and none of them.
PAID: Final = ("paid_at_once", "paid_by_retry", "paid_by_dunning")

#: Most buckets of one answer, whatever their length: a year of days, or more.
BUCKETS_MAX: Final = 400


class Counted(NamedTuple):
    """Things that were counted of one day, plan and kind."""

    day: date
    plan_id: str
    what: str
    is_test: bool
    times: int
    amount: int


_Key: TypeAlias = tuple[date, str, str, bool]


def counted(moves: Iterable[Move]) -> list[Counted]:
    """Return what moves are counted as, added up.

    The day is that of the subscription's own time, in UTC. A move that changes the state, the plan
    or the clock of a subscription takes it from one count and adds it to another.
    """
    sums: defaultdict[_Key, list[int]] = defaultdict(lambda: [0, 0])
    for move in moves:
        before, after, day = move.before, move.after, move.now.date()
        is_new = False
        for count in move.counts:
            is_new = is_new or count.what == "started"
            entry = sums[day, move.plan.id, count.what, after.clock_id is not None]
            entry[0] += 1
            entry[1] += count.amount
        if is_new or _place(before) != _place(after):
            sums[day, *_place(after)][0] += 1
            if not is_new:
                sums[day, *_place(before)][0] -= 1
    return [Counted(*key, *sum_) for key, sum_ in sums.items() if sum_ != [0, 0]]


def _place(s: Subscription) -> tuple[str, str, bool]:
    return (s.plan_id, f"{_IN_STATE}{s.state}", s.clock_id is not None)


class Bucket(StrEnum):
    """Spans of time that figures are put together for; of the calendar, in UTC."""

    DAY = "day"
    #: From Monday on.
    WEEK = "week"
    MONTH = "month"


_SHORTEST_DAYS: Final[Mapping[Bucket, int]] = MappingProxyType(
    {Bucket.DAY: 1, Bucket.WEEK: 7, Bucket.MONTH: 28}
)


def days_max(bucket: Bucket) -> int:
    """Return how many days are answered at most in buckets of this length."""
    return BUCKETS_MAX * _SHORTEST_DAYS[bucket]


#: A gateway and a currency: what money can be added up of, and compared.
Stream: TypeAlias = tuple[str, str]


class Sum(NamedTuple):
    """Counts of one kind and stream; `start` is the first day of their bucket.

    Without a start they are those since the last bucket, or since ever.
    """

    start: date | None
    stream: Stream
    what: str
    times: int
    amount: int


class Amount(NamedTuple):
    """How often something happened, and the money of it in minor units."""

    times: int = 0
    amount: int = 0


@dataclass(slots=True)
class Figures:
    """What happened to subscriptions in a span of time, all of their money in one currency."""

    #: Subscriptions that were alive before it began.
    living_before: int = 0
    _sums: dict[str, Amount] = field(default_factory=dict)

    def add(self, what: str, times: int, amount: int) -> None:
        """Count something that happened."""
        known = self._sums.get(what, Amount())
        self._sums[what] = Amount(known.times + times, known.amount + amount)

    def of(self, *kinds: str) -> Amount:
        """Return the sum of kinds of counts."""
        found = [self._sums.get(kind, Amount()) for kind in kinds]
        return Amount(sum(each.times for each in found), sum(each.amount for each in found))

    @property
    def success_rate(self) -> float | None:
        """Periods that were paid to those that were opened, in per cent.

        Above 100 where many were paid that had been opened before.
        """
        opened = self.of("opened").times
        return 100 * self.of(*PAID).times / opened if opened else None

    @property
    def churn_rate(self) -> float | None:
        """Share of those alive before or begun since that were cancelled, in per cent."""
        there = self.living_before + self.of("started").times
        return 100 * self.of("churned").times / there if there > 0 else None


@dataclass(frozen=True, slots=True)
class Analysis:
    """Figures of buckets, and of their whole time: by stream and by currency.

    Money is not added across currencies. Each mapping is in the order of its keys.
    """

    buckets: Mapping[tuple[date, Stream], Figures]
    streams: Mapping[Stream, Figures]
    currencies: Mapping[str, Figures]
    #: Subscriptions by their state at this moment.
    states: Mapping[SubscriptionState, int]


def analyse(sums: Sequence[Sum], now: Sequence[Sum]) -> Analysis:
    """Put figures together.

    Args:
        sums: Counts of buckets, and those of states since the last one: from how many there are
            now is counted back to how many there were.
        now: How many subscriptions there are in each state.
    """
    states = Counter(dict.fromkeys(SubscriptionState, 0))
    living: Counter[Stream] = Counter()
    for each in now:
        states[SubscriptionState(each.what.removeprefix(_IN_STATE))] += each.times
        living[each.stream] += each.times if each.what in LIVING else 0
    buckets: defaultdict[tuple[date, Stream], Figures] = defaultdict(Figures)
    streams: defaultdict[Stream, Figures] = defaultdict(Figures)
    currencies: defaultdict[str, Figures] = defaultdict(Figures)
    born: Counter[tuple[date, Stream]] = Counter()
    for start, stream, what, times, amount in sums:
        if what in LIVING:
            living[stream] -= times
        if start is None:
            continue
        bucket = buckets[start, stream]
        if what in LIVING:
            born[start, stream] += times
        elif what not in STATE_COUNTS:
            for figures in (bucket, streams[stream], currencies[stream[1]]):
                figures.add(what, times, amount)
    for stream, number in living.items():
        streams[stream].living_before = number
        currencies[stream[1]].living_before += number
    for key in sorted(buckets):
        buckets[key].living_before = living[key[1]]
        living[key[1]] += born[key]
    return Analysis(_in_order(buckets), _in_order(streams), _in_order(currencies), states)


K = TypeVar("K", tuple[date, Stream], Stream, str)


def _in_order(figures: Mapping[K, Figures]) -> Mapping[K, Figures]:
    return {key: figures[key] for key in sorted(figures)}
