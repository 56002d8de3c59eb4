"""The metrics of the scheduler."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

#: Seconds, from at once to a weekend's downtime.
LATENESS_BUCKETS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 21_600, 86_400)

TAKEN: Final = Counter(
    "scheduler_due_taken_total",
    "Due subscriptions for which a scan did what was due.",
    ["priority"],
)
LATENESS_SECONDS: Final = Histogram(
    "scheduler_lateness_seconds",
    "Time from a due time to a scan's decision, of the longest due subscription of each batch.",
    ["priority"],
    buckets=LATENESS_BUCKETS,
)
SCAN_SECONDS: Final = Histogram(
    "scheduler_scan_duration_seconds",
    "Duration of a scan that found something due, until nothing was due any more.",
    buckets=LATENESS_BUCKETS,
)
TAKEN_ON_CLOCKS: Final = Counter(
    "scheduler_due_taken_on_test_clocks_total",
    "Things that were due for subscriptions on test clocks, and done.",
)
SET_ASIDE_BY_SCANS: Final = Counter(
    "scheduler_set_aside_total",
    "Subscriptions that a scan could not do what was due for, and set aside.",
)

DUE: Final = Gauge(
    "scheduler_due_subscriptions",
    "Subscriptions in real time that are due, counted up to 10,000 of each priority.",
)
DUE_AGE_SECONDS: Final = Gauge(
    "scheduler_due_age_seconds",
    "Time since the longest due subscription was due; 0 when none is.",
)
SET_ASIDE: Final = Gauge(
    "scheduler_set_aside_subscriptions",
    "Subscriptions that are set aside: nothing happens to them until a person clears that.",
)

# Of real subscriptions, as the database counts them: the same from every process that measures.
SUBSCRIPTIONS: Final = Gauge(
    "scheduler_subscriptions",
    "Subscriptions by their state.",
    ["state"],
)
BILLING_EVENTS: Final = Gauge(
    "scheduler_billing_events",
    "What happened to periods, charges and subscriptions since there were any.",
    ["gateway", "currency", "what"],
)
REVENUE: Final = Gauge(
    "scheduler_revenue_minor_units",
    "Money of periods that were paid since there were any, by how they were paid.",
    ["gateway", "currency", "what"],
)
OUTCOMES: Final = Counter(
    "scheduler_outcomes_total",
    "What payments said of charges, by what it changed: an event of the subscription's history, or "
    "known, never_ordered.",
    ["effect"],
)
JOBS: Final = Gauge(
    "scheduler_jobs",
    "Jobs by status; those that have ended leave some days later.",
    ["status"],
)
CHARGES_UNRESOLVED: Final = Gauge(
    "scheduler_charges_unresolved",
    "Charges in hand of which nothing was heard for longer than CHARGE_UNRESOLVED_AFTER.",
)
JOB_PARTITIONS_SWEPT: Final = Counter(
    "scheduler_job_partitions_swept_total",
    "Days of jobs by what a sweep did: dropped, kept (a job of that day has not ended, or not long "
    "ago), busy (the table was in use; the next sweep tries again).",
    ["outcome"],
)
