"""Subscriptions over HTTP: making, reading, listing and changing them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Final
from zoneinfo import available_timezones

from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, JsonValue

from services.scheduler.domain.beginning import Wish
from services.scheduler.domain.model import SubscriptionState
from services.scheduler.handlers import subscription_changes, subscriptions
from services.scheduler.handlers.chargeable import NotToldYetError
from services.scheduler.handlers.subscription_changes import Changes
from services.scheduler.handlers.subscriptions import ID_PREFIX, REQUEST_PREFIX, Request, Wanted
from services.scheduler.routes.plans import Metadata
from services.scheduler.routes.subscription_answers import (
    EVENT_PREFIX,
    Attention,
    CycleAnswer,
    EventAnswer,
    SubscriptionAnswer,
    render,
    render_cycle,
    render_event,
)
from services.scheduler.runtime import Runtime
from services.scheduler.store import subscription_views
from shared.errors import InvalidInputError
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.numbered_ids import number_of_cursor, numbered_id
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

#: Before and after, calendars and zones are guesses.
_FIRST_YEAR: Final = 1_900
_LAST_YEAR: Final = 7_999

PERIODS_MAX: Final = 1_000_000

_EXAMPLE: Final[dict[str, JsonValue]] = {
    "customerId": "customer-1",
    "planId": "pln_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A",
    "paymentMethodId": "pmt_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A",
    "timeZone": "Asia/Dhaka",
}


def _possible(moment: datetime) -> datetime:
    if not _FIRST_YEAR < moment.year < _LAST_YEAR:
        raise ValueError(f"must be after the year {_FIRST_YEAR} and before {_LAST_YEAR}")
    return moment.astimezone(UTC)


@cache
def _zones() -> frozenset[str]:
    # What a machine calls its own zone is another one elsewhere.
    return frozenset(available_timezones() - {"localtime", "Factory", "posixrules"})


def _known_zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("must be a zone of the IANA time zone database, such as Europe/Paris")
    return name


Moment = Annotated[AwareDatetime, AfterValidator(_possible)]
Zone = Annotated[ShortText, AfterValidator(_known_zone)]


class SubscriptionBody(Body):
    """Body of `POST /api/subscriptions`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    customer_id: ShortText
    plan_id: ShortText
    payment_method_id: Annotated[
        ShortText | None,
        Field(description="Of the customer and the plan's gateway; without one nothing is charged"),
    ] = None
    start_at: Annotated[Moment | None, Field(description="The present, unless it is given")] = None
    anchor: Annotated[
        Moment | None,
        Field(description="When period 0 begins: at the end of the trial, unless it is given"),
    ] = None
    time_zone: Annotated[Zone, Field(description="In which its days and months are counted")] = (
        "UTC"
    )
    auto_pay: Annotated[bool, Field(description="Whether periods are charged by themselves")] = True
    ends_after: Annotated[
        int | None, Field(ge=1, le=PERIODS_MAX, description="How many periods are billed in all")
    ] = None
    test_clock_id: ShortText | None = None
    metadata: Annotated[Metadata, Field(default_factory=dict)]

    def wanted(self) -> Wanted:
        """Return what is asked for."""
        wish = Wish(
            customer_id=self.customer_id,
            payment_method_id=self.payment_method_id,
            start_at=self.start_at,
            anchor=self.anchor,
            zone=self.time_zone,
            auto_pay=self.auto_pay,
            ends_after=self.ends_after,
            clock_id=self.test_clock_id,
        )
        return Wanted(self.plan_id, wish, self.metadata)


class SubscriptionChangesBody(Body):
    """Body of `PATCH /api/subscriptions/{id}`; what is left out, or null, stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"autoPay": False}]})

    payment_method_id: ShortText | None = None
    plan_id: Annotated[
        ShortText | None,
        Field(description="From the next period on; the present plan takes a change back"),
    ] = None
    auto_pay: bool | None = None
    cancel_at_period_end: bool | None = None
    metadata: Metadata | None = None

    def changes(self) -> Changes:
        """Return what is asked for."""
        return Changes(
            payment_method_id=self.payment_method_id,
            plan_id=self.plan_id,
            auto_pay=self.auto_pay,
            cancels_at_period_end=self.cancel_at_period_end,
            metadata=self.metadata,
        )


class SubscriptionsQuery(PageQuery):
    """Query of `GET /api/subscriptions`."""

    customer_id: ShortText | None = None
    plan_id: ShortText | None = None
    state: SubscriptionState | None = None
    attention: Annotated[
        Attention | None, Field(description="Only those that a person must look at")
    ] = None


def subscription_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes that make, read, list and change subscriptions."""
    routes = _Subscriptions(runtime, idempotency)
    all_, one = "/api/subscriptions", "/api/subscriptions/{subscription_id}"
    answer, read, write = SubscriptionAnswer, Scope.READ, Scope.WRITE
    return [
        Route(
            "POST",
            all_,
            routes.create,
            write,
            body=SubscriptionBody,
            answer=answer,
            status=201,
            errors=(NotToldYetError,),
        ),
        Route(
            "GET",
            all_,
            routes.list_,
            read,
            query=SubscriptionsQuery,
            answer=PageOf("subscriptions", answer),
        ),
        Route("GET", one, routes.read, read, answer=answer),
        Route(
            "PATCH",
            one,
            routes.change,
            write,
            body=SubscriptionChangesBody,
            answer=answer,
            errors=(NotToldYetError,),
        ),
        Route("DELETE", one, routes.delete, write, answer=answer),
        Route(
            "GET",
            f"{one}/cycles",
            routes.cycles,
            read,
            query=PageQuery,
            answer=PageOf("cycles", CycleAnswer),
        ),
        Route(
            "GET",
            f"{one}/history",
            routes.history,
            read,
            query=PageQuery,
            answer=PageOf("events", EventAnswer),
        ),
    ]


