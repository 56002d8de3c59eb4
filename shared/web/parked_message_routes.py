"""Parked messages of a service: listed, and sent on. For every service that sends messages."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import Field, JsonValue
from typing_extensions import TypedDict

from shared.errors import NotFoundError
from shared.messaging import parked_messages
from shared.messaging.parked_messages import ParkedMessage
from shared.process import Core
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.numbered_ids import number_in, number_of_cursor, numbered_id
from shared.web.operator_action_routes import ReasonBody, ReasonText
from shared.web.operator_actions import ID_PREFIX, OperatorAction, find_action, record_action
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

PREFIX: Final = "msg"


class ResumeAllBody(Body):
    """Which parked messages to send again; without filters, all."""

    queue: ShortText | None = None
    message_name: ShortText | None = None
    reason: ReasonText


class ParkedQuery(PageQuery):
    """Query of a list of parked messages."""

    queue: ShortText | None = None
    message_name: ShortText | None = None


class ParkedMessageAnswer(TypedDict):
    """A message that was sent too often without a receipt."""

    id: Annotated[str, Field(examples=["msg_17"])]
    queue: str
    messageName: str
    payload: JsonValue
    createdAt: TimeText
    sends: Annotated[int, Field(description="Times it was sent")]
    parkedAt: TimeText


class ResumedAnswer(TypedDict):
    """How many messages are sent again."""

    count: int


def parked_message_routes(core: Core, idempotency: IdempotencyKeys, base: str) -> list[Route]:
    """Return the routes under `base`/parked-messages, such as /api/payments/parked-messages."""
    messages = _ParkedMessages(core, idempotency)
    path = f"{base}/parked-messages"
    one = f"{path}/{{message_id}}"
    return [
        Route(
            "GET",
            path,
            messages.list_,
            Scope.ADMIN,
            query=ParkedQuery,
            answer=PageOf("parkedMessages", ParkedMessageAnswer),
        ),
        Route(
            "POST",
            f"{path}/resume",
            messages.resume_all,
            Scope.ADMIN,
            body=ResumeAllBody,
            answer=ResumedAnswer,
        ),
        Route("GET", one, messages.read, Scope.ADMIN, answer=ParkedMessageAnswer),
        Route(
            "POST",
            f"{one}/resume",
            messages.resume,
            Scope.ADMIN,
            body=ReasonBody,
            answer=ResumedAnswer,
        ),
    ]


class _ParkedMessages:
    def __init__(self, core: Core, idempotency: IdempotencyKeys) -> None:
        self._core = core
        self._idempotency = idempotency

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List messages that were sent too often in vain, the newest first."""
        query = parse_query(ParkedQuery, request)
        before_id = number_of_cursor(PREFIX, query.cursor)
        async with self._core.database.connection() as connection:
            found = await parked_messages.list_parked(
                connection,
                queue=query.queue,
                message_name=query.message_name,
                before_id=before_id,
                limit=query.limit + 1,
            )
        page = query.page(
            "parkedMessages", found, id_of=lambda each: numbered_id(PREFIX, each.id), render=render
        )
        return page.response()

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a parked message; 404 once its receiver has confirmed it, or it is sent again."""
        async with self._core.database.connection() as connection:
            message = await parked_messages.find_parked(connection, _number_in(request))
        if message is None:
            raise _not_parked(request)
        return Answer(render(message)).response()

    async def resume(self, request: web.Request) -> web.StreamResponse:
        """Send a parked message again, within about a second, and then like a new one."""
        raw = await read_body(request)
        reason = parse(ReasonBody, raw).reason
        number = _number_in(request)
        target = f"parked_message:{numbered_id(PREFIX, number)}"
        return await self._resume(request, raw, reason, target, {"message_id": number})

    async def resume_all(self, request: web.Request) -> web.StreamResponse:
        """Send all parked messages again that match, up to 10,000 at a time."""
        raw = await read_body(request)
        body = parse(ResumeAllBody, raw)
        filters = {"queue": body.queue, "message_name": body.message_name}
        return await self._resume(request, raw, body.reason, "parked_messages", filters)

    async def _resume(
        self, request: web.Request, raw: bytes, reason: str, target: str, filters: dict[str, Any]
    ) -> web.StreamResponse:
        caller = request[CALLER]

        async def work(action_id: str) -> Answer:
            async with self._core.database.transaction() as connection:
                done = await find_action(connection, action_id)
                if done is not None:
                    return Answer(done.after)
                ids = await parked_messages.resume(connection, **filters)
                if not ids and "message_id" in filters:
                    raise _not_parked(request)
                result: ResumedAnswer = {"count": len(ids)}
                action = OperatorAction(
                    id=action_id,
                    at=self._core.clock(),
                    actor=caller,
                    action="resume",
                    target=target,
                    reason=reason,
                    before=filters,
                    after=result,
                )
                await record_action(connection, action)
            return Answer(result)

        return await self._idempotency.run(request, raw, caller=caller, prefix=ID_PREFIX, work=work)


def _number_in(request: web.Request) -> int:
    return number_in(PREFIX, request.match_info["message_id"], "parked message")


def _not_parked(request: web.Request) -> NotFoundError:
    return NotFoundError(f"no parked message has the id {request.match_info['message_id']!r}")


def render(message: ParkedMessage) -> ParkedMessageAnswer:
    """Return a parked message as the API shows it."""
    return {
        "id": numbered_id(PREFIX, message.id),
        "queue": message.queue,
        "messageName": message.message_name,
        "payload": orjson.loads(message.payload),
        "createdAt": time_text(message.created_at),
        "sends": message.sends,
        "parkedAt": time_text(message.parked_at),
    }
