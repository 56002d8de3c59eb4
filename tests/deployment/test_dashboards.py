"""Dashboards are valid, current, and ask only for what is measured."""

from __future__ import annotations

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import orjson
import promql_parser
import pytest

from deploy.grafana.contents import DASHBOARDS
from deploy.grafana.expressions import NAMESPACE
from deploy.grafana.files import DIRECTORY
from deploy.grafana.rendering import render
from deploy.local.services import WORKER_NAMES
from tests.support.dashboards import BUILT_IN, Shown, dashboards, panels_of, queries
from tests.support.documented_metrics import documented_series
from tests.support.modules import REPOSITORY

SCHEMA = REPOSITORY.parent / "shared/reference/crd-schemas/grafana-dashboard.schema.json"

#: Every selector that we write has braces.
SELECTOR = re.compile(r"(\w+)\{([^{}]*)\}")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
NAMED = re.compile(r"\{\{(\w+)\}\}")
RUNBOOK = re.compile(r"docs/[\w/-]+\.md")

#: What stands for a variable where only the form matters.
ANY_VALUE = dict.fromkeys(BUILT_IN, "5m")


def in_form(shown: Shown) -> str:
    return shown.with_values(ANY_VALUE | dict.fromkeys(shown.variables - BUILT_IN, ".*"))


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


def test_every_query_is_promql(shown: list[Shown]) -> None:
    for query in shown:
        promql_parser.parse(in_form(query))


def test_every_query_asks_for_metrics_and_labels_that_are_documented(shown: list[Shown]) -> None:
    known = documented_series()
    for query in shown:
        selectors = SELECTOR.findall(query.expression)
        assert selectors, query
        labels: set[str] = set()
        for metric, matchers in selectors:
            assert metric in known, (query.name, metric)
            unknown = set(LABEL.findall(matchers)) - known[metric]
            assert not unknown, (query.name, metric, unknown)
            labels |= known[metric]
        named = {
            label.strip()
            for group in GROUPED.findall(query.expression)
            for label in group.split(",")
        }
        assert named | set(NAMED.findall(query.legend)) <= labels, query.name


def test_every_query_keeps_to_the_chosen_namespace(shown: list[Shown]) -> None:
    for query in shown:
        for metric, matchers in SELECTOR.findall(query.expression):
            # Alerts of what is absent have lost the label.
            is_alert = metric == "ALERTS" and 'namespace=~"($namespace)?"' in matchers
            assert NAMESPACE in matchers or is_alert, query


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
    asked = {metric for query in shown for metric, _ in SELECTOR.findall(query.expression)}
    bases = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in asked} | asked
    own = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in documented_series()}

    assert own - bases == set()
