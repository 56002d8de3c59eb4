"""Payments that are tried again: /api/payments/process and the routes under /api/payments/retry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import (
    AwareDatetime,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from services.payments.domain.retries import Retry, RetryState
from services.payments.handlers import retries
from services.payments.handlers.retries import RetryConflictError, RetryView, RetryWish
from services.payments.routes.payments import (
    METADATA_ENTRIES_MAX,
    PaymentAnswer,
    PaymentBody,
)
from services.payments.routes.payments import (
    render as render_payment,
)
from services.payments.routes.retry_answers import (
    RetryAnswer,
    RetryStatisticsAnswer,
    RetryWithAttemptsAnswer,
    render_retry,
    render_statistics,
    render_view,
)
from services.payments.runtime import Runtime
from services.payments.store import retry_lists
from shared.errors import (
    GatewayRefusedError,
    GatewayUnavailableError,
    InvalidInputError,
    NotAcceptingError,
    SpendingLimitError,
)
from shared.identifiers import first_id_at
from shared.web.application import CALLER
from shared.web.bodies import Body, LongText, ShortText
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

_RETRY_EXAMPLE: Final[dict[str, JsonValue]] = {
    "error": "insufficient_funds",
    "metadata": {"asked_by": "support"},
}

_REFUSALS_OF_A_PAYMENT: Final = (
    GatewayRefusedError,
    SpendingLimitError,
    GatewayUnavailableError,
    NotAcceptingError,
)

#: Days of payments that statistics look back, at most and unless asked.
DAYS_MAX: Final = 366
DAYS_DEFAULT: Final = 30

_USER_ID: Final = TypeAdapter(ShortText)

Metadata = Annotated[
    dict[ShortText, LongText], Field(max_length=METADATA_ENTRIES_MAX, default_factory=dict)
]


class RetryBody(Body):
    """Body of `POST /api/payments/retry/{transactionId}`; it may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [_RETRY_EXAMPLE]})

    error: Annotated[
        ShortText | None,
        Field(
            description="Why the payment failed: the retry table then says when it is tried again,"
            " and how often. One of our kinds; anything else counts as `unknown_code`."
            " Left out, it is tried once, at once"
        ),
    ] = None
    due_at: Annotated[
        AwareDatetime | None, Field(description="When to try, instead of the table's time")
    ] = None
    metadata: Metadata


class MoveBody(Body):
    """Body of `PATCH /api/payments/retry/{transactionId}`."""

    due_at: AwareDatetime


class UserRetriesQuery(PageQuery):
    """Query of `GET /api/payments/retry/user/{userId}`."""

    state: RetryState | None = None


class StatisticsQuery(Body):
    """Query of `GET /api/payments/retry/stats`."""

    model_config = ConfigDict(strict=False)

    days: Annotated[
        int, Field(ge=1, le=DAYS_MAX, description="Payments of how many days are counted")
    ] = DAYS_DEFAULT


