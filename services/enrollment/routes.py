"""The HTTP side of the enrollment service."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from services.enrollment import handlers, store
from services.enrollment.domain import Enrollment
from services.enrollment.runtime import Runtime
from shared.web.application import CALLER
from shared.web.bodies import Body, LongText, ShortText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.pages import PageQuery
from shared.web.routes import (
    Answer,
    Route,
    Scope,
    parse,
    parse_query,
    read_body,
)

Reason = Annotated[LongText, Field(min_length=1)]


class GrantBody(Body):
    """Body of `POST /api/enrollments`."""

    customer_id: ShortText
    product_id: ShortText
    reason: Reason


class RevokeBody(Body):
    """Body of `POST /api/enrollments/{id}/revoke`."""

    reason: Reason


class EnrollmentsQuery(PageQuery):
    """Query of `GET /api/enrollments`."""

    customer_id: ShortText | None = None
    product_id: ShortText | None = None
    payment_id: ShortText | None = None


def enrollment_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/enrollments."""

    async def read(request: web.Request) -> web.StreamResponse:
        enrollment = await handlers.read_enrollment(runtime, request.match_info["enrollment_id"])
        return Answer(render(enrollment)).response()

    async def list_(request: web.Request) -> web.StreamResponse:
        query = parse_query(EnrollmentsQuery, request)
        query.require_cursor_of("enr")
        async with runtime.core.database.connection() as connection:
            found = await store.list_enrollments(
                connection,
                customer_id=query.customer_id,
                product_id=query.product_id,
                payment_id=query.payment_id,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        answer = query.page(
            "enrollments", found, id_of=lambda enrollment: enrollment.id, render=render
        )
        return answer.response()

    async def grant(request: web.Request) -> web.StreamResponse:
        raw = await read_body(request)
        body = parse(GrantBody, raw)
        actor = request[CALLER]

        async def work(enrollment_id: str) -> Answer:
            enrollment = await handlers.grant_by_hand(
                runtime,
                enrollment_id,
                customer_id=body.customer_id,
                product_id=body.product_id,
                actor=actor,
                reason=body.reason,
            )
            return Answer(render(enrollment), status=201)

        return await idempotency.run(request, raw, caller=actor, prefix="enr", work=work)

    async def revoke(request: web.Request) -> web.StreamResponse:
        raw = await read_body(request)
        body = parse(RevokeBody, raw)
        actor = request[CALLER]

        async def work(_unused_id: str) -> Answer:
            enrollment = await handlers.revoke_by_hand(
                runtime, request.match_info["enrollment_id"], actor=actor, reason=body.reason
            )
            return Answer(render(enrollment))

        return await idempotency.run(request, raw, caller=actor, prefix="enr", work=work)

    return [
        Route("GET", "/api/enrollments", list_, Scope.READ),
        Route("POST", "/api/enrollments", grant, Scope.ADMIN),
        Route("GET", "/api/enrollments/{enrollment_id}", read, Scope.READ),
        Route("POST", "/api/enrollments/{enrollment_id}/revoke", revoke, Scope.ADMIN),
    ]


def render(enrollment: Enrollment) -> dict[str, Any]:
    """Return an enrollment as the API shows it."""
    return {
        "id": enrollment.id,
        "customerId": enrollment.customer_id,
        "productId": enrollment.product_id,
        "paymentId": enrollment.payment_id,
        "state": enrollment.state,
        "createdAt": time_text(enrollment.created_at),
        "updatedAt": time_text(enrollment.updated_at),
    }
