"""The service that takes the money."""

from __future__ import annotations

from typing import Final

from deploy.grafana.contents.every_service import endings
from deploy.grafana.expressions import (
    collected,
    in_view,
    or_zero,
    per_second,
    quantile,
    select,
    share,
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
    number,
    percentiles,
)

_SUCCEEDED: Final = 'state="succeeded"'
_ENDED: Final = 'state=~"succeeded|failed"'

_NOW: Final = Section(
    "Now",
    (
        number(
            "Payments begun",
            "A second, now.",
            per_second("payments_created_total"),
            "ops",
            is_instant=False,
            width=3,
        ),
        number(
            "Payments succeeded",
            "A second, now.",
            per_second("payments_settled_total", _SUCCEEDED),
            "ops",
            is_instant=False,
            width=3,
        ),
        number(
            "Settled (p99)",
            "99 % of the notices led to a committed state in this time "
            "(docs/runbooks/processing-slow.md).",
            quantile(0.99, "payments_settlement_duration_seconds"),
            "s",
            is_instant=False,
            thresholds=[(30, ORANGE), (60, RED)],
            width=3,
        ),
        number(
            "On hold",
            "In the time shown: a person must look (docs/runbooks/payments-on-hold.md).",
            or_zero(in_view("payments_settled_total", 'state="on_hold"')),
            "short",
            thresholds=[(1, ORANGE)],
            width=3,
        ),
        number(
            "Unresolved",
            "Neither paid nor ended long after they had to be "
            "(docs/runbooks/payments-unresolved.md).",
            f"max({select('payments_unresolved')})",
            "short",
            thresholds=[(1, RED)],
            width=3,
        ),
        number(
            "Charged twice",
            "Payments for which a gateway took money more than once, in the time shown: "
            "one charge must be refunded (docs/runbooks/surplus-charge.md).",
            or_zero(in_view("payments_surplus_charges_total")),
            "short",
            thresholds=[(1, RED)],
            width=3,
        ),
        number(
            "Settlement differs",
            "Differences from what gateways list, in the time shown "
            "(docs/runbooks/settlement-differs.md).",
            or_zero(in_view("payments_settlement_findings_total")),
            "short",
            thresholds=[(1, RED)],
            width=3,
        ),
        number(
            "Refunds returned",
            "The customer's bank sent the money back, in the time shown: they must get it another "
            "way (docs/runbooks/refund-returned.md).",
            or_zero(in_view("payments_refunds_total", 'event="returned"')),
            "short",
            thresholds=[(1, ORANGE)],
            width=3,
        ),
    ),
)

_LIVES: Final = Section(
    "Payments",
    (
        graph(
            "Begun, by the gateway's answer",
            "Many `unknown`: the gateway did not say, and is asked later.",
            [Query(per_second("payments_created_total", by="outcome"), "{{outcome}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Came to rest, by state",
            "What an order ends in. `on_hold` waits for a person.",
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
            base=RED,
            thresholds=[(0.9, GREEN)],
            maximum=1,
            width=8,
        ),
        graph(
            "Looks at gateways, by who asked",
            "`notice`: because one came. `reconciler`: because none came "
            "(docs/runbooks/gateway-silent.md). `operator`: by hand.",
            [Query(per_second("payments_checks_total", by="asked_by"), "{{asked_by}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Looks at gateways, by what they said",
            "Share of `unknown` over 10 %: the gateway does not answer well.",
            [Query(per_second("payments_checks_total", by="verdict"), "{{verdict}}")],
            "ops",
            is_stacked=True,
            width=8,
        ),
        percentiles(
            "From notice to settled",
            "From the receipt of a notice to the commit of the state it led to.",
            "payments_settlement_duration_seconds",
            thresholds=[(60, RED)],
            width=8,
        ),
    ),
)

_AGAIN: Final = Section(
    "Retries and orders of the scheduler",
    (
        graph(
            "Retries",
            "`parked`: more wait than RETRY_WAITING_MAX allows. `exhausted`: given up.",
            [Query(per_second("payments_retries_total", by="event"), "{{event}}")],
            "ops",
            width=8,
        ),
        bars(
            "Retries in the time shown, by the failure before them",
            "Why charges are tried again.",
            [
                Query(
                    in_view("payments_retries_total", 'event="scheduled"', by="gateway, kind"),
                    "{{gateway}} {{kind}}",
                )
            ],
            "short",
            width=8,
        ),
        graph(
            "Charges of subscriptions",
            "What became of the scheduler's orders. `refused`: a means of payment is gone, or a "
            "gateway is off; `put_off` without a pause: the gateway does not keep pace.",
            [Query(per_second("payments_charges_total", by="event"), "{{event}}")],
            "ops",
            width=8,
        ),
    ),
)

_BACK: Final = Section(
    "Money",
    (
        graph(
            "Collected, an hour",
            "Payments that succeeded, in whole units of each currency.",
            [
                Query(
                    collected("1h"),
                    "{{currency}}",
                )
            ],
            "short",
            width=6,
        ),
        graph(
            "Refunds",
            "`returned`: the customer's bank sent it back; they must get it another way "
            "(docs/runbooks/refunds-undecided.md).",
            [Query(per_second("payments_refunds_total", by="event"), "{{event}}")],
            "ops",
            width=6,
        ),
        bars(
            "Disputes in the time shown",
            "Evidence is due within days (docs/runbooks/dispute-opened.md).",
            [Query(in_view("payments_disputes_total", by="gateway, step"), "{{gateway}} {{step}}")],
            "short",
            width=6,
        ),
        bars(
            "Comparisons with the gateways' lists in the time shown",
            "`failed`: the gateway did not list (docs/runbooks/settlement-differs.md).",
            [
                Query(
                    in_view("payments_settlement_checks_total", by="gateway, result"),
                    "{{gateway}} {{result}}",
                ),
                Query(
                    in_view("payments_settlement_findings_total", by="gateway, kind"),
                    "{{gateway}} {{kind}}",
                ),
            ],
            "short",
            width=6,
        ),
    ),
)

_STEERING: Final = Section(
    "Steering",
    (
        bars(
            "Alerts of the service in the time shown",
            "Raised and cleared by its own thresholds (docs/statistics.md).",
            [Query(in_view("payments_alerts_total", by="alert, event"), "{{alert}} {{event}}")],
            "short",
            width=8,
        ),
        bars(
            "Switches of profiles in the time shown",
            "More than a few an hour by `load`: its two thresholds are too close.",
            [Query(in_view("payments_profile_switches_total", by="cause"), "{{cause}}")],
            "short",
            width=8,
        ),
        bars(
            "Notices of other systems in the time shown",
            "Authentic, but about payments that are not ours: another system uses the account.",
            [Query(in_view("payments_foreign_notices_total", by="gateway"), "{{gateway}}")],
            "short",
            width=8,
        ),
    ),
)

PAYMENTS: Final = Dashboard(
    name="payments",
    title="payments",
    description="Payments, retries, refunds, disputes and the comparison with the gateways' lists.",
    sections=(_NOW, _LIVES, _AGAIN, _BACK, _STEERING, *endings("payments")),
)
