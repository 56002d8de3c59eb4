"""The page to open first: is money coming in, and does everybody get what they paid for?"""

from __future__ import annotations

from typing import Final

from deploy.grafana.expressions import (
    ALERTS,
    collected,
    in_view,
    or_zero,
    per_second,
    quantile,
    ratio,
    select,
    share,
    told_by_each,
)
from deploy.grafana.panels import (
    GREEN,
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

_WEBHOOKS: Final = 'job="webhook",route=~"/webhooks/.+"'
_GRANTS: Final = 'effect=~"granted|regranted|recorded"'
_ACCESS: Final = 'effect=~"granted|regranted|kept"'
_SUCCEEDED: Final = 'state="succeeded"'
_ENDED: Final = 'state=~"succeeded|failed"'
_READY: Final = 'state="ready"'
_SERVICES: Final = 'job=~"webhook|payments|enrollment|scheduler"'

_NOW: Final = Section(
    "Now",
    (
        number(
            "Alerts that fire",
            "Each has a runbook, linked from the alert.",
            f"count({ALERTS}) or vector(0)",
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Success rate",
            "Of the payments that succeeded or failed in the time shown "
            "(docs/runbooks/payment-success-rate-low.md).",
            ratio(
                in_view("payments_settled_total", _SUCCEEDED),
                in_view("payments_settled_total", _ENDED),
            ),
            "percentunit",
            base=RED,
            thresholds=[(0.9, ORANGE), (0.95, GREEN)],
        ),
        number(
            "Payments succeeded",
            "A second, now.",
            per_second("payments_settled_total", _SUCCEEDED),
            "ops",
            is_instant=False,
        ),
        number(
            "From notice to enrollment (p95)",
            "95 % of the customers had what they paid for in this time after the gateway told us.",
            quantile(0.95, "enrollment_whole_way_duration_seconds"),
            "s",
            is_instant=False,
            thresholds=[(10, ORANGE), (60, RED)],
        ),
        number(
            "Oldest unconfirmed message",
            "Age over all outboxes (docs/runbooks/outbox-not-draining.md).",
            f"max({select('outbox_oldest_age_seconds')})",
            "s",
            thresholds=[(60, ORANGE), (300, RED)],
        ),
        number(
            "Dead letters",
            "Messages that wait for an operator (docs/runbooks/dead-letters.md).",
            f"sum({told_by_each('dead_letters', by='service')})",
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Breakers open",
            "Gateways that are not called at the moment (docs/runbooks/breaker-open.md).",
            f"count({told_by_each('payments_breaker_state', by='gateway')} == 2) or vector(0)",
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Payments on hold",
            "That came to rest on hold in the time shown: a person must look "
            "(docs/runbooks/payments-on-hold.md).",
            or_zero(in_view("payments_settled_total", 'state="on_hold"')),
            "short",
            thresholds=[(1, ORANGE)],
        ),
        number(
            "Charged twice",
            "Payments for which a gateway took money more than once, in the time shown. "
            "One must be refunded (docs/runbooks/surplus-charge.md).",
            or_zero(in_view("payments_surplus_charges_total")),
            "short",
            thresholds=[(1, RED)],
        ),
        number(
            "Longest due subscription",
            "How late the scheduler is (docs/runbooks/scheduler-late.md).",
            f"max({select('scheduler_due_age_seconds')})",
            "s",
            thresholds=[(30, ORANGE), (60, RED)],
        ),
        number(
            "Messages ready",
            "In all queues together: nobody has taken them.",
            f"sum({told_by_each('queue_messages', _READY, by='queue')})",
            "short",
            thresholds=[(1_000, ORANGE)],
        ),
        number(
            "Processes that do not answer",
            "That Prometheus cannot read (docs/runbooks/process-down.md).",
            f"count({select('up', _SERVICES)} == 0) or vector(0)",
            "short",
            thresholds=[(1, RED)],
        ),
    ),
)

_WAY: Final = Section(
    "The way of a payment",
    (
        graph(
            "Each step, a second",
            "From the gateway's notice to the enrollment. Close together when all is well: a step "
            "that stays behind is where to look. Subscriptions get access and no enrollment.",
            [
                Query(per_second("payments_created_total"), "1 payments created"),
                Query(per_second("webhook_received_total", 'outcome="new"'), "2 notices received"),
                Query(per_second("payments_checks_total"), "3 looks at gateways"),
                Query(per_second("payments_settled_total", _SUCCEEDED), "4 succeeded"),
                Query(per_second("enrollment_payments_total", _GRANTS), "5 enrolled"),
                Query(
                    per_second("enrollment_access_total", _ACCESS),
                    "5 access by subscription",
                ),
            ],
            "ops",
        ),
        graph(
            "Each step, p95",
            "What each hop adds to the whole way.",
            [
                Query(
                    quantile(0.95, "http_request_duration_seconds", _WEBHOOKS), "1 acknowledgement"
                ),
                Query(
                    quantile(0.95, "message_queue_wait_seconds", 'queue=~"payments[.].+"'),
                    "2 queue to payments",
                ),
                Query(quantile(0.95, "gateway_request_duration_seconds"), "3 gateway's answer"),
                Query(quantile(0.95, "payments_settlement_duration_seconds"), "1-3 settled"),
                Query(
                    quantile(0.95, "message_queue_wait_seconds", 'queue=~"enrollment[.].+"'),
                    "4 queue to enrollment",
                ),
                Query(quantile(0.95, "enrollment_whole_way_duration_seconds"), "1-5 whole way"),
            ],
            "s",
        ),
    ),
)

_OUTCOMES: Final = Section(
    "Outcomes",
    (
        graph(
            "Payments that came to rest",
            "By state. `on_hold` waits for a person.",
            [Query(per_second("payments_settled_total", by="state"), "{{state}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Success rate by gateway",
            "Of the payments that succeeded or failed.",
            [
                Query(
                    share("payments_settled_total", _SUCCEEDED, of=_ENDED, by="gateway"),
                    "{{gateway}}",
                )
            ],
            "percentunit",
            thresholds=[(0.9, GREEN)],
            base=RED,
            maximum=1,
            width=8,
        ),
        graph(
            "Share of requests that failed",
            "Status 5xx by service. Gateways repeat a notice that was not acknowledged; "
            "a shop should not have to.",
            [
                Query(
                    share("http_request_duration_seconds_count", 'status=~"5.."', by="job"),
                    "{{job}}",
                )
            ],
            "percentunit",
            thresholds=[(0.01, RED)],
            width=8,
        ),
    ),
)

_DURATIONS: Final = Section(
    "Durations",
    (
        percentiles(
            "From notice to enrollment",
            "The whole way, from the receipt of a notice (or the look-up that found the money) to "
            "the commit of the enrollment.",
            "enrollment_whole_way_duration_seconds",
            thresholds=[(60, RED)],
            width=8,
        ),
        heatmap(
            "From notice to enrollment, how many took how long",
            "A second band above the usual one is what percentiles hide.",
            "enrollment_whole_way_duration_seconds",
            width=8,
        ),
        percentiles(
            "Acknowledgement of notices",
            "Gateways give up after some seconds, and notices come again.",
            "http_request_duration_seconds",
            _WEBHOOKS,
            thresholds=[(1, RED)],
            width=8,
        ),
    ),
)

_REQUESTS: Final = "http_request_duration_seconds_count"
_FAILED: Final = f'{_WEBHOOKS},status=~"5.."'
_WHOLE_WAY: Final = "enrollment_whole_way_duration_seconds"
_IN_TIME: Final = 'le="10.0"'


def _webhook_budget(window: str) -> str:
    """Return how many times faster than allowed webhooks fail: 0.1 % of the requests may."""
    failed = f"sum(increase({select(_REQUESTS, _FAILED)}[{window}]))"
    requests = f"sum(increase({select(_REQUESTS, _WEBHOOKS)}[{window}]))"
    return f"({failed} or vector(0)) / {requests} / 0.001"


def _enrollment_budget(window: str) -> str:
    """Return how many times faster than allowed enrollments are slow: 1 % may take over 10 s."""
    in_time = f"sum(increase({select(f'{_WHOLE_WAY}_bucket', _IN_TIME)}[{window}]))"
    enrollments = f"sum(increase({select(f'{_WHOLE_WAY}_count')}[{window}]))"
    return f"(1 - {in_time} / {enrollments}) / 0.01"


_OBJECTIVES: Final = Section(
    "Objectives of 30 days",
    (
        graph(
            "Webhooks answered: use of the error budget",
            "99.9 % of the gateways' requests are not answered with a 5xx. At 1 the budget lasts "
            "30 days, at 14.4 an hour takes 2 % of it (docs/runbooks/webhook-budget-burning.md).",
            [
                Query(_webhook_budget("1h"), "over 1 h"),
                Query(_webhook_budget("6h"), "over 6 h"),
            ],
            "short",
            thresholds=[(1, ORANGE), (14.4, RED)],
        ),
        graph(
            "Enrolled within 10 s: use of the error budget",
            "99 % of the payments are enrolled within 10 s of their notice "
            "(docs/runbooks/enrollment-budget-burning.md).",
            [
                Query(_enrollment_budget("1h"), "over 1 h"),
                Query(_enrollment_budget("6h"), "over 6 h"),
            ],
            "short",
            thresholds=[(1, ORANGE), (14.4, RED)],
        ),
    ),
)

_MONEY: Final = Section(
    "Money",
    (
        graph(
            "Collected, an hour",
            "Payments that succeeded, subscriptions' included, in whole units of each currency.",
            [
                Query(
                    collected("1h"),
                    "{{currency}}",
                )
            ],
            "short",
            width=8,
        ),
        bars(
            "Collected in the time shown",
            "The same, in all; money that went back is not taken off.",
            [
                Query(
                    collected("$__range"),
                    "{{currency}}",
                )
            ],
            "short",
            width=8,
        ),
        graph(
            "Collected by gateway, payments a second",
            "A gateway that falls behind its usual share has a problem, or its notices do not come "
            "(docs/runbooks/gateway-silent.md).",
            [Query(per_second("payments_settled_total", _SUCCEEDED, by="gateway"), "{{gateway}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
    ),
)

_BACKLOG: Final = Section(
    "What waits",
    (
        graph(
            "Ready messages by queue",
            "Longer and longer: too few workers (docs/runbooks/queue-not-draining.md). "
            "More: dashboard Queues and Redis.",
            [Query(told_by_each("queue_messages", _READY, by="queue"), "{{queue}}")],
            "short",
        ),
        graph(
            "Unconfirmed messages by service",
            "The outboxes: sent, and sent again until the receiver has confirmed them.",
            [
                Query(
                    f"sum by (service) ({told_by_each('outbox_messages', by='service, state')})",
                    "{{service}}",
                )
            ],
            "short",
        ),
    ),
)

OVERVIEW: Final = Dashboard(
    name="overview",
    title="overview",
    description=(
        "From the gateway's notice to what was paid for: rates, success, durations, money, backlog."
    ),
    sections=(_NOW, _WAY, _OUTCOMES, _DURATIONS, _OBJECTIVES, _MONEY, _BACKLOG),
)