class _Subscriptions:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Subscribe a customer to a plan.

        Until its anchor it is `trialing`; then period 0 is billed. One that is not on a test clock
        may begin up to a year in the past: what went by is caught up as its plan says.
        """
        raw = await read_body(request)
        wanted = parse(SubscriptionBody, raw).wanted()

        async def work(subscription_id: str) -> Answer:
            asked = Request(subscription_id, request[CALLER])
            view = await subscriptions.create_subscription(self._runtime, asked, wanted)
            return Answer(render(view), status=201)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=ID_PREFIX, work=work
        )

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a subscription: where it stands, and what comes next."""
        view = await subscriptions.read_subscription(self._runtime, _id_in(request))
        return Answer(render(view)).response()

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List subscriptions, the newest first."""
        query = parse_query(SubscriptionsQuery, request)
        query.require_cursor_of(ID_PREFIX)
        async with self._runtime.core.database.connection() as connection:
            found = await subscription_views.list_views(
                connection,
                customer_id=query.customer_id,
                plan_id=query.plan_id,
                state=query.state,
                attention=query.attention,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        answer = query.page(
            "subscriptions", found, id_of=lambda view: view.subscription.id, render=render
        )
        return answer.response()

    async def change(self, request: web.Request) -> web.StreamResponse:
        """Change a subscription: its means of payment, its plan from the next period on, and more.

        All changes are made or none. 409 with a reason when it is over.
        """
        raw = await read_body(request)
        changes = parse(SubscriptionChangesBody, raw).changes()

        async def work(request_id: str) -> Answer:
            asked = Request(request_id, request[CALLER])
            view = await subscription_changes.change(self._runtime, asked, _id_in(request), changes)
            return Answer(render(view))

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=REQUEST_PREFIX, work=work
        )

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Cancel a subscription now; it and its history stay. One that is over stays as it is."""
        raw = await read_body(request)

        async def work(request_id: str) -> Answer:
            asked = Request(request_id, request[CALLER])
            return Answer(render(await subscriptions.delete(self._runtime, asked, _id_in(request))))

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=REQUEST_PREFIX, work=work
        )

    async def cycles(self, request: web.Request) -> web.StreamResponse:
        """List the billing of a subscription's periods, the last one first. It is kept for good."""
        query = parse_query(PageQuery, request)
        before = _moment_of_cursor(query.cursor)
        await subscriptions.read_subscription(self._runtime, _id_in(request))
        async with self._runtime.core.database.connection() as connection:
            found = await subscription_views.list_cycles(
                connection, _id_in(request), before=before, limit=query.limit + 1
            )
        answer = query.page(
            "cycles",
            found,
            id_of=lambda view: time_text(view.cycle.period_start),
            render=render_cycle,
        )
        return answer.response()

    async def history(self, request: web.Request) -> web.StreamResponse:
        """List what happened to a subscription, the latest first."""
        query = parse_query(PageQuery, request)
        before_id = number_of_cursor(EVENT_PREFIX, query.cursor)
        await subscriptions.read_subscription(self._runtime, _id_in(request))
        async with self._runtime.core.database.connection() as connection:
            found = await subscription_views.list_history(
                connection, _id_in(request), before_id=before_id, limit=query.limit + 1
            )
        answer = query.page(
            "events",
            found,
            id_of=lambda event: numbered_id(EVENT_PREFIX, event.id),
            render=render_event,
        )
        return answer.response()


def _id_in(request: web.Request) -> str:
    return request.match_info["subscription_id"]


def _moment_of_cursor(cursor: str | None) -> datetime | None:
    if cursor is None:
        return None
    malformed = InvalidInputError("cursor is not one of ours", details={"cursor": "malformed"})
    try:
        moment = datetime.fromisoformat(cursor)
    except ValueError:
        raise malformed from None
    # As `time_text` writes it: any other spelling is nobody's cursor.
    if moment.tzinfo is None or time_text(moment) != cursor:
        raise malformed
    return moment
