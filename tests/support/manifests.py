"""What the overlays of deploy/kubernetes become, and what a cluster would make of it."""

from __future__ import annotations

import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import yaml

from tests.support.modules import REPOSITORY

KUBERNETES: Final = REPOSITORY / "deploy" / "kubernetes"

#: By their names the namespaces that they fill.
OVERLAYS: Final = {"local": "sluice-local", "staging": "sluice-staging", "production": "sluice"}

Manifest: TypeAlias = dict[str, Any]


@cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Return the objects of an overlay."""
    return tuple(render(KUBERNETES / "overlays" / overlay))


def render(directory: Path) -> list[Manifest]:
    """Return the objects that a directory with a kustomization becomes."""
    if shutil.which("kubectl") is None:
        # In CI too: Debian's is too old for components, so nothing can install it there.
        pytest.skip("needs kubectl 1.27 or newer on the PATH")
    # Warnings, as of fields that are deprecated, are errors here.
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: tuple[Manifest, ...], *kinds: str) -> dict[str, Manifest]:
    """Return the objects of some kinds by their names."""
    return {item["metadata"]["name"]: item for item in objects if item["kind"] in kinds}


def labels_of(item: Manifest) -> Mapping[str, str]:
    """Return an object's labels."""
    found: Mapping[str, str] = item["metadata"].get("labels", {})
    return found


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as its Deployment or Job describes it; all of ours have one container."""

    owner: Manifest
    labels: Mapping[str, str]
    spec: Manifest

    @property
    def name(self) -> str:
        """The name of its Deployment or Job."""
        name: str = self.owner["metadata"]["name"]
        return name

    @property
    def container(self) -> Manifest:
        """Its only container."""
        (container,) = self.spec["containers"]
        found: Manifest = container
        return found

    @property
    def is_ours(self) -> bool:
        """Whether it runs Sluice, not a server that Sluice stands on."""
        return bool(self.container["name"] == "sluice")


def pods(objects: tuple[Manifest, ...]) -> Iterator[Pod]:
    """Describe every pod of an overlay."""
    for item in of_kind(objects, "Deployment", "Job").values():
        template = item["spec"]["template"]
        yield Pod(item, labels_of(template), template["spec"])


def our_pods(objects: tuple[Manifest, ...]) -> dict[str, Pod]:
    """Return the pods that run Sluice by name."""
    return {pod.name: pod for pod in pods(objects) if pod.is_ours}


def environment_sources(pod: Pod) -> list[tuple[str, str]]:
    """Return kind and name of what a pod's variables and files come from."""
    kinds = {"configMapRef": "ConfigMap", "secretRef": "Secret", "secretKeyRef": "Secret"}
    sources = [
        (kinds[kind], reference["name"])
        for source in pod.container.get("envFrom", [])
        for kind, reference in source.items()
    ]
    for entry in pod.container.get("env", []):
        for kind, reference in entry.get("valueFrom", {}).items():
            sources.append((kinds[kind], reference["name"]))
    volumes = [volume for volume in pod.spec.get("volumes", []) if "secret" in volume]
    return sources + [("Secret", volume["secret"]["secretName"]) for volume in volumes]


def environment(pod: Pod, objects: tuple[Manifest, ...]) -> dict[str, str]:
    """Return a pod's variables; those of Secrets that an installation brings are left out."""
    configs = {name: item["data"] for name, item in of_kind(objects, "ConfigMap").items()}
    secrets = {name: decoded(item) for name, item in of_kind(objects, "Secret").items()}
    variables: dict[str, str] = {}
    for source in pod.container.get("envFrom", []):
        for kind, reference in source.items():
            data = configs if kind == "configMapRef" else secrets
            variables |= data.get(reference["name"], {})
    for entry in pod.container.get("env", []):
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        else:
            reference = entry["valueFrom"]["secretKeyRef"]
            if reference["name"] in secrets:
                variables[entry["name"]] = secrets[reference["name"]][reference["key"]]
    return variables


def variable_names(pod: Pod, objects: tuple[Manifest, ...]) -> set[str]:
    """Return the names of a pod's variables that are known here, those from Secrets included."""
    return {entry["name"] for entry in pod.container.get("env", [])} | environment(
        pod, objects
    ).keys()


def decoded(secret: Manifest) -> dict[str, str]:
    """Return what a Secret holds."""
    return {key: b64decode(value).decode() for key, value in secret["data"].items()}
