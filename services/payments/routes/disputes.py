"""Disputes as the gateways tell them: the routes under /api/disputes, and those of a payment."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from services.payments.domain.disputes import Dispute
from services.payments.handlers.disputes import ID_PREFIX
from services.payments.handlers.orders import read_payment
from services.payments.runtime import Runtime
from services.payments.store import disputes as dispute_store
from shared.errors import NotFoundError
from shared.gateways.disputes import DisputeState
from shared.identifiers import is_id
from shared.web.bodies import ShortText, TimeText, time_text
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse_query


class DisputesQuery(PageQuery):
    """Query of a list of disputes of one payment."""

    state: DisputeState | None = None


class AllDisputesQuery(DisputesQuery):
    """Query of `GET /api/disputes`."""

    payment_id: ShortText | None = None
    gateway: ShortText | None = None


class FeeAnswer(TypedDict):
    """What a gateway charges for a dispute."""

    amount: Annotated[int, Field(description="Minor units")]
    currency: str


class DisputeAnswer(TypedDict):
    """A payment that the customer's bank takes back, or asks about."""

    id: Annotated[str, Field(examples=["dsp_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    paymentId: str
    gateway: str
    gatewayDisputeId: Annotated[str, Field(description="The gateway's name for it")]
    amount: Annotated[int, Field(description="What the bank claims, in minor units")]
    currency: str
    state: Annotated[
        DisputeState, Field(description="`inquiry`: no money has moved; `opened`: the bank has it")
    ]
    reason: Annotated[str, Field(description="The gateway's word for the customer's reason")]
    fee: FeeAnswer | None
    nextLookAt: Annotated[TimeText | None, Field(description="When the gateway is asked next")]
    openedAt: TimeText
    createdAt: TimeText
    updatedAt: TimeText


def dispute_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of disputes."""

    async def page(
        query: DisputesQuery, payment_id: str | None, gateway: str | None
    ) -> web.StreamResponse:
        query.require_cursor_of(ID_PREFIX)
        async with runtime.core.database.connection() as connection:
            found = await dispute_store.list_disputes(
                connection,
                payment_id=payment_id,
                state=query.state,
                gateway=gateway,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        return query.page("disputes", found, id_of=lambda each: each.id, render=render).response()

    async def list_of_payment(request: web.Request) -> web.StreamResponse:
        """List the disputes of a payment, the newest first."""
        query = parse_query(DisputesQuery, request)
        view = await read_payment(runtime, request.match_info["payment_id"])
        return await page(query, view.payment.id, None)

    async def list_(request: web.Request) -> web.StreamResponse:
        """List disputes, the newest first."""
        query = parse_query(AllDisputesQuery, request)
        return await page(query, query.payment_id, query.gateway)

    async def read(request: web.Request) -> web.StreamResponse:
        """Read a dispute, as the gateway told it last."""
        dispute_id, dispute = request.match_info["dispute_id"], None
        if is_id(dispute_id, ID_PREFIX):  # Anything else may hold what PostgreSQL cannot encode.
            async with runtime.core.database.connection() as connection:
                dispute = await dispute_store.find_dispute(connection, dispute_id)
        if dispute is None:
            raise NotFoundError(f"no dispute has the id {dispute_id[:40]!r}")
        return Answer(render(dispute)).response()

    of_all, answer = PageOf("disputes", DisputeAnswer), DisputeAnswer
    return [
        Route(
            "GET",
            "/api/payments/{payment_id}/disputes",
            list_of_payment,
            Scope.READ,
            query=DisputesQuery,
            answer=of_all,
        ),
        Route("GET", "/api/disputes", list_, Scope.READ, query=AllDisputesQuery, answer=of_all),
        Route("GET", "/api/disputes/{dispute_id}", read, Scope.READ, answer=answer),
    ]


def render(dispute: Dispute) -> DisputeAnswer:
    """Return a dispute as the API shows it."""
    fee = dispute.fee
    return {
        "id": dispute.id,
        "paymentId": dispute.payment_id,
        "gateway": dispute.gateway,
        "gatewayDisputeId": dispute.handle,
        "amount": dispute.amount.minor_units,
        "currency": dispute.amount.currency,
        "state": dispute.state,
        "reason": dispute.reason,
        "fee": None if fee is None else {"amount": fee.minor_units, "currency": fee.currency},
        "nextLookAt": time_text(dispute.next_look_at),
        "openedAt": time_text(dispute.opened_at),
        "createdAt": time_text(dispute.created_at),
        "updatedAt": time_text(dispute.updated_at),
    }
