"""What was billed, paid and lost, over HTTP."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from services.scheduler.domain.analytics import (
    BUCKETS_MAX,
    PAID,
    Amount,
    Analysis,
    Bucket,
    Figures,
    Stream,
    days_max,
)
from services.scheduler.domain.model import SubscriptionState
from services.scheduler.handlers import analytics
from services.scheduler.runtime import Runtime
from services.scheduler.store.analytics import Choice
from shared.errors import InvalidInputError
from shared.web.bodies import ShortText
from shared.web.routes import Answer, Route, Scope, parse_query

#: Days that are answered unless a caller says which.
DAYS_DEFAULT: Final = 30

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _is_date(value: Any) -> Any:
    """Let only dates through: pydantic would take a number for the seconds since 1970."""
    if not isinstance(value, str) or _DATE.fullmatch(value) is None:
        raise ValueError("must be a date like 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_is_date)]
DayText = Annotated[str, Field(json_schema_extra={"format": "date"})]


class AnalyticsQuery(BaseModel):
    """Query of `GET /api/subscriptions/analytics`."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    first: Annotated[
        Day | None, Field(alias="from", description="The first day, in UTC; 30 days unless given")
    ] = None
    last: Annotated[
        Day | None, Field(alias="to", description="The last day, in UTC; today unless given")
    ] = None
    interval: Bucket = Bucket.DAY
    gateway: ShortText | None = None
    currency: ShortText | None = None
    plan_id: ShortText | None = None
    include_test: Annotated[
        bool, Field(description="Whether subscriptions on test clocks count too")
    ] = False

    def days(self, today: date) -> tuple[date, date]:
        """Return the first and the last day.

        Raises:
            InvalidInputError: they are the wrong way round, or too far apart.
        """
        last = self.last or today
        first = self.first or date.fromordinal(max(1, last.toordinal() - DAYS_DEFAULT + 1))
        if last < first:
            raise InvalidInputError("to is before from", details={"to": "before from"})
        if (last - first).days >= days_max(self.interval):
            problem = f"more than {BUCKETS_MAX} times a {self.interval} before the end"
            raise InvalidInputError(f"from is {problem}", details={"from": problem})
        return first, last


class AmountAnswer(TypedDict):
    """How often, and the money of it."""

    times: int
    amount: Annotated[int, Field(description="Minor units")]


class FiguresAnswer(TypedDict):
    """What happened to subscriptions whose plans have one currency."""

    currency: str
    livingBefore: Annotated[int, Field(description="Subscriptions, neither cancelled nor ended")]
    started: int
    churned: Annotated[int, Field(description="Cancelled, by whomever or by dunning")]
    churnRate: Annotated[
        float | None, Field(description="Churned of living before and started, in per cent")
    ]
    opened: Annotated[AmountAnswer, Field(description="Periods that began to be billed")]
    paidAtOnce: Annotated[AmountAnswer, Field(description="By the first try of the first charge")]
    paidByRetry: Annotated[AmountAnswer, Field(description="By a further try of it")]
    paidByDunning: Annotated[AmountAnswer, Field(description="By a further charge")]
    revenue: Annotated[AmountAnswer, Field(description="All three: periods that were paid")]
    successRate: Annotated[
        float | None, Field(description="Paid to opened, in per cent; of late money also over 100")
    ]
    recovered: Annotated[
        AmountAnswer, Field(description="Of the paid: the subscription had been past due")
    ]
    paidLate: Annotated[
        AmountAnswer, Field(description="Of the paid: after the period or the subscription")
    ]
    paidTwice: Annotated[
        AmountAnswer, Field(description="Not of the paid: the period was paid before")
    ]
    failedCharges: Annotated[AmountAnswer, Field(description="Charges that failed for good")]
    writtenOff: Annotated[AmountAnswer, Field(description="Periods given up by dunning")]


class GatewayFiguresAnswer(FiguresAnswer):
    """The same of the plans of one gateway."""

    gateway: str


