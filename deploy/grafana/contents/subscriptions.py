"""Subscriptions: who stays, who pays, and what dunning brings back."""

from __future__ import annotations

from typing import Final

from deploy.grafana.expressions import (
    growth,
    in_whole_units,
    or_zero,
    per_second,
    ratio,
    select,
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
    number,
)

_CHOSEN: Final = 'gateway=~"$gateway"'
_LABELS: Final = "gateway, currency, what"

#: How periods are paid.
_PAID: Final = "paid_at_once|paid_by_retry|paid_by_dunning"

#: Long enough for what happens once a month.
_BILLING_WINDOW: Final = "1h"


def _events(what: str, window: str = "$__range", *, by: str = "") -> str:
    """Return how often something happened to subscriptions; `what` is a regular expression."""
    chosen = f'{_CHOSEN},what=~"{what}"'
    return growth("scheduler_billing_events", chosen, window, tells=_LABELS, by=by)


def _revenue(window: str, *, by: str) -> str:
    """Return the money of paid periods, in whole units."""
    return in_whole_units(
        lambda currency: growth(
            "scheduler_revenue_minor_units",
            f"{_CHOSEN},{currency}",
            window,
            tells=_LABELS,
            by=by,
        )
    )


def _in_state(state: str) -> str:
    chosen = f'state=~"{state}"'
    return f"sum({told_by_each('scheduler_subscriptions', chosen, by='state')})"


_NOW: Final = Section(
    "Now",
    (
        number(
            "Active",
            "Subscriptions whose present period is paid, or that have a trial.",
            _in_state("active|trialing"),
            "short",
        ),
        number(
            "Past due",
            "Their present period is not paid: dunning asks for the money.",
            _in_state("past_due"),
            "short",
            thresholds=[(1, ORANGE)],
        ),
        number(
            "Paid at the first try",
            "Share of the paid periods in the time shown.",
            ratio(_events("paid_at_once"), _events(_PAID)),
            "percentunit",
            base=RED,
            thresholds=[(0.7, ORANGE), (0.85, GREEN)],
        ),
        number(
            "Recovered",
            "In the time shown, of the periods that were past due and are decided: those that were "
            "paid after all, and not given up.",
            ratio(
                f"({_events('recovered')} or vector(0))",
                _events("recovered|written_off"),
            ),
            "percentunit",
            base=RED,
            thresholds=[(0.3, ORANGE), (0.6, GREEN)],
        ),
        number(
            "Churned",
            "Share of the living subscriptions that were cancelled in the time shown, by whomever.",
            ratio(
                f"({_events('churned')} or vector(0))",
                _in_state("active|trialing|past_due|paused"),
            ),
            "percentunit",
            thresholds=[(0.05, ORANGE), (0.1, RED)],
        ),
        number(
            "Paid twice",
            "Periods in the time shown: refund one of the payments.",
            or_zero(_events("paid_twice")),
            "short",
            thresholds=[(1, RED)],
        ),
    ),
)

_PEOPLE: Final = Section(
    "Subscriptions",
    (
        graph(
            "By state",
            "`past_due` growing faster than `active`: charges fail.",
            [Query(told_by_each("scheduler_subscriptions", by="state"), "{{state}}")],
            "short",
            is_stacked=True,
            width=8,
        ),
        graph(
            "Begun and churned, an hour",
            "What ran its number of periods has ended, and is no churn.",
            [Query(_events("started|churned", _BILLING_WINDOW, by="what"), "{{what}}")],
            "short",
            width=8,
        ),
        graph(
            "Access given and taken away",
            "What enrollment did for subscriptions.",
            [Query(per_second("enrollment_access_total", by="effect"), "{{effect}}")],
            "ops",
            width=8,
        ),
    ),
)

_BILLING: Final = Section(
    "Billing",
    (
        graph(
            "Periods, an hour",
            "Opened ones, and paid ones by how they were paid.",
            [Query(_events(f"opened|{_PAID}", _BILLING_WINDOW, by="what"), "{{what}}")],
            "short",
            width=8,
        ),
        graph(
            "Revenue, an hour",
            "Of paid periods, in whole units of each currency.",
            [Query(_revenue(_BILLING_WINDOW, by="currency"), "{{currency}}")],
            "short",
            width=8,
        ),
        bars(
            "Revenue in the time shown, by how it was paid",
            "What retries and dunning are worth, in whole units of each currency.",
            [Query(_revenue("$__range", by="currency, what"), "{{currency}} {{what}}")],
            "short",
            width=8,
        ),
    ),
)

_DUNNING: Final = Section(
    "Retries and dunning",
    (
        graph(
            "Charges",
            "What payments said of them, by what it changed. Test clocks, too.",
            [Query(per_second("scheduler_outcomes_total", by="effect"), "{{effect}}")],
            "ops",
            width=8,
        ),
        graph(
            "Failed, recovered, given up, an hour",
            "`failed` are charges that failed for good, `recovered` periods that were paid while "
            "past due, `written_off` periods that dunning gave up.",
            [
                Query(
                    _events("failed|recovered|written_off|paid_late", _BILLING_WINDOW, by="what"),
                    "{{what}}",
                )
            ],
            "short",
            width=8,
        ),
        graph(
            "Retries",
            "Of single payments and subscriptions' charges alike (docs/retries.md).",
            [
                Query(
                    per_second("payments_retries_total", _CHOSEN, by="kind, event"),
                    "{{kind}} {{event}}",
                )
            ],
            "ops",
            width=8,
        ),
        graph(
            "Orders to payments",
            "`refused`: a means of payment is gone, a gateway is off, or an amount is outside its "
            "limits.",
            [
                Query(
                    per_second("payments_charges_total", _CHOSEN, by="gateway, event"),
                    "{{gateway}} {{event}}",
                )
            ],
            "ops",
            width=8,
        ),
        graph(
            "Jobs in hand",
            "`delayed`: a retry has its time, or the customer must act.",
            [
                Query(
                    told_by_each("scheduler_jobs", 'status=~"waiting|active|delayed"', by="status"),
                    "{{status}}",
                )
            ],
            "short",
            width=8,
        ),
        graph(
            "Charges unresolved",
            "Nothing was heard of them for too long (docs/runbooks/charge-unresolved.md).",
            [Query(f"max({select('scheduler_charges_unresolved')})", "charges")],
            "short",
            thresholds=[(1, RED)],
            width=8,
        ),
    ),
)

SUBSCRIPTIONS: Final = Dashboard(
    name="subscriptions",
    title="subscriptions and dunning",
    description=(
        "Who stays, who pays, what retries and dunning bring back. Figures of real subscriptions, "
        "not of those on test clocks, where nothing else is said."
    ),
    sections=(_NOW, _PEOPLE, _BILLING, _DUNNING),
    choices=(Choice("gateway", "scheduler_billing_events", "gateway", "Gateway"),),
)
