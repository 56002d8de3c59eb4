"""Wraps the rule files of Prometheus into the objects that its operator reads.

Kustomize reads nothing outside its own directory, so a copy is kept there; a test compares the two.
`python -m deploy.kubernetes.prometheus_rules` writes it anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_DEPLOY: Final = Path(__file__).resolve().parents[1]

#: Where the rules are written, and where Kustomize reads them.
SOURCES: Final = _DEPLOY / "prometheus"
COMPONENT: Final = _DEPLOY / "kubernetes" / "components" / "prometheus-rules"

#: What a source is called, and what its object is called.
SUFFIX: Final = ".rules.yaml"

_HEAD: Final = """\
# Written by `python -m deploy.kubernetes.prometheus_rules` from deploy/prometheus/{source}.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sluice-{name}
  labels:
    app.kubernetes.io/part-of: sluice
spec:
"""

_GROUPS: Final = "groups:"


def wrapped(source: Path) -> str:
    """Return the object that holds the rules of one file, its comments included.

    Raises:
        ValueError: the file is no mapping with `groups` alone.
    """
    lines = source.read_text(encoding="utf-8").splitlines()
    # A key would stand at the very beginning of its line.
    keys = [line for line in lines if line and line[0] not in " #-"]
    if keys != [_GROUPS]:
        raise ValueError(f"{source.name}: only `{_GROUPS}` may stand at the beginning of a line")
    body = "".join(f"  {line}".rstrip() + "\n" for line in lines)
    return _HEAD.format(source=source.name, name=source.name.removesuffix(SUFFIX)) + body


def objects() -> dict[Path, str]:
    """Return the text of every file that the component has besides its kustomization."""
    return {
        COMPONENT / source.name.replace(SUFFIX, ".yaml"): wrapped(source)
        for source in sorted(SOURCES.glob(f"*{SUFFIX}"))
    }


if __name__ == "__main__":
    for path, text in objects().items():
        path.write_text(text, encoding="utf-8")