class BucketAnswer(GatewayFiguresAnswer):
    """The same of one day, week or month."""

    start: Annotated[DayText, Field(description="Its first day, in UTC; weeks begin on Monday")]


class StatesAnswer(TypedDict):
    """Subscriptions by their state at this moment."""

    trialing: int
    active: int
    pastDue: int
    paused: int
    cancelled: int
    ended: int


class AnalyticsAnswer(TypedDict):
    """What happened in a span of time; buckets in which nothing happened are left out."""

    firstDay: DayText
    lastDay: DayText
    interval: Bucket
    buckets: Annotated[
        list[BucketAnswer], Field(description="By time, gateway and currency, in this order")
    ]
    byGateway: Annotated[list[GatewayFiguresAnswer], Field(description="Of the whole time")]
    totals: Annotated[
        list[FiguresAnswer], Field(description="Of the whole time and all gateways, by currency")
    ]
    subscriptions: StatesAnswer


def analytics_routes(runtime: Runtime) -> list[Route]:
    """Return the route of analytics."""

    async def read(request: web.Request) -> web.StreamResponse:
        """Read what was billed, paid and lost, by day, week or month and by gateway.

        A subscription's own time counts; that of test clocks is left out unless asked for. Money is
        never added across currencies.
        """
        query = parse_query(AnalyticsQuery, request)
        first, last = query.days(runtime.core.clock().date())
        choice = Choice(query.gateway, query.currency, query.plan_id, query.include_test)
        found = await analytics.read_analysis(runtime, first, last, query.interval, choice)
        return Answer(render(found, first, last, query.interval)).response()

    return [
        Route(
            "GET",
            "/api/subscriptions/analytics",
            read,
            Scope.READ,
            query=AnalyticsQuery,
            answer=AnalyticsAnswer,
        )
    ]


def render(found: Analysis, first: date, last: date, interval: Bucket) -> AnalyticsAnswer:
    """Return figures as the API shows them."""
    return {
        "firstDay": first.isoformat(),
        "lastDay": last.isoformat(),
        "interval": interval,
        "buckets": [
            {"start": start.isoformat(), **_of_gateway(stream, figures)}
            for (start, stream), figures in found.buckets.items()
        ],
        "byGateway": [_of_gateway(stream, each) for stream, each in found.streams.items()],
        "totals": [_figures(currency, each) for currency, each in found.currencies.items()],
        "subscriptions": _states(found.states),
    }


def _of_gateway(stream: Stream, figures: Figures) -> GatewayFiguresAnswer:
    gateway, currency = stream
    return {"gateway": gateway, **_figures(currency, figures)}


def _figures(currency: str, figures: Figures) -> FiguresAnswer:
    return {
        "currency": currency,
        "livingBefore": figures.living_before,
        "started": figures.of("started").times,
        "churned": figures.of("churned").times,
        "churnRate": figures.churn_rate,
        "opened": _amount(figures.of("opened")),
        "paidAtOnce": _amount(figures.of("paid_at_once")),
        "paidByRetry": _amount(figures.of("paid_by_retry")),
        "paidByDunning": _amount(figures.of("paid_by_dunning")),
        "revenue": _amount(figures.of(*PAID)),
        "successRate": figures.success_rate,
        "recovered": _amount(figures.of("recovered")),
        "paidLate": _amount(figures.of("paid_late")),
        "paidTwice": _amount(figures.of("paid_twice")),
        "failedCharges": _amount(figures.of("failed")),
        "writtenOff": _amount(figures.of("written_off")),
    }


def _amount(found: Amount) -> AmountAnswer:
    return {"times": found.times, "amount": found.amount}


def _states(states: Mapping[SubscriptionState, int]) -> StatesAnswer:
    return {
        "trialing": states[SubscriptionState.TRIALING],
        "active": states[SubscriptionState.ACTIVE],
        "pastDue": states[SubscriptionState.PAST_DUE],
        "paused": states[SubscriptionState.PAUSED],
        "cancelled": states[SubscriptionState.CANCELLED],
        "ended": states[SubscriptionState.ENDED],
    }
