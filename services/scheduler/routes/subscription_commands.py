"""What is done with a subscription over HTTP: pause, resume, cancel, charge now, catch up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from aiohttp import web
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from services.scheduler.domain.commands import NotNowError
from services.scheduler.domain.model import CatchUpPolicy, job_id
from services.scheduler.handlers import subscriptions
from services.scheduler.handlers.subscriptions import REQUEST_PREFIX, Request
from services.scheduler.routes.subscription_answers import SubscriptionAnswer, render
from services.scheduler.runtime import Runtime
from services.scheduler.store.subscription_views import SubscriptionView
from shared.web.application import CALLER
from shared.web.bodies import Body
from shared.web.idempotency import IdempotencyKeys
from shared.web.routes import Answer, Route, Scope, parse, read_body


class CancelBody(Body):
    """Body of `POST …/cancel`, which may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"atPeriodEnd": True}]})

    at_period_end: Annotated[
        bool, Field(description="When the present period is over, not at once")
    ] = False


class CatchUpDecisionBody(Body):
    """Body of `POST …/catch-up`."""

    bill: Annotated[
        Literal["every", "current"],
        Field(
            description="All periods that went by, as many as the plan allows, or the running one"
        ),
    ]


class TriggeredAnswer(TypedDict):
    """A charge that was ordered."""

    jobId: Annotated[str, Field(description="At `GET /api/jobs/{jobId}`")]
    paymentId: Annotated[str, Field(description="At `GET /api/payments/{paymentId}`")]
    subscription: SubscriptionAnswer


def command_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes of what is done with one subscription."""
    routes = _Commands(runtime, idempotency)
    one, write, answer = "/api/subscriptions/{subscription_id}", Scope.WRITE, SubscriptionAnswer
    refusals = (NotNowError,)
    return [
        Route("POST", f"{one}/pause", routes.pause, write, answer=answer, errors=refusals),
        Route("POST", f"{one}/resume", routes.resume, write, answer=answer, errors=refusals),
        Route(
            "POST",
            f"{one}/cancel",
            routes.cancel,
            write,
            body=CancelBody,
            answer=answer,
            errors=refusals,
        ),
        Route(
            "POST",
            f"{one}/trigger-payment",
            routes.trigger,
            write,
            answer=TriggeredAnswer,
            status=202,
            errors=refusals,
        ),
        Route(
            "POST",
            f"{one}/catch-up",
            routes.catch_up,
            write,
            body=CatchUpDecisionBody,
            answer=answer,
            errors=refusals,
        ),
    ]


class _Commands:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def pause(self, request: web.Request) -> web.StreamResponse:
        """Bill nothing until it is resumed; what is paid stays theirs until its period is over.

        A charge in flight goes on to its end.
        """
        raw = await read_body(request)

        async def work(asked: Request, subscription_id: str) -> SubscriptionView:
            return await subscriptions.pause(self._runtime, asked, subscription_id)

        return await self._shown(request, raw, work)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Bill a paused subscription again, with its anchor unchanged.

        Periods that went by meanwhile are not billed.
        """
        raw = await read_body(request)

        async def work(asked: Request, subscription_id: str) -> SubscriptionView:
            return await subscriptions.resume(self._runtime, asked, subscription_id)

        return await self._shown(request, raw, work)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel a subscription, now or when its present period is over.

        Now, a charge in flight is cancelled with it; money that moved all the same is told.
        `PATCH` with `cancelAtPeriodEnd` false takes a later end back.
        """
        raw = await read_body(request)
        at_period_end = parse(CancelBody, raw or b"{}").at_period_end

        async def work(asked: Request, subscription_id: str) -> SubscriptionView:
            return await subscriptions.cancel(
                self._runtime, asked, subscription_id, at_period_end=at_period_end
            )

        return await self._shown(request, raw, work)

    async def trigger(self, request: web.Request) -> web.StreamResponse:
        """Charge the present period now if it is unpaid.

        202: a charge is ordered, and its job tells how it goes. 409, with a `reason` in the
        details: `charge_unresolved`, `nothing_due`, `is_paused`, `is_cancelled`, `is_ended`,
        `may_still_be_paid`, `no_payment_method` or `clock_is_advancing`.
        """
        raw = await read_body(request)

        async def work(request_id: str) -> Answer:
            asked = Request(request_id, request[CALLER])
            view, payment_id = await subscriptions.trigger(self._runtime, asked, _id_in(request))
            triggered: TriggeredAnswer = {
                "jobId": job_id(payment_id),
                "paymentId": payment_id,
                "subscription": render(view),
            }
            return Answer(triggered, status=202)

        return await self._run(request, raw, work)

    async def catch_up(self, request: web.Request) -> web.StreamResponse:
        """Say which periods are billed that went by, of a subscription that asks.

        409 `nothing_asked` when it does not.
        """
        raw = await read_body(request)
        policy = CatchUpPolicy(parse(CatchUpDecisionBody, raw).bill)

        async def work(asked: Request, subscription_id: str) -> SubscriptionView:
            return await subscriptions.catch_up(self._runtime, asked, subscription_id, policy)

        return await self._shown(request, raw, work)

    async def _shown(
        self,
        request: web.Request,
        raw: bytes,
        command: Callable[[Request, str], Awaitable[SubscriptionView]],
    ) -> web.StreamResponse:
        async def work(request_id: str) -> Answer:
            view = await command(Request(request_id, request[CALLER]), _id_in(request))
            return Answer(render(view))

        return await self._run(request, raw, work)

    async def _run(
        self, request: web.Request, raw: bytes, work: Callable[[str], Awaitable[Answer]]
    ) -> web.StreamResponse:
        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=REQUEST_PREFIX, work=work
        )


def _id_in(request: web.Request) -> str:
    return request.match_info["subscription_id"]
