"""What came of a simulated time: for a person with a small chart, or as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.local.load_comparison import Compared, Verdict, count
from deploy.local.printing import plain
from deploy.local.simulate_checks import BilledPeriod, Lived, Problem
from shared.money import Money
from shared.web.bodies import time_text

#: Problems that are quoted.
EXAMPLES_MAX: Final = 10

#: Characters of the longest bar.
BAR_LENGTH: Final = 40

#: Figures of the analytics, in the order of the table, with what they are called.
_FIGURES: Final[Sequence[tuple[str, str]]] = (
    ("opened", "opened"),
    ("paidAtOnce", "paid at once"),
    ("paidByRetry", "recovered by retries"),
    ("paidByDunning", "recovered by dunning"),
    ("failedCharges", "charges failed for good"),
    ("writtenOff", "written off"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is known after the clocks have come to their end."""

    start: datetime
    end: datetime
    #: From the first process to the last check.
    seconds: float
    #: Of these, from the first request until the clocks were ready.
    simulating_seconds: float
    #: The answer of `GET /api/subscriptions/analytics`, by month.
    analytics: Mapping[str, Any]
    lived: Sequence[Lived]
    billed: Sequence[BilledPeriod]
    #: Charges that the clocks still wait for.
    waiting: Sequence[Mapping[str, Any]]
    problems: Sequence[Problem]
    verdicts: Sequence[Compared]
    #: Names of the invariants that the audit found violated.
    violated: Sequence[str]

    @property
    def mismatches(self) -> list[Compared]:
        """Payments of which the two ledgers say different things."""
        return [each for each in self.verdicts if each.verdict is not Verdict.MATCH]

    @property
    def is_well(self) -> bool:
        """Whether every period was billed once, and both ledgers agree."""
        return not (self.waiting or self.problems or self.mismatches or self.violated)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return what a machine wants to know."""
    return {
        "well": outcome.is_well,
        "from": time_text(outcome.start),
        "to": time_text(outcome.end),
        "seconds": outcome.seconds,
        "simulatingSeconds": outcome.simulating_seconds,
        "subscriptions": len(outcome.lived),
        "states": dict(Counter(each.state for each in outcome.lived)),
        "periods": dict(Counter(each.state for each in outcome.billed)),
        "analytics": dict(outcome.analytics),
        "waiting": [dict(each) for each in outcome.waiting],
        "problems": [each._asdict() for each in outcome.problems],
        "ledgers": {str(verdict): number for verdict, number in count(outcome.verdicts).items()},
        "wrong": [each._asdict() for each in outcome.mismatches],
        "violatedInvariants": list(outcome.violated),
    }


def render(target: Console, outcome: Outcome) -> None:
    """Print the figures, the chart, then what is wrong if anything is."""
    target.print(_figures(outcome))
    target.print(_states(outcome))
    for currency, months in _by_month(outcome).items():
        target.print(_chart(currency, months))
    periods = Counter(each.state for each in outcome.billed)
    target.print(
        f"{len(outcome.billed):,} periods of {len(outcome.lived):,} subscriptions, "
        f"{periods['paid']:,} of them paid, in {outcome.simulating_seconds:.1f} s "
        f"({outcome.seconds:.1f} s with all processes and checks)."
    )
    _render_checks(target, outcome)


def _figures(outcome: Outcome) -> Table:
    span = f"{outcome.start:%-d %B %Y} to {outcome.end:%-d %B %Y}"
    table = Table(title=f"What was billed from {span}", title_justify="left")
    table.add_column("Gateway")
    for _, heading in _FIGURES:
        table.add_column(heading, justify="right")
    table.add_column("success", justify="right")
    table.add_column("revenue", justify="right")
    for each in outcome.analytics["byGateway"]:
        table.add_row(
            plain(each["gateway"]),
            *(f"{each[name]['times']:,}" for name, _ in _FIGURES),
            _rate(each["successRate"]),
            str(Money(each["revenue"]["amount"], each["currency"])),
        )
    return table


def _states(outcome: Outcome) -> Table:
    table = Table(title="What became of the subscriptions", title_justify="left")
    states = Counter((each.state, each.reason) for each in outcome.lived)
    table.add_column("State")
    table.add_column("Reason")
    table.add_column("Subscriptions", justify="right")
    for (state, reason), number in states.most_common():
        table.add_row(state, plain(reason), f"{number:,}")
    churned = sum(each["churned"] for each in outcome.analytics["totals"])
    table.add_section()
    table.add_row("churned", "", f"{churned:,} ({_rate(100 * churned / len(outcome.lived))})")
    return table


def _rate(per_cent: float | None) -> str:
    return "-" if per_cent is None else f"{per_cent:.1f} %"


class _Month(NamedTuple):
    """What a month brought in a currency."""

    revenue: int = 0
    #: Of it: by a further try.
    recovered: int = 0
    churned: int = 0


def _by_month(outcome: Outcome) -> dict[str, dict[str, _Month]]:
    """Return what each month brought, by currency and first day."""
    found: defaultdict[str, dict[str, _Month]] = defaultdict(dict)
    for bucket in outcome.analytics["buckets"]:
        months = found[bucket["currency"]]
        before = months.get(bucket["start"], _Month())
        recovered = bucket["paidByRetry"]["amount"] + bucket["paidByDunning"]["amount"]
        months[bucket["start"]] = _Month(
            before.revenue + bucket["revenue"]["amount"],
            before.recovered + recovered,
            before.churned + bucket["churned"],
        )
    return dict(found)


def _chart(currency: str, months: Mapping[str, _Month]) -> Table:
    table = Table(title=f"Revenue by month in {currency}", title_justify="left", box=None)
    table.add_column("Month")
    table.add_column(f"█ at once  ▒ recovered {'':<{BAR_LENGTH - 22}}")
    table.add_column(currency, justify="right")
    table.add_column("churned", justify="right")
    most = max((month.revenue for month in months.values()), default=0) or 1
    for start, month in sorted(months.items()):
        length = round(BAR_LENGTH * month.revenue / most)
        recovered = round(BAR_LENGTH * month.recovered / most)
        bar = Text("█" * (length - recovered), style="green")
        bar.append("▒" * recovered, style="yellow")
        table.add_row(start[:7], bar, str(Money(month.revenue, currency)), f"{month.churned:,}")
    return table


def _render_checks(target: Console, outcome: Outcome) -> None:
    counts = count(outcome.verdicts)
    matched = f"{counts[Verdict.MATCH]:,} of {len(outcome.verdicts):,} payments are the same"
    _say(target, f"Both ledgers: {matched}.", is_well=not outcome.mismatches)
    for each in outcome.mismatches[:EXAMPLES_MAX]:
        line = f"  {each.verdict}: {plain(each.subject)} ({each.gateway}) {each.problem}"
        target.print(Text(line, style="red"))
    number = len(outcome.problems)
    verdict = f"{number:,} problems" if number else "none doubled, none missed"
    _say(target, f"Periods: {verdict}.", is_well=not number)
    for problem in outcome.problems[:EXAMPLES_MAX]:
        target.print(Text(f"  {plain(problem.subject)} {problem.what}", style="red"))
    if outcome.waiting:
        _say(target, f"{len(outcome.waiting)} charges are still awaited, as of", is_well=False)
        for charge in outcome.waiting[:EXAMPLES_MAX]:
            words = (charge["subscriptionId"], charge["paymentId"], charge["since"])
            target.print(Text(f"  {' '.join(words)}"))
    clean = f"not clean: {', '.join(outcome.violated)}" if outcome.violated else "clean"
    _say(target, f"The audit is {clean}.", is_well=not outcome.violated)


def _say(target: Console, sentence: str, *, is_well: bool) -> None:
    target.print(Text(sentence, style="green" if is_well else "bold red"))
