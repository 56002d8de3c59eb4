"""Prometheus' operator gets the rules that promtool has tested."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from deploy.kubernetes.prometheus_rules import SOURCES, SUFFIX, objects, wrapped
from tests.support.manifests import of_kind, rendered


def test_the_copies_are_those_of_the_rules() -> None:
    assert {path: path.read_text(encoding="utf-8") for path in objects()} == objects()


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_every_rule_is_deployed_as_it_is_written(overlay: str) -> None:
    written = {
        f"sluice-{path.name.removesuffix(SUFFIX)}": yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in SOURCES.glob(f"*{SUFFIX}")
    }
    deployed = of_kind(rendered(overlay), "PrometheusRule")

    assert {name: item["spec"] for name, item in deployed.items()} == written
    assert len(written) == 2


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"odd{SUFFIX}"
    path.write_text("groups:\n  - name: a\nother: 1\n", encoding="utf-8")

    with pytest.raises(ValueError, match="odd"):
        wrapped(path)
