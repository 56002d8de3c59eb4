"""The service that gives customers what they paid for."""

from __future__ import annotations

from typing import Final

from deploy.grafana.contents.every_service import endings
from deploy.grafana.expressions import in_view, or_zero, per_second, quantile
from deploy.grafana.panels import (
    ORANGE,
    RED,
    Dashboard,
    Query,
    Section,
    bars,
    graph,
    heatmap,
    number,
    percentiles,
)

_WHOLE_WAY: Final = "enrollment_whole_way_duration_seconds"

_NOW: Final = Section(
    "Now",
    (
        number(
            "Enrollments granted",
            "A second, now.",
            per_second("enrollment_payments_total", 'effect=~"granted|regranted"'),
            "ops",
            is_instant=False,
            width=6,
        ),
        number(
            "From notice to enrollment (p99)",
            "99 % of the customers had what they paid for in this time.",
            quantile(0.99, _WHOLE_WAY),
            "s",
            is_instant=False,
            thresholds=[(30, ORANGE), (60, RED)],
            width=6,
        ),
        number(
            "Paid for what they had",
            "In the time shown: the customer is owed a refund or an answer.",
            or_zero(in_view("enrollment_payments_total", 'effect="recorded"')),
            "short",
            thresholds=[(1, ORANGE)],
            width=6,
        ),
        number(
            "Came twice",
            "Successes that were here before, in the time shown. They changed nothing.",
            or_zero(in_view("enrollment_payments_total", 'effect="repeated"')),
            "short",
            width=6,
        ),
    ),
)

_GIVEN: Final = Section(
    "Given and taken away",
    (
        graph(
            "Payments by effect",
            "`recorded`: the customer had it already. `repeated`: the same payment again.",
            [Query(per_second("enrollment_payments_total", by="effect"), "{{effect}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Access by subscriptions",
            "What subscriptions said, by its effect. `outdated`: later news were here before.",
            [Query(per_second("enrollment_access_total", by="effect"), "{{effect}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        bars(
            "Revocations and changes by hand in the time shown",
            "Steps of revocations for money that went back, and what operators granted or revoked.",
            [
                Query(in_view("enrollment_revocations_total", by="outcome"), "{{outcome}}"),
                Query(in_view("enrollment_changes_by_hand_total", by="event"), "{{event}} by hand"),
            ],
            "short",
            width=8,
        ),
    ),
)

_DURATIONS: Final = Section(
    "Durations",
    (
        percentiles(
            "From notice to enrollment",
            "From the receipt of a notice (or the look-up that found the money) to the commit.",
            _WHOLE_WAY,
            thresholds=[(60, RED)],
            width=8,
        ),
        heatmap(
            "How many took how long",
            "The whole way, over time.",
            _WHOLE_WAY,
            width=8,
        ),
        percentiles(
            "Wait in the queues",
            "From the publication of a batch to its admission by a worker.",
            "message_queue_wait_seconds",
            'queue=~"enrollment[.].+"',
            thresholds=[(5, RED)],
            width=8,
        ),
    ),
)

ENROLLMENT: Final = Dashboard(
    name="enrollment",
    title="enrollment",
    description="Enrollments and access: given, taken away, and how soon.",
    sections=(_NOW, _GIVEN, _DURATIONS, *endings("enrollment")),
)
