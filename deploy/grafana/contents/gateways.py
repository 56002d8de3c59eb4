"""Each gateway: whether it answers, how fast, what it says, and how much of it we use."""

from __future__ import annotations

from typing import Final

from deploy.grafana.expressions import (
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
    Choice,
    Dashboard,
    Query,
    Section,
    bars,
    graph,
    heatmap,
    number,
    percentiles,
    states,
)

_CHOSEN: Final = 'gateway=~"$gateway"'
_CALLS: Final = "gateway_request_duration_seconds"
_SUCCEEDED: Final = 'state="succeeded"'
_ENDED: Final = f'{_CHOSEN},state=~"succeeded|failed"'
_FOUND: Final = f'{_CHOSEN},asked_by="reconciler",verdict="paid"'
_CALLS_IN_FLIGHT: Final = f'{_CHOSEN},limit="calls"'
_CALLS_PER_SECOND: Final = f'{_CHOSEN},limit="calls_per_second"'
_ALL_CALLS: Final = per_second("payments_gateway_calls_total", _CHOSEN, by="gateway")
_FAILED_CALLS: Final = per_second("payments_gateway_failures_total", _CHOSEN, by="gateway")
_UNKNOWN: Final = 'verdict="unknown"'

_NOW: Final = Section(
    "Now",
    (
        number(
            "Breakers open",
            "Gateways that are not called at the moment. Payments wait and are begun later "
            "(docs/runbooks/breaker-open.md).",
            f"count({told_by_each('payments_breaker_state', _CHOSEN, by='gateway')} == 2)"
            " or vector(0)",
            "short",
            thresholds=[(1, RED)],
            width=6,
        ),
        number(
            "Calls",
            "Of gateways, a second, now.",
            per_second(f"{_CALLS}_count", _CHOSEN),
            "reqps",
            is_instant=False,
            width=6,
        ),
        number(
            "Calls that the gateway failed",
            "Share in the time shown: not reached, no answer in time, an error of its own. "
            "A decline is none.",
            ratio(
                f"({in_view('payments_gateway_failures_total', _CHOSEN)} or vector(0))",
                in_view("payments_gateway_calls_total", _CHOSEN),
            ),
            "percentunit",
            thresholds=[(0.05, ORANGE), (0.1, RED)],
            width=6,
        ),
        number(
            "Answered within (p99)",
            "99 % of the calls. The time-out is 15 s.",
            quantile(0.99, _CALLS, _CHOSEN),
            "s",
            is_instant=False,
            thresholds=[(5, ORANGE), (12, RED)],
            width=6,
        ),
    ),
)

_BREAKERS: Final = Section(
    "Breakers",
    (
        states(
            "State of each breaker",
            "Open: no calls, payments wait. Half open: a few calls try (docs/flow.md).",
            Query(told_by_each("payments_breaker_state", _CHOSEN, by="gateway"), "{{gateway}}"),
            {0: ("closed", GREEN), 1: ("half open", ORANGE), 2: ("open", RED)},
            width=12,
        ),
        graph(
            "Share of failed calls",
            "What breakers look at: they open above half.",
            [
                Query(
                    f"({_FAILED_CALLS} or 0 * {_ALL_CALLS}) / {_ALL_CALLS}",
                    "{{gateway}}",
                )
            ],
            "percentunit",
            thresholds=[(0.1, ORANGE), (0.5, RED)],
            maximum=1,
            width=6,
        ),
        bars(
            "Transitions in the time shown",
            "More than four in a quarter of an hour: it flaps.",
            [
                Query(
                    in_view("payments_breaker_transitions_total", _CHOSEN, by="gateway, state"),
                    "{{gateway}} {{state}}",
                )
            ],
            "short",
            width=6,
        ),
    ),
)

