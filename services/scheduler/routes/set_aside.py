"""What an operator does about a subscription that was set aside."""

from __future__ import annotations

from aiohttp import web

from services.scheduler.domain.commands import NotNowError
from services.scheduler.handlers import set_aside
from services.scheduler.handlers.subscriptions import REQUEST_PREFIX, Request
from services.scheduler.routes.subscription_answers import SubscriptionAnswer, render
from services.scheduler.runtime import Runtime
from shared.web.application import CALLER
from shared.web.idempotency import IdempotencyKeys
from shared.web.routes import Answer, Route, Scope, read_body


def set_aside_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the route that has a subscription tried again."""

    async def clear_problem(request: web.Request) -> web.StreamResponse:
        """Have what is due for a subscription tried again that was set aside.

        409 `not_set_aside` when it was not. If it fails again, it is set aside again.
        """
        raw = await read_body(request)

        async def work(request_id: str) -> Answer:
            asked = Request(request_id, request[CALLER])
            subscription_id = request.match_info["subscription_id"]
            return Answer(render(await set_aside.clear_problem(runtime, asked, subscription_id)))

        return await idempotency.run(
            request, raw, caller=request[CALLER], prefix=REQUEST_PREFIX, work=work
        )

    return [
        Route(
            "POST",
            "/api/subscriptions/{subscription_id}/clear-problem",
            clear_problem,
            Scope.ADMIN,
            answer=SubscriptionAnswer,
            errors=(NotNowError,),
        )
    ]
