"""Test clocks over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import AwareDatetime, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from services.scheduler.domain.clocks import VirtualClock
from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import job_id
from services.scheduler.handlers import test_clocks as handlers
from services.scheduler.handlers.test_clocks import ClockView
from services.scheduler.runtime import Runtime
from services.scheduler.store import test_clocks as store
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

PATH: Final = "/api/test-clocks"

_ID: Final = "clock_id"

ClockState = Literal["ready", "advancing", "running", "removed"]


class ClockBody(Body):
    """Body of `POST /api/test-clocks`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "a year", "now": "2026-01-31T09:00:00Z"}]}
    )

    name: ShortText
    now: Annotated[
        AwareDatetime | None, Field(description="What it shows at first; the present if left out")
    ] = None


class AdvanceBody(Body):
    """Body of `POST /api/test-clocks/{clockId}/advance`."""

    to: Annotated[AwareDatetime, Field(description="What it shall show; not before what it shows")]


class AttachBody(Body):
    """Body of `POST /api/test-clocks/{clockId}/attach`: one of the two."""

    customer_id: Annotated[
        ShortText | None,
        Field(description="Whose subscriptions are put on it, those that will be made too"),
    ] = None
    subscription_id: ShortText | None = None

    @model_validator(mode="after")
    def _is_one(self) -> AttachBody:
        if (self.customer_id is None) == (self.subscription_id is None):
            raise ValueError("give customerId or subscriptionId")
        return self


class ClocksQuery(PageQuery):
    """Query of `GET /api/test-clocks`."""


