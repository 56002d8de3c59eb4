"""What came of a load: figures, for a person and for a machine."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.local.load_comparison import Compared, Verdict, count
from deploy.local.load_ledgers import Books
from deploy.local.load_traffic import Made
from deploy.local.printing import plain

#: Wrong payments that are told one by one; the others are only counted.
EXAMPLES_MAX: Final = 10

_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}

#: The fate of a payment whose calls never reached the simulator.
_NEVER_HEARD_OF: Final = "not heard of there"

_STYLES: Final[Mapping[Verdict, str]] = {Verdict.MATCH: "green"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One load that is over."""

    profile: Mapping[str, Any]
    all_made: Sequence[Made]
    #: From the first creation to the last one that was answered, and to the last payment at rest.
    making_seconds: float
    whole_seconds: float
    books: Books
    verdicts: Sequence[Compared]
    #: Whether the audit of a stack of our own is clean; None of somebody else's.
    is_audit_clean: bool | None

    @property
    def not_made(self) -> list[Made]:
        """Return the payments that Sluice never took on."""
        return [made for made in self.all_made if made.payment_id is None]

    @property
    def not_answered(self) -> list[Made]:
        """Return the payments that were taken on without an answer: Sluice follows them."""
        return [made for made in self.all_made if made.payment_id and not made.is_answered]

    @property
    def made_per_second(self) -> float:
        """Return how many creations were answered a second."""
        return sum(made.is_answered for made in self.all_made) / self.making_seconds

    @property
    def settled_per_second(self) -> float:
        """Return how many payments came to rest a second."""
        return sum(made.settled_seconds is not None for made in self.all_made) / self.whole_seconds

    @property
    def paid(self) -> list[Made]:
        """Return the payments that succeeded."""
        return [made for made in self.all_made if made.state == "succeeded"]

    @property
    def paid_per_minute(self) -> float:
        """Return how many payments succeeded a minute, from the first request to the last rest."""
        return 60 * len(self.paid) / max(self.making_seconds, self.whole_seconds)

    @property
    def paid_after_seconds(self) -> float | None:
        """Return how long a payment that succeeded took on average, from its creation."""
        times = [made.settled_seconds for made in self.paid if made.settled_seconds is not None]
        return fmean(times) if times else None

    @property
    def is_well(self) -> bool:
        """Whether both ledgers agree about every payment, and every payment was taken on."""
        agrees = all(each.verdict is Verdict.MATCH for each in self.verdicts)
        return agrees and not self.not_made and self.is_audit_clean is not False


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that a share of all values does not exceed (nearest rank)."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return what a machine wants to know; times in seconds."""
    fates = _by_fate(outcome)
    return {
        "well": outcome.is_well,
        "profile": dict(outcome.profile),
        "transactions": len(outcome.all_made),
        "notMade": len(outcome.not_made),
        "notAnswered": len(outcome.not_answered),
        "open": sum(made.is_open for made in outcome.all_made),
        "throughput": {
            "madePerSecond": outcome.made_per_second,
            "settledPerSecond": outcome.settled_per_second,
            "makingSeconds": outcome.making_seconds,
            "wholeSeconds": outcome.whole_seconds,
        },
        "paid": {
            "count": len(outcome.paid),
            "share": len(outcome.paid) / len(outcome.all_made),
            "perMinute": outcome.paid_per_minute,
            "afterSecondsOnAverage": outcome.paid_after_seconds,
        },
        "latencySeconds": {
            gateway: {
                "creation": _percentiles(made.created_seconds for made in all_made),
                "toTheEnd": _percentiles(_settled(all_made)),
            }
            for gateway, all_made in _by_gateway(outcome.all_made).items()
        },
        "fates": [
            {
                "fate": fate,
                "askedPercent": _asked(outcome.profile, fate),
                "reached": sum(states.values()),
                "states": dict(states),
            }
            for fate, states in fates.items()
        ],
        "notices": dict(Counter(fated.notice_fate for fated in outcome.books.fates.values())),
        "ledgers": {verdict.value: number for verdict, number in count(outcome.verdicts).items()},
        "wrong": [each._asdict() for each in outcome.verdicts if each.verdict is not Verdict.MATCH],
        "auditClean": outcome.is_audit_clean,
    }