def retry_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes of retries."""
    routes = _Retries(runtime, idempotency)
    one, answer = "/api/payments/retry/{transaction_id}", RetryWithAttemptsAnswer
    no = (RetryConflictError,)
    write, read = Scope.WRITE, Scope.READ
    return [
        Route(
            "POST",
            "/api/payments/process",
            routes.process,
            write,
            body=PaymentBody,
            answer=PaymentAnswer,
            status=201,
            errors=_REFUSALS_OF_A_PAYMENT,
        ),
        Route(
            "GET",
            "/api/payments/retry/stats",
            routes.statistics,
            read,
            query=StatisticsQuery,
            answer=RetryStatisticsAnswer,
        ),
        Route(
            "GET",
            "/api/payments/retry/user/{user_id}",
            routes.list_of_user,
            read,
            query=UserRetriesQuery,
            answer=PageOf("retries", RetryAnswer),
        ),
        Route("POST", one, routes.ask, write, body=RetryBody, answer=answer, status=202, errors=no),
        Route("GET", one, routes.read, read, answer=answer),
        Route("DELETE", one, routes.cancel, write, answer=answer, errors=no),
        Route("PATCH", one, routes.move, write, body=MoveBody, answer=answer, errors=no),
        Route("POST", f"{one}/now", routes.try_now, write, answer=answer, errors=no),
        Route("POST", f"{one}/resume", routes.resume, write, answer=answer, errors=no),
    ]


class _Retries:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def process(self, request: web.Request) -> web.StreamResponse:
        """Create a payment whose failures are followed by retries, and ask for the money.

        The answer says how far it is: `retry_scheduled` after a failure that is tried again,
        `unknown` while the gateway does not answer. The request need not be repeated for either.
        """
        body = await read_body(request)
        purchase = parse(PaymentBody, body).purchase()

        async def work(payment_id: str) -> Answer:
            view = await retries.process_payment(self._runtime, payment_id, purchase)
            return Answer(render_payment(view), status=201)

        return await self._idempotency.run(
            request, body, caller=request[CALLER], prefix="pay", work=work
        )

    async def ask(self, request: web.Request) -> web.StreamResponse:
        """Schedule a retry of a payment that failed, or whose fate is not known.

        The path names a payment or one of its tries. Before another try is made, the gateway is
        asked about the last one wherever it may still bring money.
        """
        raw = await read_body(request)
        body = parse(RetryBody, raw or b"{}")
        wish = RetryWish(body.error, dict(body.metadata), body.due_at)

        def ask(transaction_id: str) -> Awaitable[RetryView]:
            return retries.ask_for_retry(self._runtime, transaction_id, wish)

        return await self._write(request, raw, ask, status=202)

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read the retry of a payment: when the next try is due, and what became of the others."""
        view = await retries.read_retry(self._runtime, request.match_info["transaction_id"])
        return Answer(render_view(view)).response()

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Cancel a retry that was not begun. A try that is with the gateway is not called back."""

        def cancel(transaction_id: str) -> Awaitable[RetryView]:
            return retries.cancel_retry(self._runtime, transaction_id)

        return await self._write(request, await read_body(request), cancel)

    async def move(self, request: web.Request) -> web.StreamResponse:
        """Give a retry that waits another time."""
        raw = await read_body(request)
        due_at = parse(MoveBody, raw).due_at

        def move(transaction_id: str) -> Awaitable[RetryView]:
            return retries.move_retry(self._runtime, transaction_id, due_at)

        return await self._write(request, raw, move)

    async def try_now(self, request: web.Request) -> web.StreamResponse:
        """Let a retry that waits be made at once."""

        def try_now(transaction_id: str) -> Awaitable[RetryView]:
            return retries.move_retry(self._runtime, transaction_id, None)

        return await self._write(request, await read_body(request), try_now)

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Let a parked retry wait for its turn again."""

        def resume(transaction_id: str) -> Awaitable[RetryView]:
            return retries.resume_retry(self._runtime, transaction_id)

        return await self._write(request, await read_body(request), resume)

    async def list_of_user(self, request: web.Request) -> web.StreamResponse:
        """List the retries of a customer, those of the newest payments first."""
        query = parse_query(UserRetriesQuery, request)
        query.require_cursor_of("pay")
        user_id = _user_id(request.match_info["user_id"])
        async with self._runtime.core.database.connection() as connection:
            found = await retry_lists.list_of_customer(
                connection,
                user_id,
                state=query.state,
                before_id=query.cursor,
                limit=query.limit + 1,
            )

        def render(retry: Retry) -> dict[str, Any]:
            return {**render_retry(retry, retries.waits_for(self._runtime, retry))}

        page = query.page("retries", found, id_of=lambda retry: retry.payment_id, render=render)
        return page.response()

    async def statistics(self, request: web.Request) -> web.StreamResponse:
        """Count retries by state, amount and kind of failure, with their success."""
        days = parse_query(StatisticsQuery, request).days
        since = self._runtime.core.clock() - timedelta(days=days)
        async with self._runtime.core.database.connection() as connection:
            groups = await retry_lists.count_since(connection, first_id_at("pay", since))
        return Answer(render_statistics(days, groups)).response()

    async def _write(
        self,
        request: web.Request,
        raw: bytes,
        act: Callable[[str], Awaitable[RetryView]],
        *,
        status: int = 200,
    ) -> web.StreamResponse:
        async def work(_id: str) -> Answer:
            view = await act(request.match_info["transaction_id"])
            return Answer(render_view(view), status=status)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix="rty", work=work
        )


def _user_id(text: str) -> str:
    try:
        return _USER_ID.validate_python(text)
    except ValidationError:
        problem = "1 to 100 printable characters"
        raise InvalidInputError(f"userId must be {problem}", details={"userId": problem}) from None
