"""Where the dashboards are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.grafana.panels import Dashboard
from deploy.grafana.rendering import render

DIRECTORY: Final = Path(__file__).parent / "dashboards"


def write(dashboards: Sequence[Dashboard]) -> None:
    """Write every dashboard, and remove those that are no more."""
    DIRECTORY.mkdir(exist_ok=True)
    wanted = {DIRECTORY / f"{dashboard.name}.json": dashboard for dashboard in dashboards}
    for path in set(DIRECTORY.glob("*.json")) - wanted.keys():
        path.unlink()
    for path, dashboard in wanted.items():
        path.write_text(render(dashboard), encoding="utf-8")
