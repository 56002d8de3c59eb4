"""Giving money back: the routes under /api/refunds and /api/payments/{payment_id}/refunds."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from services.payments.domain.refunds import Refund, RefundState
from services.payments.handlers import refunds
from services.payments.handlers.orders import read_payment
from services.payments.handlers.refunds import ID_PREFIX, RefundWish
from services.payments.runtime import Runtime
from services.payments.store import refunds as refund_store
from shared.errors import NotSupportedError
from shared.money import MINOR_UNITS_MAX
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import ReasonBody, ReasonText
from shared.web.operator_actions import ID_PREFIX as ACTION_PREFIX
from shared.web.operator_actions import Instruction
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

_EXAMPLE: Final[dict[str, JsonValue]] = {"amount": 50_000, "reason": "half of the course only"}


class RefundBody(Body):
    """Body of `POST /api/payments/{paymentId}/refunds`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    amount: Annotated[
        int | None,
        Field(
            gt=0,
            le=MINOR_UNITS_MAX,
            description="Minor units of the payment's currency; left out, all that is left",
        ),
    ] = None
    reason: ReasonText


class DecisionBody(Body):
    """What a person found out about a refund of which the gateway does not say what became."""

    state: Literal["succeeded", "failed"]
    reason: ReasonText


class RefundsQuery(PageQuery):
    """Query of a list of refunds of one payment."""

    state: RefundState | None = None


class AllRefundsQuery(RefundsQuery):
    """Query of `GET /api/refunds`."""

    payment_id: ShortText | None = None
    gateway: ShortText | None = None


class RefundAnswer(TypedDict):
    """Money that is given back, or was."""

    id: Annotated[
        str,
        Field(
            description="Also our name for it at the gateway",
            examples=["ref_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"],
        ),
    ]
    paymentId: str
    gateway: str
    gatewayRefundId: Annotated[str | None, Field(description="The gateway's name for it")]
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    state: RefundState
    reason: Annotated[str, Field(description="Why, in the words of whoever asked for it")]
    detail: Annotated[
        str | None, Field(description="What was last heard of it, or what it waits for")
    ]
    requestedBy: Annotated[str, Field(description="The name of the API key")]
    nextLookAt: Annotated[TimeText | None, Field(description="When the gateway is asked next")]
    createdAt: TimeText
    updatedAt: TimeText


def refund_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes of refunds."""
    routes = _Refunds(runtime, idempotency)
    of_payment, one = "/api/payments/{payment_id}/refunds", "/api/refunds/{refund_id}"
    page, answer = PageOf("refunds", RefundAnswer), RefundAnswer
    return [
        Route(
            "POST",
            of_payment,
            routes.create,
            Scope.ADMIN,
            body=RefundBody,
            answer=answer,
            status=201,
            errors=(NotSupportedError,),
        ),
        Route(
            "GET", of_payment, routes.list_of_payment, Scope.READ, query=RefundsQuery, answer=page
        ),
        Route("GET", "/api/refunds", routes.list_, Scope.READ, query=AllRefundsQuery, answer=page),
        Route("GET", one, routes.read, Scope.READ, answer=answer),
        Route(
            "POST", f"{one}/look-up", routes.look_up, Scope.ADMIN, body=ReasonBody, answer=answer
        ),
        Route(
            "POST", f"{one}/decision", routes.decide, Scope.ADMIN, body=DecisionBody, answer=answer
        ),
    ]


class _Refunds:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Give money of a payment back, all of it or a part.

        The refund is recorded before the gateway hears of it and is then there, whatever the
        gateway answers: `state` says how far it is. Refunds of one payment, those under way
        included, never come to more than was paid.
        """
        raw = await read_body(request)
        body = parse(RefundBody, raw)
        wish = RefundWish(body.amount, body.reason, request[CALLER])
        payment_id = request.match_info["payment_id"]

        async def work(refund_id: str) -> Answer:
            refund = await refunds.request_refund(self._runtime, payment_id, refund_id, wish)
            return Answer(render(refund), status=201)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=ID_PREFIX, work=work
        )

    async def list_of_payment(self, request: web.Request) -> web.StreamResponse:
        """List the refunds of a payment, the newest first."""
        query = parse_query(RefundsQuery, request)
        view = await read_payment(self._runtime, request.match_info["payment_id"])
        return await self._page(query, view.payment.id, None)

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List refunds, the newest first."""
        query = parse_query(AllRefundsQuery, request)
        return await self._page(query, query.payment_id, query.gateway)

    async def _page(
        self, query: RefundsQuery, payment_id: str | None, gateway: str | None
    ) -> web.StreamResponse:
        query.require_cursor_of(ID_PREFIX)
        async with self._runtime.core.database.connection() as connection:
            found = await refund_store.list_refunds(
                connection,
                payment_id=payment_id,
                state=query.state,
                gateway=gateway,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        return query.page("refunds", found, id_of=lambda each: each.id, render=render).response()

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a refund: how far it is, and when the gateway is asked next."""
        refund = await refunds.read_refund(self._runtime, request.match_info["refund_id"])
        return Answer(render(refund)).response()

    async def look_up(self, request: web.Request) -> web.StreamResponse:
        """Ask the gateway about a refund within a second or two, whenever its next look is due."""
        raw = await read_body(request)
        reason = parse(ReasonBody, raw).reason
        refund_id, actor = request.match_info["refund_id"], request[CALLER]

        async def work(action_id: str) -> Answer:
            instruction = Instruction(action_id, actor, reason)
            return Answer(render(await refunds.look_again(self._runtime, refund_id, instruction)))

        return await self._idempotency.run(
            request, raw, caller=actor, prefix=ACTION_PREFIX, work=work
        )

    async def decide(self, request: web.Request) -> web.StreamResponse:
        """Say what became of a refund of which the gateway does not: `state` is `unknown`.

        Look it up in the gateway's back office first. A wrong `failed` frees money to be given
        back twice.
        """
        raw = await read_body(request)
        body = parse(DecisionBody, raw)
        refund_id, actor = request.match_info["refund_id"], request[CALLER]

        async def work(action_id: str) -> Answer:
            refund = await refunds.decide_by_hand(
                self._runtime,
                refund_id,
                Instruction(action_id, actor, body.reason),
                is_given_back=body.state == "succeeded",
            )
            return Answer(render(refund))

        return await self._idempotency.run(
            request, raw, caller=actor, prefix=ACTION_PREFIX, work=work
        )


def render(refund: Refund) -> RefundAnswer:
    """Return a refund as the API shows it."""
    return {
        "id": refund.id,
        "paymentId": refund.payment_id,
        "gateway": refund.gateway,
        "gatewayRefundId": refund.handle,
        "amount": refund.amount.minor_units,
        "currency": refund.amount.currency,
        "state": refund.state,
        "reason": refund.reason,
        "detail": refund.detail,
        "requestedBy": refund.requested_by,
        "nextLookAt": time_text(refund.next_look_at),
        "createdAt": time_text(refund.created_at),
        "updatedAt": time_text(refund.updated_at),
    }
