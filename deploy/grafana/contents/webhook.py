"""The service that takes the gateways' notices."""

from __future__ import annotations

from typing import Final

from deploy.grafana.contents.every_service import endings
from deploy.grafana.expressions import in_view, or_zero, per_second, quantile, ratio
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

_REQUESTS: Final = "http_request_duration_seconds"
_NOTICES: Final = 'job="webhook",route=~"/webhooks/.+"'
_COUNT: Final = "http_request_duration_seconds_count"
_DUPLICATE: Final = 'outcome="duplicate"'
_FAILED: Final = f'{_NOTICES},status=~"5.."'

_NOW: Final = Section(
    "Now",
    (
        number(
            "Notices taken",
            "A second, now: authentic and committed.",
            per_second("webhook_received_total"),
            "reqps",
            is_instant=False,
            width=5,
        ),
        number(
            "Acknowledged (p99)",
            "99 % of the gateways' requests were answered in this time.",
            quantile(0.99, _REQUESTS, _NOTICES),
            "s",
            is_instant=False,
            thresholds=[(0.5, ORANGE), (1, RED)],
            width=5,
        ),
        number(
            "Requests with a 5xx",
            "Share of the gateways' requests in the time shown that we could not answer. "
            "They are repeated, but not for ever.",
            ratio(
                f"({in_view(_COUNT, _FAILED)} or vector(0))",
                in_view(_COUNT, _NOTICES),
            ),
            "percentunit",
            thresholds=[(0.001, ORANGE), (0.01, RED)],
            width=5,
        ),
        number(
            "Duplicates",
            "Share of the authentic notices in the time shown that had come before. They change "
            "nothing; many of them mean that acknowledgements come too late.",
            ratio(
                f"({in_view('webhook_received_total', _DUPLICATE)} or vector(0))",
                in_view("webhook_received_total"),
            ),
            "percentunit",
            thresholds=[(0.2, ORANGE)],
            width=5,
        ),
        number(
            "Refused",
            "Notices without a valid proof or not readable, in the time shown "
            "(docs/runbooks/webhooks-rejected.md).",
            or_zero(in_view("webhook_rejected_total")),
            "short",
            thresholds=[(1, ORANGE)],
        ),
    ),
)

_TAKEN: Final = Section(
    "Notices",
    (
        graph(
            "Taken",
            "Authentic notices that were committed. None for an unusual time: gateways do not "
            "reach us (docs/runbooks/no-webhooks.md).",
            [Query(per_second("webhook_received_total", by="outcome"), "{{outcome}}")],
            "reqps",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Refused, by reason",
            "`wrong_signature` over one a minute: an attack, or a secret that was changed on one "
            "side only (docs/runbooks/webhooks-rejected.md).",
            [
                Query(
                    per_second("webhook_rejected_total", by="gateway, reason"),
                    "{{gateway}} {{reason}}",
                )
            ],
            "reqps",
            width=8,
        ),
        bars(
            "Refused in the time shown",
            "The ten most frequent reasons.",
            [
                Query(
                    f"topk(10, {in_view('webhook_rejected_total', by='gateway, reason')})",
                    "{{gateway}} {{reason}}",
                )
            ],
            "short",
            width=8,
        ),
    ),
)

_ANSWERS: Final = Section(
    "Acknowledgement",
    (
        percentiles(
            "Durations",
            "From the request to its answer, the commit of the notice included.",
            _REQUESTS,
            _NOTICES,
            thresholds=[(1, RED)],
            width=8,
        ),
        heatmap(
            "How many took how long",
            "Waits for commits and for PostgreSQL show as a second band.",
            _REQUESTS,
            _NOTICES,
            width=8,
        ),
        graph(
            "Answers by status",
            "200: committed. 400 and 401: refused. 503: PostgreSQL is away, gateways send again.",
            [Query(per_second(_COUNT, _NOTICES, by="status"), "{{status}}")],
            "reqps",
            is_stacked=True,
            width=8,
        ),
    ),
)

WEBHOOK: Final = Dashboard(
    name="webhook",
    title="webhook",
    description="Notices of gateways: taken, refused, acknowledged in time.",
    sections=(_NOW, _TAKEN, _ANSWERS, *endings("webhook")),
)
