"""A dashboard as the JSON text that Grafana reads: the same bytes for the same dashboard."""

from __future__ import annotations

import json
from typing import Any, Final

from deploy.grafana.expressions import CRITICAL_ALERTS, select
from deploy.grafana.panels import (
    COLUMNS,
    DATASOURCE,
    SCHEMA_VERSION,
    TAG,
    Choice,
    Dashboard,
    Panel,
    Query,
    Section,
)

_EVERYTHING: Final = {"text": "All", "value": "$__all", "selected": True}


def render(dashboard: Dashboard) -> str:
    """Return the JSON text of a dashboard, with a newline at its end."""
    return json.dumps(_dashboard(dashboard), indent=2, ensure_ascii=False) + "\n"


def _dashboard(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "id": None,
        "uid": f"sluice-{dashboard.name}",
        "title": f"Sluice: {dashboard.title}",
        "description": dashboard.description,
        "tags": [TAG],
        "timezone": "browser",
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "templating": {"list": [_datasource(), _namespace(), *map(_choice, dashboard.choices)]},
        "annotations": {"list": [_alerts(), _starts()]},
        "links": [_link()],
        "panels": _panels(dashboard.sections),
    }


def _datasource() -> dict[str, Any]:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "includeAll": False,
        "multi": False,
        "refresh": 1,
    }


def _namespace() -> dict[str, Any]:
    # One at a time: what every process of a service tells alike would be mixed up with another's.
    query = "label_values(messages_in_hand, namespace)"
    return {
        "type": "query",
        "name": "namespace",
        "label": "Namespace",
        "datasource": dict(DATASOURCE),
        "definition": query,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": False,
        "includeAll": False,
        "options": [],
    }


def _choice(choice: Choice) -> dict[str, Any]:
    query = f"label_values({select(choice.metric)}, {choice.label})"
    return {
        "type": "query",
        "name": choice.name,
        "label": choice.title,
        "datasource": dict(DATASOURCE),
        "definition": query,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": dict(_EVERYTHING),
        "options": [],
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": dict(DATASOURCE),
        "enable": True,
        "iconColor": "red",
        "expr": CRITICAL_ALERTS,
        "titleFormat": "{{alertname}}",
        "tagKeys": "severity",
        "step": "60s",
    }


def _starts() -> dict[str, Any]:
    return {
        "name": "Process starts",
        "datasource": dict(DATASOURCE),
        "enable": False,
        "iconColor": "blue",
        "expr": f"max by (job, instance) ({select('process_start_time_seconds')}) * 1000",
        "titleFormat": "{{job}} {{instance}} started",
        "useValueForTime": True,
        "step": "60s",
    }


def _link() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Sluice",
        "icon": "external link",
        "tooltip": "The other dashboards",
        "tags": [TAG],
        "asDropdown": True,
        "targetBlank": False,
        "includeVars": True,
        "keepTime": True,
    }


def _panels(sections: tuple[Section, ...]) -> list[dict[str, Any]]:
    """Return every panel in its place: rows from the left, as high as their highest panel."""
    placed: list[dict[str, Any]] = []
    top = 0
    for section in sections:
        heading = {
            "type": "row",
            "id": len(placed) + 1,
            "title": section.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        placed.append(heading)
        top, left, height = top + 1, 0, 0
        for panel in section.panels:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            place = {"h": panel.height, "w": panel.width, "x": left, "y": top}
            placed.append({"id": len(placed) + 1, "gridPos": place, **_panel(panel)})
            left, height = left + panel.width, max(height, panel.height)
        top += height
    return placed


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"value": None, "color": panel.base}]
    steps += [{"value": value, "color": color} for value, color in panel.thresholds]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.plugin == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": dict(panel.custom),
    }
    if panel.minimum is not None:
        defaults["min"] = panel.minimum
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.words:
        words = {
            str(value): {"text": text, "color": color, "index": index}
            for index, (value, (text, color)) in enumerate(panel.words.items())
        }
        defaults["mappings"] = [{"type": "value", "options": words}]
    return {
        "type": panel.plugin,
        "title": panel.title,
        "description": panel.description,
        "datasource": dict(DATASOURCE),
        "targets": [_target(query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": dict(panel.options),
    }


def _target(query: Query, index: int) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + index),
        "datasource": dict(DATASOURCE),
        "expr": query.expression,
        "legendFormat": query.legend,
        "instant": query.is_instant,
        "range": not query.is_instant,
        "format": query.format,
        "editorMode": "code",
    }
