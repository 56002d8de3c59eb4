"""What operators do to one payment over HTTP: look it up, hold it, release it. Needs `admin`."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from services.payments.handlers import holds
from services.payments.routes.payments import PaymentAnswer
from services.payments.routes.payments import render as render_payment
from services.payments.runtime import Runtime
from shared.errors import GatewayUnavailableError
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import ReasonBody, carry_out
from shared.web.operator_actions import Instruction
from shared.web.routes import Answer, Route, Scope, parse, read_body


class LookUpAnswer(TypedDict):
    """What the gateway said, and where the payment stands since."""

    outcome: Annotated[str, Field(examples=["paid", "declined", "pending", "unknown"])]
    reason: str | None
    payment: PaymentAnswer


def hold_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/payments/{payment_id} that are for operators."""

    async def look_up(request: web.Request) -> web.StreamResponse:
        """Ask the gateway at once where a payment stands, whatever its state.

        What it says is recorded as if a notice had come. 502 when the gateway may not be asked now.
        """
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            found = await holds.look_up(runtime, instruction, request.match_info["payment_id"])
            answer: LookUpAnswer = {
                "outcome": found.outcome,
                "reason": found.reason,
                "payment": render_payment(found.view),
            }
            return Answer(answer)

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def hold(request: web.Request) -> web.StreamResponse:
        """Put a payment on hold: no look, no further attempt, no enrollment until it is released.

        A call that is in flight is not called back. 409 when the payment is at rest.
        """
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            view = await holds.hold(runtime, instruction, request.match_info["payment_id"])
            return Answer(render_payment(view))

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def release(request: web.Request) -> web.StreamResponse:
        """Release a payment that is on hold.

        One that an operator held goes on where its gateway says it stands. One whose money was held
        in doubt succeeds. 409 when it is not on hold, or its money is on its way back.
        """
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            view = await holds.release(runtime, instruction, request.match_info["payment_id"])
            return Answer(render_payment(view))

        return await carry_out(request, idempotency, body, asked.reason, work)

    top, admin, answer = "/api/payments/{payment_id}", Scope.ADMIN, PaymentAnswer
    return [
        Route(
            "POST",
            f"{top}/look-up",
            look_up,
            admin,
            body=ReasonBody,
            answer=LookUpAnswer,
            errors=(GatewayUnavailableError,),
        ),
        Route("POST", f"{top}/hold", hold, admin, body=ReasonBody, answer=answer),
        Route("POST", f"{top}/release", release, admin, body=ReasonBody, answer=answer),
    ]