def render(target: Console, outcome: Outcome) -> None:
    """Print the figures, then what is wrong if anything is."""
    target.print(_latencies(outcome))
    target.print(_fates(outcome))
    target.print(
        f"{len(outcome.all_made):,} payments: made within {outcome.making_seconds:.1f} s "
        f"({outcome.made_per_second:.1f}/s), the last at rest after {outcome.whole_seconds:.1f} s "
        f"({outcome.settled_per_second:.1f}/s)."
    )
    share, seconds = len(outcome.paid) / len(outcome.all_made), outcome.paid_after_seconds
    target.print(
        f"{len(outcome.paid):,} of them were paid ({share:.1%}), {outcome.paid_per_minute:,.0f} a "
        f"minute, each after {seconds or 0:.2f} s on average.\n"
    )
    table = Table(title="Both ledgers, payment by payment", title_justify="left")
    counts = count(outcome.verdicts)
    for verdict in counts:
        table.add_column(verdict.value, justify="right")
    table.add_row(
        *(
            Text(f"{n:,}", style=_STYLES.get(verdict, "bold red" if n else "green"))
            for verdict, n in counts.items()
        )
    )
    target.print(table)
    _render_wrong(target, outcome)


def _latencies(outcome: Outcome) -> Table:
    table = Table(title="Latency in ms", title_justify="left")
    table.add_column("Gateway")
    table.add_column("Payments", justify="right")
    for what in ("creation", "to the end"):
        for name in _SHARES:
            table.add_column(f"{what} {name}", justify="right")
    groups = {**_by_gateway(outcome.all_made), "all": list(outcome.all_made)}
    for gateway, all_made in groups.items():
        creations = _percentiles(made.created_seconds for made in all_made)
        ends = _percentiles(_settled(all_made))
        figures = [
            "-" if value is None else f"{value * 1000:,.0f}"
            for value in (*creations.values(), *ends.values())
        ]
        table.add_row(gateway, f"{len(all_made):,}", *figures)
    return table


def _fates(outcome: Outcome) -> Table:
    fates = _by_fate(outcome)
    states = sorted({state for ends in fates.values() for state in ends})
    table = Table(title="Fates, and where they led", title_justify="left")
    table.add_column("Fate at the gateway")
    table.add_column("Asked for", justify="right")
    table.add_column("Reached", justify="right")
    for state in states:
        table.add_column(state, justify="right")
    for fate, ends in fates.items():
        asked = _asked(outcome.profile, fate)
        table.add_row(
            fate,
            "-" if asked is None else f"{asked:g} %",
            f"{sum(ends.values()):,}",
            *(f"{ends[state]:,}" if ends[state] else "" for state in states),
        )
    return table


def _render_wrong(target: Console, outcome: Outcome) -> None:
    wrong = [each for each in outcome.verdicts if each.verdict is not Verdict.MATCH]
    for each in wrong[:EXAMPLES_MAX]:
        line = f"  {each.verdict}: {plain(each.subject)} ({each.gateway}) {each.problem}"
        target.print(Text(line, style="red"))
    if len(wrong) > EXAMPLES_MAX:
        target.print(Text(f"  and {len(wrong) - EXAMPLES_MAX:,} more", style="red"))
    refusals = Counter(f"{made.transaction.gateway}: {made.refusal}" for made in outcome.not_made)
    for refusal, number in refusals.most_common():
        target.print(Text(f"  {number:,} payments were not taken on ({plain(refusal)})", "red"))
    if outcome.not_answered:
        number = len(outcome.not_answered)
        target.print(f"{number:,} payments were taken on, but the gateway never said so.")
    still_open = sum(made.is_open for made in outcome.all_made)
    if still_open:
        target.print(f"{still_open:,} payments still wait, and say when they are looked at next.")
    if outcome.is_audit_clean is not None:
        clean = "clean" if outcome.is_audit_clean else "not clean: some invariant is violated"
        style = "green" if outcome.is_audit_clean else "bold red"
        target.print(Text(f"The audit is {clean}.", style=style))


def _by_gateway(all_made: Iterable[Made]) -> dict[str, list[Made]]:
    groups: defaultdict[str, list[Made]] = defaultdict(list)
    for made in all_made:
        groups[made.transaction.gateway].append(made)
    return dict(groups)


def _by_fate(outcome: Outcome) -> dict[str, Counter[str]]:
    """Count the states in which payments of each fate are; of several tries the first counts."""
    fates: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for payment in outcome.books.payments:
        found = outcome.books.fates_of(payment)
        fates[found[0].fate if found else _NEVER_HEARD_OF][payment.state] += 1
    return dict(sorted(fates.items()))


def _asked(profile: Mapping[str, Any], fate: str) -> float | None:
    """Return the share of a fate that the profile asks for, in per cent."""
    shares: Mapping[str, float] = profile.get("fates", {})
    if fate == "paid":
        return 100 - sum(share for name, share in shares.items() if name != "paid")
    return shares.get(fate)


def _settled(all_made: Iterable[Made]) -> list[float]:
    return [made.settled_seconds for made in all_made if made.settled_seconds is not None]


def _percentiles(values: Iterable[float]) -> dict[str, float | None]:
    known = list(values)
    return {name: percentile(known, share) for name, share in _SHARES.items()}
