"""What the overlays become is valid, complete, and as restricted as can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest

from deploy.local.services import SERVICE_NAMES, WORKER_NAMES
from tests.support.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifest,
    environment_sources,
    labels_of,
    of_kind,
    our_pods,
    pods,
    render,
    rendered,
)
from tests.support.modules import REPOSITORY

#: The oldest that has all we use (since it, the pause before a stop is on by default), and a new
#: one.
KUBERNETES_VERSIONS = ("1.30", "1.36")

#: Schemas of other projects' kinds, beside the checkout where they are there at all.
CUSTOM_SCHEMAS = REPOSITORY.parent / "shared" / "reference" / "crd-schemas"

CUSTOM_KINDS = {
    "ScaledObject": "scaledobject_v1alpha1.json",
    "PodMonitor": "podmonitor_v1.json",
    "PrometheusRule": "prometheusrule_v1.json",
}

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def is_custom(item: Manifest) -> bool:
    return item["kind"] in CUSTOM_KINDS


@every_overlay
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_strictly_valid(overlay: str, version: str) -> None:
    objects = [item for item in rendered(overlay) if not is_custom(item)]

    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)

    assert len(objects) > 40


def test_a_misspelt_field_would_be_found() -> None:
    (item, *_) = of_kind(rendered("production"), "Deployment").values()
    wrong = json.loads(json.dumps(item))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[0], strict=True)


@every_overlay
def test_objects_of_other_projects_are_valid(overlay: str) -> None:
    if not CUSTOM_SCHEMAS.is_dir():
        pytest.skip("the schemas of KEDA and of Prometheus' operator are not in the repository")

    for item in filter(is_custom, rendered(overlay)):
        path = CUSTOM_SCHEMAS / CUSTOM_KINDS[item["kind"]]
        # Go takes flags anywhere in a pattern, Python only at its beginning.
        schema = path.read_text(encoding="utf-8").replace('"^(?i)', '"(?i)^')
        jsonschema.validate(item, json.loads(schema))


def test_workers_can_be_scaled_without_keda_too(tmp_path: Path) -> None:
    lines = ["namespace: sluice", f"resources: [{KUBERNETES / 'base'}]", "components:"]
    lines += [f"  - {KUBERNETES / 'components' / name}" for name in ("hpa-http", "hpa-workers")]
    objects = written(tmp_path, lines)

    for item in objects:
        kubernetes_validate.validate(item, KUBERNETES_VERSIONS[0], strict=True)
    assert scaled_by(objects, "HorizontalPodAutoscaler") == of_kind(objects, "Deployment").keys()
    assert not [d for d in of_kind(objects, "Deployment").values() if "replicas" in d["spec"]]


def written(directory: Path, lines: list[str]) -> tuple[Manifest, ...]:
    """Render a kustomization that only a test has; its paths must be relative."""
    up = "/".join([".."] * len(directory.parts[1:]))
    text = "\n".join(lines).replace(str(KUBERNETES), f"{up}{KUBERNETES}")
    (directory / "kustomization.yaml").write_text(text, encoding="utf-8")
    return tuple(render(directory))


def scaled_by(objects: tuple[Manifest, ...], *kinds: str) -> set[str]:
    return {item["spec"]["scaleTargetRef"]["name"] for item in of_kind(objects, *kinds).values()}


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_every_process_has_one_autoscaler_and_no_number_beside_it(overlay: str) -> None:
    objects = rendered(overlay)
    deployments = of_kind(objects, "Deployment")
    autoscalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    scaled = scaled_by(objects, "HorizontalPodAutoscaler", "ScaledObject")

    assert len(autoscalers) == len(scaled)
    assert scaled == deployments.keys() - {"simulator-http"}
    assert [name for name in scaled if "replicas" in deployments[name]["spec"]] == []


@every_overlay
def test_every_service_has_its_processes(overlay: str) -> None:
    serving = set(SERVICE_NAMES) - ({"simulator"} if overlay == "production" else set())
    expected = {f"{name}-http" for name in serving} | {f"{name}-worker" for name in WORKER_NAMES}

    deployed = {
        name for name, pod in our_pods(rendered(overlay)).items() if pod.owner["kind"] != "Job"
    }

    assert deployed - {"front-door-http"} == expected


@every_overlay
def test_every_container_is_restricted(overlay: str) -> None:
    for pod in pods(rendered(overlay)):
        security = pod.container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not security.get("privileged", False)
        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] > 0
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}


@every_overlay
def test_no_pod_has_a_token_or_the_variables_of_services(overlay: str) -> None:
    objects = rendered(overlay)
    accounts = of_kind(objects, "ServiceAccount")

    for pod in pods(objects):
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False
    for pod in our_pods(objects).values():
        assert accounts[pod.spec["serviceAccountName"]]["automountServiceAccountToken"] is False


@every_overlay
def test_every_namespace_enforces_what_its_pods_keep_to(overlay: str) -> None:
    objects = rendered(overlay)
    (namespace,) = of_kind(objects, "Namespace").values()

    assert namespace["metadata"]["name"] == OVERLAYS[overlay]
    assert labels_of(namespace)["pod-security.kubernetes.io/enforce"] == "restricted"
    placed = {item["metadata"].get("namespace") for item in objects if item is not namespace}
    assert placed == {OVERLAYS[overlay]}


@every_overlay
def test_every_deployment_has_one_disruption_budget_that_lets_nodes_be_drained(
    overlay: str,
) -> None:
    objects = rendered(overlay)
    budgets = of_kind(objects, "PodDisruptionBudget").values()

    for name, deployment in of_kind(objects, "Deployment").items():
        labels = labels_of(deployment["spec"]["template"])
        (budget,) = (
            b for b in budgets if b["spec"]["selector"]["matchLabels"].items() <= labels.items()
        )
        assert budget["spec"]["maxUnavailable"] == 1, name


@every_overlay
def test_selectors_find_exactly_their_own_pods(overlay: str) -> None:
    objects = rendered(overlay)
    all_pods = list(pods(objects))

    for name, deployment in of_kind(objects, "Deployment").items():
        selector = deployment["spec"]["selector"]["matchLabels"]
        assert [p.name for p in all_pods if selector.items() <= p.labels.items()] == [name]
    for name, service in of_kind(objects, "Service").items():
        selector = service["spec"]["selector"]
        (pod,) = (p for p in all_pods if selector.items() <= p.labels.items())
        assert pod.name in {f"{name}-http", name}
        ports = {port["name"] for port in pod.container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


@every_overlay
def test_every_container_has_requests_and_limits(overlay: str) -> None:
    for pod in pods(rendered(overlay)):
        resources: dict[str, Any] = pod.container["resources"]
        assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}


@every_overlay
def test_images_are_named_by_a_version(overlay: str) -> None:
    for pod in pods(rendered(overlay)):
        _, _, tag = pod.container["image"].rpartition(":")
        assert tag not in {"", "latest", pod.container["image"]}


@every_overlay
def test_whatever_a_pod_refers_to_is_there_or_on_the_list_of_secrets(overlay: str) -> None:
    objects = rendered(overlay)
    there = {(item["kind"], item["metadata"]["name"]) for item in objects}
    page = (REPOSITORY / "docs" / "kubernetes.md").read_text(encoding="utf-8")

    missing = {source for pod in pods(objects) for source in environment_sources(pod)} - there

    assert not [name for kind, name in missing if kind != "Secret" or f"| `{name}` |" not in page]
    assert bool(missing) == (overlay != "local")
