"""The service that knows what is due."""

from __future__ import annotations

from typing import Final

from deploy.grafana.contents.every_service import endings
from deploy.grafana.expressions import in_view, or_zero, per_second, quantile, select, told_by_each
from deploy.grafana.panels import (
    ORANGE,
    RED,
    Dashboard,
    Query,
    Section,
    bars,
    graph,
    number,
    percentiles,
)

_NOW: Final = Section(
    "Now",
    (
        number(
            "Due",
            "Subscriptions that are due at the moment, counted up to 10,000 of each priority.",
            f"max({select('scheduler_due_subscriptions')})",
            "short",
            thresholds=[(1_000, ORANGE)],
        ),
        number(
            "Longest due",
            "How late the longest due subscription is (docs/runbooks/scheduler-late.md).",
            f"max({select('scheduler_due_age_seconds')})",
            "s",
            thresholds=[(30, ORANGE), (60, RED)],
        ),
        number(
            "Set aside",
            "Nothing happens to them until an operator clears it "
            "(docs/runbooks/subscription-set-aside.md).",
            f"max({select('scheduler_set_aside_subscriptions')})",
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Charges unresolved",
            "Nothing was heard of them for too long (docs/runbooks/charge-unresolved.md).",
            f"max({select('scheduler_charges_unresolved')})",
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Decided within (p99)",
            "99 % of what was due was decided in this time.",
            quantile(0.99, "scheduler_lateness_seconds"),
            "s",
            is_instant=False,
            thresholds=[(30, ORANGE), (60, RED)],
        ),
        number(
            "Paid twice",
            "Periods that were paid twice, in the time shown: refund one "
            "(docs/runbooks/period-paid-twice.md).",
            or_zero(in_view("scheduler_outcomes_total", 'effect="paid_twice"')),
            "short",
            thresholds=[(1, RED)],
        ),
    ),
)

_DUE: Final = Section(
    "What is due",
    (
        graph(
            "Taken up",
            "Due subscriptions for which a scan did what was due, by priority; test clocks apart.",
            [
                Query(per_second("scheduler_due_taken_total", by="priority"), "{{priority}}"),
                Query(per_second("scheduler_due_taken_on_test_clocks_total"), "test clocks"),
            ],
            "ops",
            width=8,
        ),
        percentiles(
            "Lateness",
            "From the due time to the decision of a scan (docs/runbooks/scheduler-late.md).",
            "scheduler_lateness_seconds",
            thresholds=[(60, RED)],
            width=8,
        ),
        graph(
            "Lateness by priority (p99)",
            "High priority first: the others wait for it, not it for them.",
            [Query(quantile(0.99, "scheduler_lateness_seconds", by="priority"), "{{priority}}")],
            "s",
            thresholds=[(60, RED)],
            width=8,
        ),
        graph(
            "Due at the moment",
            "Growing for minutes: scans do not keep pace.",
            [Query(f"max({select('scheduler_due_subscriptions')})", "due")],
            "short",
            width=8,
        ),
        percentiles(
            "Duration of scans",
            "Of those that found something due, until nothing was due any more.",
            "scheduler_scan_duration_seconds",
            width=8,
        ),
        graph(
            "Longest due and set aside",
            "Seconds since the longest due subscription was due; and, from the counter, what scans "
            "set aside in ten minutes.",
            [
                Query(f"max({select('scheduler_due_age_seconds')})", "longest due (s)"),
                Query(
                    f"sum(increase({select('scheduler_set_aside_total')}[10m]))",
                    "set aside in 10 min",
                ),
            ],
            "short",
            thresholds=[(60, RED)],
            width=8,
        ),
    ),
)

_CHARGES: Final = Section(
    "Charges",
    (
        graph(
            "What payments said",
            "Of charges, by what it changed. `never_ordered` is a dead letter.",
            [Query(per_second("scheduler_outcomes_total", by="effect"), "{{effect}}")],
            "ops",
            width=8,
        ),
        graph(
            "Jobs in hand",
            "`waiting` growing: payments does not take orders.",
            [
                Query(
                    told_by_each("scheduler_jobs", 'status=~"waiting|active|delayed"', by="status"),
                    "{{status}}",
                )
            ],
            "short",
            width=8,
        ),
        bars(
            "Days of jobs swept in the time shown",
            "What retention did with old days. `kept`: one of them has not ended.",
            [Query(in_view("scheduler_job_partitions_swept_total", by="outcome"), "{{outcome}}")],
            "short",
            width=8,
        ),
    ),
)

SCHEDULER: Final = Dashboard(
    name="scheduler",
    title="scheduler",
    description="What is due, how late it is done, and what became of the charges.",
    sections=(_NOW, _DUE, _CHARGES, *endings("scheduler")),
)
