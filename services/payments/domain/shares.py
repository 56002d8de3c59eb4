"""How a gateway's limit is shared among processes: by need, and never more than there is in all.

A process may use what it holds until it hears otherwise, so a share that falls is free for others
only when its holder has said that it keeps to the smaller one. Shares rise at once, out of what
nobody holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: A process without calls weighs as much as this many calls of another, when a rate is shared: its
#: first call must not wait for a share.
IDLE_WEIGHT: Final = 1


@dataclass(frozen=True, slots=True)
class Share:
    """What one process has of one gateway's limits, and what it could use.

    Of `calls` and `rate` the value None says that there is no limit of this kind.
    """

    #: Calls in flight, and calls a second, that it keeps to from now on.
    calls: int | None = None
    rate: float | None = None
    #: What it may be using until it has heard of that; never less.
    calls_held: int = 0
    rate_held: float = 0.0
    #: Calls in flight, those that wait for a share, and those that ended since it last said so.
    in_flight: int = 0
    waiting: int = 0
    made: int = 0


def fair_calls(limit: int, wanted: Mapping[str, int], turn: int) -> dict[str, int]:
    """Split calls in flight among processes: those that want little get it, the others as much.

    Whoever wants nothing still gets one, where there are enough, for the call to come; what is left
    over is split evenly for the same reason. The sum is `limit` exactly.

    Args:
        limit: Calls in all, at least 1.
        wanted: Calls that each process has, or could have, in flight; one process at least.
        turn: Any number; it says who gets what cannot be split, so let it change now and then.
    """
    names = sorted(wanted)
    first = turn % len(names)
    names = names[first:] + names[:first]
    wants = {name: max(1, wanted[name]) for name in names}
    shares: dict[str, int] = {}
    left = limit
    while content := [name for name in wants if wants[name] <= left // len(wants)]:
        for name in content:
            shares[name] = wants.pop(name)
            left -= shares[name]
    # Whoever is not content, or else everybody, gets as much more as everybody else of them. Where
    # there is not even one call for each, nobody waits for one who has nothing to call about.
    among = sorted(wants or names, key=lambda name: wanted[name] == 0)
    for number, name in enumerate(among):
        more = left // len(among) + (1 if number < left % len(among) else 0)
        shares[name] = shares.get(name, 0) + more
    return shares


def fair_rates(limit: float, wanted: Mapping[str, int]) -> dict[str, float]:
    """Split calls a second among processes in proportion to what they want."""
    weights = {name: want + IDLE_WEIGHT for name, want in wanted.items()}
    total = sum(weights.values())
    return {name: limit * weight / total for name, weight in weights.items()}


def next_calls(limit: int, own: Share, target: int, held_by_others: int) -> tuple[int, int]:
    """Return the calls that a process keeps to from now on, and those it must be thought to use.

    Args:
        limit: Calls of all processes together.
        own: What the process keeps to so far, and its calls in flight.
        target: Its fair share.
        held_by_others: What the others must be thought to use.
    """
    kept = own.calls or 0
    calls = min(target, max(kept, limit - held_by_others, 0))
    return calls, max(calls, kept, own.in_flight)


def next_rate(
    limit: float, own: Share, target: float, held_by_others: float
) -> tuple[float, float]:
    """Return the rate that a process keeps to from now on, and the one it may still be using."""
    kept = own.rate or 0.0
    rate = min(target, max(kept, limit - held_by_others, 0.0))
    return rate, max(rate, kept)


def next_share(
    process: str,
    own: Share,
    others: Mapping[str, Share],
    *,
    calls_limit: int | None,
    rate_limit: float | None,
    turn: int,
) -> Share:
    """Return what a process has from now on, and what others must take it to be using.

    Args:
        process: Its name.
        own: What it keeps to so far, and its need.
        others: What the other processes hold, and their need.
        calls_limit: Calls in flight of all processes together.
        rate_limit: Calls a second of all processes together.
        turn: Says who gets what cannot be split.
    """
    everybody = {**others, process: own}
    calls, rate, calls_held, rate_held = None, None, own.in_flight, 0.0
    if calls_limit is not None:
        wanted = {name: share.in_flight + share.waiting for name, share in everybody.items()}
        target = fair_calls(calls_limit, wanted, turn)[process]
        held = sum(share.calls_held for share in others.values())
        calls, calls_held = next_calls(calls_limit, own, target, held)
    if rate_limit is not None:
        wanted = {
            name: share.in_flight + share.waiting + share.made for name, share in everybody.items()
        }
        fair = fair_rates(rate_limit, wanted)[process]
        rate_held_by_others = sum(share.rate_held for share in others.values())
        rate, rate_held = next_rate(rate_limit, own, fair, rate_held_by_others)
    return Share(calls, rate, calls_held, rate_held, own.in_flight, own.waiting, own.made)
