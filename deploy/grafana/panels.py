"""What a dashboard is made of, and the JSON that Grafana reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from deploy.grafana.expressions import quantile, select

DATASOURCE: Final = MappingProxyType({"type": "prometheus", "uid": "${datasource}"})

#: Grafana's grid is this wide.
COLUMNS: Final = 24

#: The version of the JSON model of Grafana 10.4 and later.
SCHEMA_VERSION: Final = 39

TAG: Final = "sluice"

GREEN, ORANGE, RED = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """One expression and how its series are called."""

    expression: str
    legend: str = ""
    #: Only the last value counts, as in a number that stands for all of the time shown.
    is_instant: bool = False
    format: str = "time_series"


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. `plugin` is Grafana's name of its kind."""

    plugin: str
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    width: int
    height: int
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: Mapping[str, Any] = field(default_factory=dict)
    #: From which value on which colour holds; green before the first.
    thresholds: tuple[tuple[float, str], ...] = ()
    #: The colour before the first threshold.
    base: str = GREEN
    #: What a value is called and its colour.
    words: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the panels below it, from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a reader can choose: values of a label of a metric."""

    name: str
    metric: str
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page; `name` is that of its file and its address."""

    name: str
    title: str
    description: str
    sections: tuple[Section, ...]
    choices: tuple[Choice, ...] = ()


def number(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    thresholds: Sequence[tuple[float, str]] = (),
    base: str = GREEN,
    is_instant: bool = True,
    width: int = 4,
) -> Panel:
    """Return one number. Without `is_instant` its course is drawn behind it."""
    return Panel(
        plugin="stat",
        title=title,
        description=description,
        queries=(Query(expression, is_instant=is_instant),),
        unit=unit,
        width=width,
        height=4,
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "none" if is_instant else "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value",
        },
        thresholds=tuple(thresholds),
        base=base,
    )


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    thresholds: Sequence[tuple[float, str]] = (),
    base: str = GREEN,
    is_stacked: bool = False,
    minimum: float | None = 0,
    maximum: float | None = None,
    width: int = 12,
) -> Panel:
    """Return values over time; thresholds are lines."""
    stacking = {"mode": "normal" if is_stacked else "none", "group": "A"}
    return Panel(
        plugin="timeseries",
        title=title,
        description=description,
        queries=tuple(queries),
        unit=unit,
        width=width,
        height=8,
        options={
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        custom={
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if is_stacked else 10,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": stacking,
            "thresholdsStyle": {"mode": "line" if thresholds else "off"},
        },
        thresholds=tuple(thresholds),
        base=base,
        minimum=minimum,
        maximum=maximum,
    )


def percentiles(
    title: str,
    description: str,
    histogram: str,
    matchers: str = "",
    *,
    thresholds: Sequence[tuple[float, str]] = (),
    width: int = 12,
) -> Panel:
    """Return the median, the 95th and the 99th percentile of a duration over time."""
    queries = [
        Query(quantile(share, histogram, matchers), name)
        for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]
    return graph(title, description, queries, "s", thresholds=thresholds, width=width)


def heatmap(
    title: str, description: str, histogram: str, matchers: str = "", *, width: int = 12
) -> Panel:
    """Return how many took how long, over time."""
    buckets = select(f"{histogram}_bucket", matchers)
    expression = f"sum by (le) (increase({buckets}[$__rate_interval]))"
    return Panel(
        plugin="heatmap",
        title=title,
        description=description,
        queries=(Query(expression, "{{le}}", format="heatmap"),),
        unit="short",
        width=width,
        height=8,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"unit": "s"},
        },
    )


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    thresholds: Sequence[tuple[float, str]] = (),
    width: int = 12,
) -> Panel:
    """Return one bar for each series, for all of the time shown."""
    return Panel(
        plugin="bargauge",
        title=title,
        description=description,
        queries=tuple(Query(query.expression, query.legend, is_instant=True) for query in queries),
        unit=unit,
        width=width,
        height=8,
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": True,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        thresholds=tuple(thresholds),
        minimum=0,
    )


def states(
    title: str,
    description: str,
    query: Query,
    words: Mapping[int, tuple[str, str]],
    *,
    width: int = 24,
) -> Panel:
    """Return which state each of several things was in, over time."""
    return Panel(
        plugin="state-timeline",
        title=title,
        description=description,
        queries=(query,),
        unit="short",
        width=width,
        height=7,
        options={
            "mergeValues": True,
            "showValue": "auto",
            "rowHeight": 0.8,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "single", "sort": "none"},
        },
        custom={"fillOpacity": 80, "lineWidth": 0},
        words=words,
    )
