"""The dashboards as Grafana gets them, and their queries as Prometheus gets them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from deploy.grafana.files import DIRECTORY

#: What Grafana puts into `$name` or `${name}` by itself.
BUILT_IN: Final = frozenset({"__rate_interval", "__range", "__interval"})

_VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True)
class Shown:
    """One query of one panel, or of an annotation."""

    dashboard: str
    panel: str
    expression: str
    legend: str
    is_instant: bool

    @property
    def name(self) -> tuple[str, str]:
        """Return where it is to be seen."""
        return self.dashboard, self.panel

    @property
    def variables(self) -> set[str]:
        """Return what Grafana has to put in."""
        return set(_VARIABLE.findall(self.expression))

    def with_values(self, values: Mapping[str, str]) -> str:
        """Return the expression as Prometheus gets it."""
        return _VARIABLE.sub(lambda found: values[found[1]], self.expression)


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the JSON of every dashboard by the name of its file."""
    return {path.stem: orjson.loads(path.read_bytes()) for path in sorted(DIRECTORY.glob("*.json"))}


def panels_of(dashboard: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what shows something; headings do not."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Shown]:
    """Return every query of every panel and annotation."""
    for name, dashboard in dashboards().items():
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                yield Shown(
                    name,
                    panel["title"],
                    target["expr"],
                    target["legendFormat"],
                    target["instant"],
                )
        for annotation in dashboard["annotations"]["list"]:
            text = annotation["titleFormat"]
            yield Shown(name, annotation["name"], annotation["expr"], text, is_instant=False)
