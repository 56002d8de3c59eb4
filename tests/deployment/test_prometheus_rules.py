"""Rules that are valid, tested both ways, explained, and ask only for what is measured."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import promql_parser
import pytest
import yaml

from deploy.local.command import SUBCOMMANDS
from deploy.local.services import WORKER_NAMES
from tests.support.alertmanager import TOOL
from tests.support.documented_metrics import documented_series
from tests.support.modules import REPOSITORY
from tests.support.requirements import needs

DIRECTORY: Final = REPOSITORY / "deploy" / "prometheus"
RUNBOOKS: Final = REPOSITORY / "docs" / "runbooks"
RECORDING: Final = DIRECTORY / "recording.rules.yaml"
ALERTING: Final = DIRECTORY / "alerting.rules.yaml"
TESTS: Final = sorted((DIRECTORY / "tests").glob("*.yaml"))

#: Where the pages are published; the address is for whoever deploys to replace.
PUBLISHED_AT: Final = "https://sluice.example/docs/runbooks/"

SELECTOR: Final = re.compile(r"(\w+)\s*\{([^{}]*)\}")
LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")

#: What every page has, so that whoever is woken finds it without reading.
PARTS: Final = ("**Means.**", "**Look.**", "**Do.**")


def rules_of(path: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS: Final = rules_of(ALERTING)


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=DIRECTORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def page_of(alert: str) -> str:
    """Return the name of an alert's page: QueueTooLong has queue-too-long.md."""
    return re.sub(r"(?<!^)([A-Z])", r"-\1", alert).lower() + ".md"


def cases_of(*, is_firing: bool) -> set[tuple[str, str]]:
    """Return name and severity of the alerts that fire in some case; without one, those not."""
    found = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for case in test["alert_rule_test"]:
                if is_firing:
                    found |= {
                        (case["alertname"], expected["exp_labels"]["severity"])
                        for expected in case["exp_alerts"]
                    }
                elif not case["exp_alerts"]:
                    found.add((case["alertname"], ""))
    return found


def test_prometheus_takes_the_rules_and_its_configuration() -> None:
    needs("promtool")

    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", RECORDING.name, ALERTING.name)
    run("promtool", "check", "config", "--syntax-only", "prometheus.yaml")


def test_alertmanager_takes_its_configuration() -> None:
    needs(TOOL)

    run(TOOL, "check-config", "alertmanager.yaml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    needs("promtool")

    run("promtool", "test", "rules", f"tests/{path.name}")


def test_every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    alerts = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}

    assert cases_of(is_firing=True) == alerts
    assert cases_of(is_firing=False) == {(name, "") for name, _ in alerts}


@pytest.mark.parametrize("name", sorted({rule["alert"] for rule in ALERTS}))
def test_every_alert_has_a_page_that_says_what_to_do(name: str) -> None:
    page = page_of(name)
    text = (RUNBOOKS / page).read_text(encoding="utf-8")

    assert [part for part in PARTS if part not in text] == []
    assert f"]({page})" in (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    for rule in ALERTS:
        if rule["alert"] == name:
            assert rule["annotations"]["runbook_url"] == PUBLISHED_AT + page


def test_alerts_have_one_of_two_severities_and_a_summary() -> None:
    for rule in ALERTS:
        assert set(rule["labels"]) == {"severity"}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "runbook_url"}, rule["alert"]


def metrics_in(expression: str) -> set[str]:
    """Return the names that an expression asks for; the parser gives each its braces."""
    return set(re.findall(r"([a-zA-Z_:][\w:]*)\{", str(promql_parser.parse(expression))))


def test_every_rule_asks_for_metrics_that_are_documented_or_recorded() -> None:
    known = {*documented_series(), *(rule["record"] for rule in rules_of(RECORDING))}
    for rule in [*rules_of(RECORDING), *ALERTS]:
        asked = metrics_in(rule["expr"])
        assert asked, rule
        assert asked <= known, (rule.get("alert", rule.get("record")), asked - known)


def test_every_rule_selects_by_labels_that_exist() -> None:
    known = documented_series()
    for rule in [*rules_of(RECORDING), *ALERTS]:
        for metric, matchers in SELECTOR.findall(rule["expr"]):
            unknown = set(LABEL.findall(matchers)) - known[metric]
            assert not unknown, (rule.get("alert", rule.get("record")), metric, unknown)


def test_what_is_recorded_is_used() -> None:
    texts = ALERTING.read_text(encoding="utf-8") + RECORDING.read_text(encoding="utf-8")

    unused = [
        rule["record"]
        for rule in rules_of(RECORDING)
        if len(re.findall(re.escape(rule["record"]) + r"(?![\w:])", texts)) == 1
    ]
    assert unused == []


def test_inhibitions_name_alerts_that_exist() -> None:
    names = {rule["alert"] for rule in ALERTS}
    configuration = yaml.safe_load((DIRECTORY / "alertmanager.yaml").read_text(encoding="utf-8"))
    matchers = [
        matcher
        for rule in configuration["inhibit_rules"]
        for matcher in [*rule["source_matchers"], *rule["target_matchers"]]
        if matcher.startswith("alertname")
    ]

    assert matchers
    for matcher in matchers:
        assert set(re.findall(r"\w+", matcher.partition('"')[2])) <= names, matcher


def test_prometheus_reads_every_process_and_calls_it_as_the_cluster_does() -> None:
    configuration = yaml.safe_load((DIRECTORY / "prometheus.yaml").read_text(encoding="utf-8"))

    read = {
        (job["job_name"], targets["labels"]["app_kubernetes_io_component"], target)
        for job in configuration["scrape_configs"]
        for targets in job["static_configs"]
        for target in targets["targets"]
    }
    assert read == {
        (service, kind, f"{service}-{kind}:8080")
        for service in WORKER_NAMES
        for kind in ("http", "worker")
    }


def test_runbooks_name_commands_and_metrics_that_exist() -> None:
    known = {*documented_series(), *(rule["record"] for rule in rules_of(RECORDING))}
    for path in RUNBOOKS.glob("*.md"):
        for block in path.read_text(encoding="utf-8").split("```")[1::2]:
            commands = set(re.findall(r"^sluice ([a-z-]+)", block, re.MULTILINE))
            assert commands <= SUBCOMMANDS.keys(), path.name
            assert set(re.findall(r"([a-z][\w:]+)[\[{](?!})", block)) <= known, path.name
