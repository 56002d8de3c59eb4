"""What KEDA asks Prometheus covers every queue, and gives the numbers that are meant."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.local.services import WORKER_NAMES
from shared.contracts.subscriptions import queues_of
from tests.support.manifests import OVERLAYS, Manifest, of_kind, rendered
from tests.support.modules import REPOSITORY
from tests.support.requirements import needs

with_keda = pytest.mark.parametrize("overlay", ["staging", "production"])

_SELECTED = re.compile(r'queue(?P<operator>=~|=)"(?P<value>[^"]+)"')


def scaled_objects(overlay: str) -> dict[str, Manifest]:
    return of_kind(rendered(overlay), "ScaledObject")


def queries(overlay: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the service and the trigger of every query."""
    return [
        (name.removesuffix("-worker"), trigger)
        for name, item in scaled_objects(overlay).items()
        for trigger in item["spec"]["triggers"]
        if trigger["type"] == "prometheus"
    ]


def selects(query: str, queue: str) -> bool:
    """Tell whether a query looks at a queue; Prometheus matches whole values."""
    found = _SELECTED.search(query)
    if found is None:
        return False
    pattern = found["value"] if found["operator"] == "=~" else re.escape(found["value"])
    return re.fullmatch(pattern, queue) is not None


@with_keda
@pytest.mark.parametrize("service", WORKER_NAMES)
@pytest.mark.parametrize("metric", ["queue_messages", "queue_oldest_age_seconds"])
def test_every_queue_scales_its_worker_by_length_and_by_age(
    overlay: str, service: str, metric: str
) -> None:
    asked = [t["metadata"]["query"] for s, t in queries(overlay) if s == service]

    unwatched = {
        queue
        for queue in queues_of(service)
        if not any(metric in query and selects(query, queue) for query in asked)
    }

    assert unwatched == set()


@with_keda
def test_no_worker_is_scaled_by_the_queues_of_another(overlay: str) -> None:
    for service, trigger in queries(overlay):
        others = [q for other in WORKER_NAMES if other != service for q in queues_of(other)]
        assert not [q for q in others if selects(trigger["metadata"]["query"], q)]


@with_keda
def test_every_query_asks_about_its_own_namespace_and_tells_silence_from_zero(
    overlay: str,
) -> None:
    for _, trigger in queries(overlay):
        query = trigger["metadata"]["query"]
        assert re.findall(r'namespace="([^"]+)"', query) == [OVERLAYS[overlay]]
        assert trigger["metadata"]["ignoreNullValues"] == "false"


def test_every_metric_is_one_that_we_have() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {re.search(r"(\w+)\{", t["metadata"]["query"]) for _, t in queries("production")}

    assert not [name[1] for name in names if name and f"| `{name[1]}` |" not in page]


@with_keda
def test_there_are_always_two_of_each_and_room_for_rush_hours(overlay: str) -> None:
    for item in scaled_objects(overlay).values():
        spec = item["spec"]
        assert 2 <= spec["minReplicaCount"] < spec["maxReplicaCount"]
        assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
        rush = [t["metadata"] for t in spec["triggers"] if t["type"] == "cron"]
        assert all(int(r["desiredReplicas"]) <= spec["maxReplicaCount"] for r in rush)
        # KEDA refuses a fallback beside triggers of which none is an average.
        assert "AverageValue" in {t.get("metricType") for t in spec["triggers"]}


def wanted(trigger: dict[str, Any], value: float, replicas: int) -> int:
    """Return how many replicas an autoscaler makes of a metric's value."""
    ratio = value / float(trigger["metadata"]["threshold"])
    return math.ceil(ratio if trigger["metricType"] == "AverageValue" else ratio * replicas)


#: What two processes of payments tell, and one of the staging installation beside them.
SERIES = {
    'queue_messages{namespace="sluice",pod="a",queue="payments.normal",state="ready"}': 1_700,
    'queue_messages{namespace="sluice",pod="b",queue="payments.normal",state="ready"}': 1_690,
    'queue_messages{namespace="sluice",pod="a",queue="payments.high",state="ready"}': 20,
    'queue_messages{namespace="sluice",pod="a",queue="payments.normal",state="in_flight"}': 900,
    'queue_messages{namespace="sluice",pod="c",queue="enrollment.grants",state="ready"}': 9_000,
    'queue_messages{namespace="sluice-staging",pod="d",queue="payments.normal",state="ready"}': 7,
    'queue_oldest_age_seconds{namespace="sluice",pod="a",queue="payments.normal"}': 30,
    'queue_oldest_age_seconds{namespace="sluice",pod="b",queue="payments.normal"}': 29,
    'queue_oldest_age_seconds{namespace="sluice",pod="a",queue="payments.high"}': 1,
    'queue_oldest_age_seconds{namespace="sluice-staging",pod="d",queue="payments.high"}': 999,
}

#: Values of the triggers, and what they ask for when two replicas run.
EXPECTED = {"length": (1_720, 4), "age": (30, 4), "age-of-urgent": (1, 1)}


def test_prometheus_computes_what_is_meant_and_that_asks_for_enough_workers(
    tmp_path: Path,
) -> None:
    needs("promtool")
    asked = {t["name"]: t for s, t in queries("production") if s == "payments"}
    cases = {
        "rule_files": [],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [
                    {"series": name, "values": f"{value}x4"} for name, value in SERIES.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": asked[name]["metadata"]["query"],
                        "eval_time": "1m",
                        "exp_samples": [{"labels": "{}", "value": value}],
                    }
                    for name, (value, _) in EXPECTED.items()
                ],
            }
        ],
    }
    # Every JSON document is YAML.
    path = tmp_path / "cases.yaml"
    path.write_text(json.dumps(cases), encoding="utf-8")

    done = subprocess.run(
        ["promtool", "test", "rules", path], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert {name: wanted(asked[name], value, 2) for name, (value, _) in EXPECTED.items()} == {
        name: replicas for name, (_, replicas) in EXPECTED.items()
    }