class ClockAnswer(TypedDict):
    """A test clock."""

    id: Annotated[str, Field(examples=["clk_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    name: str
    state: Annotated[
        ClockState,
        Field(
            description="`ready`: all that was due has happened. A `running` one goes on by itself"
        ),
    ]
    now: Annotated[TimeText, Field(description="What it shows at this moment")]
    createdAt: TimeText
    removedAt: TimeText | None


class ProgressAnswer(TypedDict):
    """How far the subscriptions of a clock have come."""

    subscriptions: int
    behind: Annotated[int, Field(description="Something is due that has not happened yet")]
    charging: Annotated[int, Field(description="A charge is at the gateway")]
    askingToCatchUp: Annotated[
        int, Field(description="Nothing is billed until somebody says which periods are")
    ]
    setAside: Annotated[int, Field(description="What is due could not be done; see `problem`")]


class WaitingAnswer(TypedDict):
    """A charge that the clock waits for: the time of its subscription stands still."""

    subscriptionId: str
    jobId: str
    paymentId: str
    since: Annotated[TimeText, Field(description="In the subscription's own time")]


class ClockWithProgressAnswer(ClockAnswer):
    """A test clock, with how far its subscriptions have come."""

    progress: ProgressAnswer
    waitingFor: Annotated[list[WaitingAnswer], Field(description="The first twenty")]


Work = Callable[[str], Awaitable[ClockView]]


def clock_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/test-clocks."""
    routes = _Clocks(runtime, idempotency)
    one, answer = PATH + "/{clock_id}", ClockWithProgressAnswer
    read, write = Scope.READ, Scope.WRITE
    return [
        Route(
            "GET",
            PATH,
            routes.list,
            read,
            query=ClocksQuery,
            answer=PageOf("testClocks", ClockAnswer),
        ),
        Route("GET", one, routes.read, read, answer=answer),
        Route("POST", PATH, routes.create, write, body=ClockBody, answer=answer, status=201),
        Route("DELETE", one, routes.remove, write, answer=answer),
        Route(
            "POST",
            f"{one}/advance",
            routes.advance,
            write,
            body=AdvanceBody,
            answer=answer,
            status=202,
        ),
        Route("POST", f"{one}/freeze", routes.freeze, write, answer=answer),
        Route("POST", f"{one}/run", routes.run, write, answer=answer),
        Route(
            "POST",
            f"{one}/attach",
            routes.attach,
            write,
            body=AttachBody,
            answer=answer,
            errors=(NotNowError,),
        ),
    ]


class _Clocks:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a test clock: whether all that was due has happened, and what it waits for."""
        view = await handlers.read_clock(self._runtime, request.match_info[_ID])
        return Answer(render(view)).response()

    async def list(self, request: web.Request) -> web.StreamResponse:
        """List test clocks, the newest first."""
        query = parse_query(ClocksQuery, request)
        query.require_cursor_of("clk")
        async with self._runtime.core.database.connection() as connection:
            found = await store.list_clocks(connection, query.cursor, query.limit + 1)
        now = self._runtime.core.clock()

        def render_one(clock: VirtualClock) -> ClockAnswer:
            return _render_clock(clock, clock.moment(now))

        answer = query.page("testClocks", found, id_of=lambda clock: clock.id, render=render_one)
        return answer.response()

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Create a test clock: a time that you move, and that its subscriptions follow."""
        raw = await read_body(request)
        body = parse(ClockBody, raw)

        async def work(clock_id: str) -> ClockView:
            return await handlers.create_clock(self._runtime, clock_id, body.name, body.now)

        return await self._change(request, raw, work, status=201)

    async def advance(self, request: web.Request) -> web.StreamResponse:
        """Advance a test clock, as far as you like.

        All that is due until then happens, each subscription in its own order, with real charges.
        The clock is `advancing` until it has happened.
        """
        raw = await read_body(request)
        body = parse(AdvanceBody, raw)

        async def work(clock_id: str) -> ClockView:
            return await handlers.advance_clock(self._runtime, clock_id, body.to)

        return await self._change(request, raw, work, status=202)

    async def freeze(self, request: web.Request) -> web.StreamResponse:
        """Let a test clock stand; one that stands is left as it is."""
        raw = await read_body(request)
        return await self._change(request, raw, partial(handlers.freeze_clock, self._runtime))

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Let a test clock go with the real time, from what it shows."""
        raw = await read_body(request)
        return await self._change(request, raw, partial(handlers.run_clock, self._runtime))

    async def attach(self, request: web.Request) -> web.StreamResponse:
        """Put a customer with all subscriptions, or one subscription, on a test clock.

        A subscription's own time never goes back: it must not have come further than the clock.
        """
        raw = await read_body(request)
        body = parse(AttachBody, raw)
        actor = request[CALLER]

        async def work(clock_id: str) -> ClockView:
            if body.customer_id is not None:
                return await handlers.attach_customer(
                    self._runtime, clock_id, body.customer_id, actor=actor
                )
            assert body.subscription_id is not None, "one of the two is given"
            return await handlers.attach_subscription(
                self._runtime, clock_id, body.subscription_id, actor=actor
            )

        return await self._change(request, raw, work)

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Remove a test clock; its subscriptions are cancelled."""
        raw = await read_body(request)
        work = partial(handlers.remove_clock, self._runtime, actor=request[CALLER])
        return await self._change(request, raw, work)

    async def _change(
        self, request: web.Request, raw: bytes, work: Work, *, status: int = 200
    ) -> web.StreamResponse:
        named = request.match_info.get(_ID)

        async def answer(new_id: str) -> Answer:
            return Answer(render(await work(named or new_id)), status=status)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix="clk", work=answer
        )


def render(view: ClockView) -> ClockWithProgressAnswer:
    """Return a clock as the API shows it."""
    progress = view.progress
    return {
        **_render_clock(view.clock, view.moment),
        "progress": {
            "subscriptions": progress.subscriptions,
            "behind": progress.behind,
            "charging": progress.in_flight,
            "askingToCatchUp": progress.asking,
            "setAside": progress.set_aside,
        },
        "waitingFor": [
            {
                "subscriptionId": each.subscription_id,
                "jobId": job_id(each.payment_id),
                "paymentId": each.payment_id,
                "since": time_text(each.as_of),
            }
            for each in view.waiting
        ],
    }


def _render_clock(clock: VirtualClock, moment: datetime) -> ClockAnswer:
    return {
        "id": clock.id,
        "name": clock.name,
        "state": _state(clock),
        "now": time_text(moment),
        "createdAt": time_text(clock.created_at),
        "removedAt": time_text(clock.removed_at),
    }


def _state(clock: VirtualClock) -> ClockState:
    if clock.removed_at is not None:
        return "removed"
    if clock.runs_since is not None:
        return "running"
    return "advancing" if clock.is_advancing else "ready"