_ANSWERS: Final = Section(
    "Calls",
    (
        graph(
            "Calls by gateway",
            "HTTP calls a second.",
            [Query(per_second(f"{_CALLS}_count", _CHOSEN, by="gateway"), "{{gateway}}")],
            "reqps",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Calls by operation",
            "Which calls those are.",
            [
                Query(
                    per_second(f"{_CALLS}_count", _CHOSEN, by="gateway, operation"),
                    "{{gateway}} {{operation}}",
                )
            ],
            "reqps",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Calls without a readable answer",
            "Share of the calls that `failed`, by operation.",
            [
                Query(
                    share(
                        f"{_CALLS}_count",
                        'outcome="failed"',
                        of=_CHOSEN,
                        by="gateway, operation",
                    ),
                    "{{gateway}} {{operation}}",
                )
            ],
            "percentunit",
            thresholds=[(0.05, RED)],
            maximum=1,
            width=8,
        ),
        graph(
            "Duration by gateway (p95)",
            "95 % of the calls stayed under it.",
            [Query(quantile(0.95, _CALLS, _CHOSEN, by="gateway"), "{{gateway}}")],
            "s",
            width=8,
        ),
        percentiles("Duration of all chosen", "The time-out is 15 s.", _CALLS, _CHOSEN, width=8),
        heatmap(
            "How many calls took how long",
            "A second band is a gateway that stalls now and then.",
            _CALLS,
            _CHOSEN,
            width=8,
        ),
    ),
)

_WORDS: Final = Section(
    "What gateways say",
    (
        graph(
            "Success rate",
            "Of the payments that succeeded or failed.",
            [
                Query(
                    share("payments_settled_total", _SUCCEEDED, of=_ENDED, by="gateway"),
                    "{{gateway}}",
                )
            ],
            "percentunit",
            base=RED,
            thresholds=[(0.9, GREEN)],
            maximum=1,
            width=8,
        ),
        graph(
            "Orders by answer",
            "What the gateway answered when a payment was begun.",
            [
                Query(
                    per_second("payments_created_total", _CHOSEN, by="gateway, outcome"),
                    "{{gateway}} {{outcome}}",
                )
            ],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Looks that the gateway left open",
            "Share of `unknown` verdicts. Over 10 %: it does not answer well.",
            [
                Query(
                    share("payments_checks_total", _UNKNOWN, of=_CHOSEN, by="gateway"),
                    "{{gateway}}",
                )
            ],
            "percentunit",
            thresholds=[(0.1, RED)],
            maximum=1,
            width=8,
        ),
        graph(
            "Found paid without a notice",
            "By the reconciler. Above a few: notices do not arrive "
            "(docs/runbooks/notices-missing.md).",
            [Query(or_zero(per_second("payments_checks_total", _FOUND)), "all chosen")],
            "ops",
            width=8,
        ),
        graph(
            "From notice to settled (p95)",
            "By gateway: its answers are most of it.",
            [
                Query(
                    quantile(0.95, "payments_settlement_duration_seconds", _CHOSEN, by="gateway"),
                    "{{gateway}}",
                )
            ],
            "s",
            thresholds=[(60, RED)],
            width=8,
        ),
        graph(
            "Notices refused",
            "By gateway and reason (docs/runbooks/webhooks-rejected.md).",
            [
                Query(
                    per_second("webhook_rejected_total", _CHOSEN, by="gateway, reason"),
                    "{{gateway}} {{reason}}",
                )
            ],
            "reqps",
            width=8,
        ),
    ),
)

_LIMITS: Final = Section(
    "Limits",
    (
        graph(
            "Calls in flight that are allowed",
            "The sum over all processes is the gateway's limit, or less while a share passes on.",
            [
                Query(
                    f"sum by (gateway) ({select('payments_gateway_share', _CALLS_IN_FLIGHT)})",
                    "{{gateway}}",
                )
            ],
            "short",
        ),
        graph(
            "Calls a second: allowed and made",
            "A gateway without such a limit is shown with its calls only.",
            [
                Query(
                    f"sum by (gateway) ({select('payments_gateway_share', _CALLS_PER_SECOND)})",
                    "{{gateway}} allowed",
                ),
                Query(per_second(f"{_CALLS}_count", _CHOSEN, by="gateway"), "{{gateway}} made"),
            ],
            "reqps",
        ),
    ),
)

GATEWAYS: Final = Dashboard(
    name="gateways",
    title="gateways and breakers",
    description="Whether each gateway answers, how fast, what it says, how much of it is used.",
    sections=(_NOW, _BREAKERS, _ANSWERS, _WORDS, _LIMITS),
    choices=(Choice("gateway", "payments_breaker_state", "gateway", "Gateway"),),
)
