"""The HTTP side of the enrollment service."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from services.enrollment.domain.model import Enrollment, EnrollmentState
from services.enrollment.domain.revocation import Cause
from services.enrollment.handlers import enrollments as handlers
from services.enrollment.runtime import Runtime
from services.enrollment.store import enrollments as store
from shared.web.application import CALLER
from shared.web.bodies import Body, LongText, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.pages import PageQuery
from shared.web.routes import (
    Answer,
    PageOf,
    Route,
    Scope,
    parse,
    parse_query,
    read_body,
)

PATH: Final = "/api/enrollments"

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
    subscription_id: ShortText | None = None


class PlannedRevocationAnswer(TypedDict):
    """The enrollment is taken away then, unless something else holds it by that time."""

    paymentId: Annotated[str, Field(description="The payment whose money went back")]
    cause: Cause
    dueAt: TimeText


class EnrollmentAnswer(TypedDict):
    """One customer's right to one product."""

    id: Annotated[str, Field(examples=["enr_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    customerId: str
    productId: str
    paymentId: Annotated[
        str | None,
        Field(description="The first payment; none: granted by hand, or by a subscription"),
    ]
    subscriptionId: Annotated[
        str | None, Field(description="The subscription that gives it, else the last one that did")
    ]
    state: EnrollmentState
    revocation: Annotated[PlannedRevocationAnswer | None, Field(description="The next planned one")]
    createdAt: TimeText
    updatedAt: TimeText


def enrollment_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/enrollments."""
    return [*_reads(runtime), *_changes(runtime, idempotency)]


def _reads(runtime: Runtime) -> list[Route]:

    async def read(request: web.Request) -> web.StreamResponse:
        """Read an enrollment."""
        enrollment = await handlers.read_enrollment(runtime, request.match_info["enrollment_id"])
        return Answer(render(enrollment)).response()

    async def list_(request: web.Request) -> web.StreamResponse:
        """List enrollments, the newest first.

        A payment is found whether it was the first for its enrollment or a further one. A payment
        of a subscription enrolls nobody by itself: ask for the subscription.
        """
        query = parse_query(EnrollmentsQuery, request)
        query.require_cursor_of("enr")
        async with runtime.core.database.connection() as connection:
            found = await store.list_enrollments(
                connection,
                customer_id=query.customer_id,
                product_id=query.product_id,
                payment_id=query.payment_id,
                subscription_id=query.subscription_id,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        answer = query.page(
            "enrollments", found, id_of=lambda enrollment: enrollment.id, render=render
        )
        return answer.response()

    return [
        Route(
            "GET",
            PATH,
            list_,
            Scope.READ,
            query=EnrollmentsQuery,
            answer=PageOf("enrollments", EnrollmentAnswer),
        ),
        Route("GET", PATH + "/{enrollment_id}", read, Scope.READ, answer=EnrollmentAnswer),
    ]


def _changes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    async def grant(request: web.Request) -> web.StreamResponse:
        """Enroll without a payment, give back what was revoked, or keep what would be revoked."""
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
        """Take an enrollment away."""
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
        Route(
            "POST", PATH, grant, Scope.ADMIN, body=GrantBody, answer=EnrollmentAnswer, status=201
        ),
        Route(
            "POST",
            PATH + "/{enrollment_id}/revoke",
            revoke,
            Scope.ADMIN,
            body=RevokeBody,
            answer=EnrollmentAnswer,
        ),
    ]


def render(enrollment: Enrollment) -> EnrollmentAnswer:
    """Return an enrollment as the API shows it."""
    planned = enrollment.revocation
    return {
        "id": enrollment.id,
        "customerId": enrollment.customer_id,
        "productId": enrollment.product_id,
        "paymentId": enrollment.payment_id,
        "subscriptionId": enrollment.subscription_id,
        "state": enrollment.state,
        "revocation": None
        if planned is None
        else {
            "paymentId": planned.payment_id,
            "cause": planned.cause,
            "dueAt": time_text(planned.due_at),
        },
        "createdAt": time_text(enrollment.created_at),
        "updatedAt": time_text(enrollment.updated_at),
    }
