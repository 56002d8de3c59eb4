"""The figures as a table and as JSON: medians, spread, ratios and the goals they are held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Final

from tests.benchmark.scenarios import Sample

# Above this, something else had a visible part of the machine during a run.
FOREIGN_CPU_SHARE_NOTED: Final = 0.03
AT_LEAST: Final = "at least"
AT_MOST: Final = "at most"


@dataclass(frozen=True, slots=True)
class Metric:
    """A line of the table; `sources` are the samples' values that it pools."""

    title: str
    unit: str
    sources: Sequence[str]
    better: str = AT_LEAST
    # Sluice's median divided by the other side's, by the other side's name.
    goals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figures:
    """One side's values of a metric."""

    median: float
    lowest: float
    highest: float
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Sluice's median over the other's, with the range over the repetitions."""

    of_medians: float
    lowest: float
    highest: float
    goal: float | None
    reached: bool | None


@dataclass(frozen=True, slots=True)
class Line:
    """A metric with what every side reached."""

    title: str
    unit: str
    better: str
    sides: Mapping[str, Figures]
    ratios: Mapping[str, Ratio]


METRICS: Final[Sequence[Metric]] = (
    Metric(
        "acknowledged, workers stopped",
        "/s",
        ("backlog-0ms/acknowledged_per_second", "backlog-50ms/acknowledged_per_second"),
        goals={"peer": 3.0, "tuned peer": 2.0},
    ),
    Metric("drain, gateway 0 ms", "/s", ("backlog-0ms/drained_per_second",)),
    Metric("drain, gateway 50 ms", "/s", ("backlog-50ms/drained_per_second",)),
    Metric(
        "end to end, gateway 0 ms",
        "/s",
        ("end-to-end-0ms/events_per_second",),
        goals={"peer": 4.0, "tuned peer": 2.5},
    ),
    Metric(
        "end to end, gateway 50 ms",
        "/s",
        ("end-to-end-50ms/events_per_second",),
        goals={"peer": 4.0, "tuned peer": 2.5},
    ),
    Metric(
        "end to end, 50 ms, 1 % take 2 s",
        "/s",
        ("end-to-end-tail/events_per_second",),
        goals={"peer": 3.0},
    ),
    Metric(
        "CPU per 1,000, gateway 0 ms",
        "s",
        ("end-to-end-0ms/cpu_seconds_per_1000",),
        AT_MOST,
        {"peer": 0.3},
    ),
    Metric(
        "CPU per 1,000, gateway 50 ms",
        "s",
        ("end-to-end-50ms/cpu_seconds_per_1000",),
        AT_MOST,
        {"peer": 0.3},
    ),
    Metric("latency p50 at 50/s", "ms", ("latency-50/p50_milliseconds",), AT_MOST),
    Metric("latency p99 at 50/s", "ms", ("latency-50/p99_milliseconds",), AT_MOST, {"peer": 1.0}),
    Metric("latency p50 at 300/s", "ms", ("latency-300/p50_milliseconds",), AT_MOST, {"peer": 2.0}),
    Metric("latency p99 at 300/s", "ms", ("latency-300/p99_milliseconds",), AT_MOST),
    Metric("2,000 deliveries, 200 twice, 0 ms", "s", ("duplicates-0ms/seconds",), AT_MOST),
    Metric("2,000 deliveries, 200 twice, 50 ms", "s", ("duplicates-50ms/seconds",), AT_MOST),
)

_REACHED: Final[Mapping[str, Callable[[float, float], bool]]] = MappingProxyType(
    {AT_LEAST: lambda ratio, goal: ratio >= goal, AT_MOST: lambda ratio, goal: ratio <= goal}
)


def lines(samples: Sequence[Sample]) -> list[Line]:
    """Condense the samples; a metric that no side was measured for has no line."""
    found = (_line(metric, samples) for metric in METRICS)
    return [line for line in found if line.sides]


def missed(report: Sequence[Line]) -> list[str]:
    """Name the goals that were not reached."""
    return [
        f"{line.title}, against the {other}"
        for line in report
        for other, ratio in line.ratios.items()
        if ratio.reached is False
    ]


def table(report: Sequence[Line], sides: Sequence[str]) -> str:
    """Render medians with their range, and Sluice's ratios to the others."""
    others = [side for side in sides if side != "sluice"]
    header = ["median (lowest to highest)", "", *sides]
    if "sluice" in sides:
        header += [f"to the {other}" for other in others]
    rows = [header]
    for line in report:
        row = [line.title, line.unit]
        row += [_figures_text(line.sides.get(side)) for side in sides]
        if "sluice" in sides:
            row += [_ratio_text(line.ratios.get(other), line.better) for other in others]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def disturbances(samples: Sequence[Sample]) -> str:
    """Say how far the machine was ours alone."""
    disturbed = [sample for sample in samples if not undisturbed(sample)]
    worst = max((sample.foreign_cpu_share for sample in samples), default=0.0)
    return (
        f"{len(disturbed)} of {len(samples)} runs were disturbed: they began on a busy machine, or"
        f" other processes took more than {FOREIGN_CPU_SHARE_NOTED:.0%} of its cores"
        f" (at worst {worst:.0%})."
    )


def undisturbed(sample: Sample) -> bool:
    """Whether the machine was quiet before and left alone during a run."""
    return sample.began_quiet and sample.foreign_cpu_share <= FOREIGN_CPU_SHARE_NOTED


def as_json(report: Sequence[Line], samples: Sequence[Sample]) -> dict[str, object]:
    """Return everything, single values included, as what `json` can write."""
    return {
        "lines": [asdict(line) for line in report],
        "samples": [{**asdict(sample), "undisturbed": undisturbed(sample)} for sample in samples],
    }


def _line(metric: Metric, samples: Sequence[Sample]) -> Line:
    by_side: dict[str, list[float]] = {}
    for sample in samples:
        values = [sample.values[name] for name in metric.sources if name in sample.values]
        by_side.setdefault(sample.side, []).extend(values)
    sides = {
        side: Figures(statistics.median(values), min(values), max(values), tuple(values))
        for side, values in by_side.items()
        if values
    }
    ratios = {
        other: _ratio(metric, sides["sluice"], figures, other)
        for other, figures in sides.items()
        if "sluice" in sides and other != "sluice"
    }
    return Line(metric.title, metric.unit, metric.better, sides, ratios)


def _ratio(metric: Metric, ours: Figures, theirs: Figures, other: str) -> Ratio:
    of_medians = ours.median / theirs.median
    # Value by value: both were taken one after the other, in the same repetition.
    pairs = [a / b for a, b in zip(ours.values, theirs.values, strict=False)]
    goal = metric.goals.get(other)
    return Ratio(
        of_medians=of_medians,
        lowest=min(pairs),
        highest=max(pairs),
        goal=goal,
        reached=None if goal is None else _REACHED[metric.better](of_medians, goal),
    )


def _figures_text(figures: Figures | None) -> str:
    if figures is None:
        return ""
    return f"{_number(figures.median)} ({_number(figures.lowest)} to {_number(figures.highest)})"


def _ratio_text(ratio: Ratio | None, better: str) -> str:
    if ratio is None:
        return ""
    text = f"{ratio.of_medians:.2f} ({ratio.lowest:.2f} to {ratio.highest:.2f})"
    if ratio.goal is None:
        return text
    return f"{text}, goal {better} {ratio.goal:g}: {'reached' if ratio.reached else 'MISSED'}"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
