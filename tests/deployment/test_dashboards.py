"""Dashboards are valid, current, and ask only for what is measured."""

from __future__ import annotations

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import orjson
import promql_parser
import pytest
import yaml

from deploy.grafana.contents import DASHBOARDS
from deploy.grafana.files import DIRECTORY
from deploy.grafana.rendering import render
from deploy.local.services import WORKER_NAMES
from tests.support.dashboards import BUILT_IN, Shown, dashboards, panels_of, queries
from tests.support.documented_metrics import documented_series
from tests.support.modules import REPOSITORY

SCHEMA = REPOSITORY.parent / "shared/reference/crd-schemas/grafana-dashboard.schema.json"

NAMED = re.compile(r"\{\{(\w+)\}\}")
RUNBOOK = re.compile(r"docs/[\w/-]+\.md")

#: What stands for a variable where only the form matters.
CHOSEN = "what-was-chosen"


class Selectors(list[promql_parser.VectorSelector]):
    """What an expression reads."""

    def __init__(self, expression: promql_parser.Expr) -> None:
        super().__init__()
        promql_parser.walk(expression, self._visit)

    def _visit(self, expression: promql_parser.Expr) -> None:
        if isinstance(expression, promql_parser.VectorSelector):
            self.append(expression)


def parsed(shown: Shown) -> promql_parser.Expr:
    values = dict.fromkeys(BUILT_IN, "5m") | dict.fromkeys(shown.variables - BUILT_IN, CHOSEN)
    return promql_parser.parse(shown.with_values(values))


def grouped(expression: promql_parser.Expr) -> list[promql_parser.AggregateExpr]:
    """Return the aggregations that keep some labels."""
    found: list[promql_parser.AggregateExpr] = []

    def visit(inner: promql_parser.Expr) -> None:
        if isinstance(inner, promql_parser.AggregateExpr) and inner.modifier is not None:
            found.append(inner)

    promql_parser.walk(expression, visit)
    return found


def labels_of(selector: promql_parser.VectorSelector) -> set[str]:
    return {matcher.name for matcher in selector.matchers.matchers}


@pytest.fixture(scope="module")
def shown() -> list[Shown]:
    return list(queries())


def test_the_files_are_what_the_code_makes_of_them() -> None:
    made = {dashboard.name: render(dashboard) for dashboard in DASHBOARDS}

    kept = {path.stem: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")}

    assert kept == made, "run `python -m deploy.grafana`"


def test_there_is_one_for_everything_that_people_ask_about() -> None:
    assert set(dashboards()) == {
        *("overview", "queues", "subscriptions", "gateways"),
        *WORKER_NAMES,
    }


def test_the_data_source_knows_how_often_prometheus_reads() -> None:
    """Grafana makes the shortest window of a rate of it."""
    provisioned = read_yaml("grafana/provisioning/datasources/prometheus.yaml")
    (source,) = provisioned["datasources"]

    configured = read_yaml("prometheus/prometheus.yaml")["global"]["scrape_interval"]

    assert source["jsonData"]["timeInterval"] == configured


def read_yaml(path: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / path).read_text("utf-8"))
    return content


@pytest.mark.parametrize("name", dashboards())
def test_grafana_can_read_it(name: str) -> None:
    if not SCHEMA.exists():
        pytest.skip("Grafana's schema is not in the repository")

    jsonschema.validate(dashboards()[name], orjson.loads(SCHEMA.read_bytes()))


@pytest.mark.parametrize("name", dashboards())
def test_no_two_panels_are_in_one_place(name: str) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboards()[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in cells(place):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def cells(place: dict[str, Any]) -> list[tuple[int, int]]:
    return [
        (x, y)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]


@pytest.mark.parametrize("name", dashboards())
def test_every_panel_says_what_it_means_and_names_pages_that_exist(name: str) -> None:
    panels = panels_of(dashboards()[name])

    assert all(panel["title"] and panel["description"].endswith(".") for panel in panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        for page in RUNBOOK.findall(panel["description"]):
            assert (REPOSITORY / page).exists(), (panel["title"], page)


def test_every_query_asks_for_metrics_and_labels_that_are_documented(shown: list[Shown]) -> None:
    known = documented_series()
    for query in shown:
        expression = parsed(query)
        selectors = Selectors(expression)
        assert selectors, query
        for selector in selectors:
            assert selector.name in known, query
            assert labels_of(selector) <= known[selector.name], (query, str(selector))
        for aggregate in grouped(expression):
            there = {label for each in Selectors(aggregate.expr) for label in known[str(each.name)]}
            assert aggregate.modifier is not None
            assert set(aggregate.modifier.labels) <= there, query
        there = {label for each in selectors for label in known[str(each.name)]}
        assert set(NAMED.findall(query.legend)) <= there, query


def test_every_selector_keeps_to_the_chosen_namespace(shown: list[Shown]) -> None:
    for query in shown:
        for selector in Selectors(parsed(query)):
            chosen = [each.value for each in selector.matchers.matchers if each.name == "namespace"]
            # Alerts of what is absent have lost the label.
            assert chosen == [CHOSEN if selector.name != "ALERTS" else f"({CHOSEN})?"], query


def test_every_choice_that_is_used_is_offered(shown: list[Shown]) -> None:
    for query in shown:
        offered = {each["name"] for each in dashboards()[query.dashboard]["templating"]["list"]}
        assert query.variables - BUILT_IN <= offered, query


def test_legends_tell_series_apart(shown: list[Shown]) -> None:
    """A legend names every label that is left."""
    for query in shown:
        outer = re.match(r"(?:topk\(10, )?(?:sum|max) by \(([^)]*)\)", query.expression)
        if outer is None or not query.legend:
            continue
        left = {label.strip() for label in outer[1].split(",")}
        if left != {"le"}:
            assert left <= set(NAMED.findall(query.legend)), query


def test_every_metric_is_shown_somewhere(shown: list[Shown]) -> None:
    asked = {str(each.name) for query in shown for each in Selectors(parsed(query))}
    bases = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in asked} | asked
    own = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in documented_series()}

    assert own - bases == set()
