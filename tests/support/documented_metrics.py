"""The metrics that docs/metrics.md tells operators of."""

from __future__ import annotations

import re

from tests.support.modules import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "metrics.md"

#: | `name` | type | `label`, `label` | meaning | alert |
_ROW = re.compile(r"\| `(?P<name>\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|")

#: What every client of Prometheus measures of its process, and what Prometheus adds by itself.
OF_PROMETHEUS = frozenset(
    {
        *("up", "ALERTS"),
        *("process_cpu_seconds_total", "process_resident_memory_bytes"),
        *("process_open_fds", "process_start_time_seconds"),
    }
)

#: What Prometheus adds to every series by where it was read.
LABELS_OF_TARGETS = frozenset(
    {"job", "instance", "namespace", "pod", "app_kubernetes_io_component"}
)


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of every metric in the tables of the document."""
    return {
        row["name"]: (row["type"], tuple(re.findall(r"`(\w+)`", row["labels"])))
        for row in _ROW.finditer(DOCUMENT.read_text(encoding="utf-8"))
    }


def documented_series() -> dict[str, frozenset[str]]:
    """Return the labels of every series that Prometheus reads; a histogram has three of them."""
    found = dict.fromkeys(OF_PROMETHEUS, LABELS_OF_TARGETS)
    found["ALERTS"] |= {"alertname", "alertstate", "severity"}
    for name, (kind, labels) in documented().items():
        own = LABELS_OF_TARGETS | frozenset(labels)
        if kind == "histogram":
            found |= {f"{name}_count": own, f"{name}_sum": own, f"{name}_bucket": own | {"le"}}
        else:
            found[name] = own
    return found
