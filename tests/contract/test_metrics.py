"""docs/metrics.md lists every metric that the code declares, and no other."""

from __future__ import annotations

import importlib

from prometheus_client.metrics import MetricWrapperBase

from tests.support.documented_metrics import documented
from tests.support.modules import REPOSITORY, module_names, source_files

UNITS = (
    *("_seconds", "_total", "_bytes", "_messages", "_state", "_share"),
    *("dead_letters", "messages_in_hand", "scheduler_jobs"),
    *("_unresolved", "_subscriptions"),
    *("_events", "_minor_units"),
)


def declared() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of every metric that is a module's constant, by its full name."""
    metrics = {}
    for name in module_names():
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, MetricWrapperBase):
                suffix = "_total" if value._type == "counter" else ""
                metrics[value._name + suffix] = (str(value._type), tuple(value._labelnames))
    return metrics


def test_code_and_document_list_the_same_metrics_with_the_same_labels() -> None:
    assert documented() == declared()


def test_every_declared_metric_is_measured_somewhere() -> None:
    texts = [(REPOSITORY / path).read_text(encoding="utf-8") for path in source_files()]
    unused = {
        constant
        for name in module_names()
        for constant, value in vars(importlib.import_module(name)).items()
        if isinstance(value, MetricWrapperBase)
        if not any(f"metrics.{constant}" in text for text in texts)
    }

    assert unused == set()


def test_every_name_ends_in_its_unit() -> None:
    assert [name for name in declared() if not name.endswith(UNITS)] == []


def test_no_label_can_hold_an_id() -> None:
    labels = {label for _, names in declared().values() for label in names}

    assert not {label for label in labels if label == "id" or label.endswith(("_id", "reference"))}
