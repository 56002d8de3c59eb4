"""Dead letters of a service: listed, handled again, put off, discarded. For every service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from shared.database import Connection
from shared.errors import ConflictError, NotFoundError
from shared.messaging import dead_letters
from shared.messaging.dead_letters import DeadLetter, State
from shared.process import Core
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.numbered_ids import number_in, number_of_cursor, numbered_id
from shared.web.operator_action_routes import ReasonBody, ReasonText
from shared.web.operator_actions import ID_PREFIX, OperatorAction, find_action, record_action
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

PREFIX: Final = "dlt"

#: Times outside are mistakes, and some of them no database can store.
_TIMES: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))


def _is_sensible(moment: datetime) -> datetime:
    earliest, latest = _TIMES
    if not earliest <= moment <= latest:
        raise ValueError(f"must be between {earliest.year} and {latest.year}")
    return moment


class RetryAllBody(Body):
    """Which waiting dead letters to handle again; without filters, all."""

    queue: ShortText | None = None
    message_name: ShortText | None = None
    reason: ReasonText


class MoveBody(Body):
    """When to handle a dead letter again."""

    retry_at: Annotated[
        Annotated[AwareDatetime, AfterValidator(_is_sensible)] | None,
        Field(description="Null: not until somebody says so"),
    ]
    reason: ReasonText


class DiscardQuery(BaseModel):
    """Query of a discard."""

    model_config = ConfigDict(extra="forbid")

    reason: ReasonText


class LettersQuery(PageQuery):
    """Query of a list of dead letters."""

    state: State = "waiting"
    queue: ShortText | None = None
    message_name: ShortText | None = None


class DeadLetterAnswer(TypedDict):
    """A message that could not be handled."""

    id: Annotated[str, Field(examples=["dlt_17"])]
    state: State
    queue: str
    sender: str
    messageName: str
    payload: JsonValue
    reason: Annotated[str, Field(description="Why the last try failed")]
    storedAt: TimeText
    retryAt: Annotated[TimeText | None, Field(description="When it is handled again, if it is")]
    tries: Annotated[int, Field(description="Times it was handled again")]
    triedAt: TimeText | None
    isInHand: Annotated[bool, Field(description="Whether a worker handles it at this moment")]


class RetriedAnswer(TypedDict):
    """How many dead letters will be handled again."""

    count: int


def dead_letter_routes(core: Core, idempotency: IdempotencyKeys, base: str) -> list[Route]:
    """Return the routes under `base`/dead-letters, such as /api/payments/dead-letters."""
    letters = _DeadLetters(core, idempotency)
    path = f"{base}/dead-letters"
    one = f"{path}/{{dead_letter_id}}"
    answer = DeadLetterAnswer
    return [
        Route(
            "GET",
            path,
            letters.list_,
            Scope.ADMIN,
            query=LettersQuery,
            answer=PageOf("deadLetters", answer),
        ),
        Route(
            "POST",
            f"{path}/retry",
            letters.retry_all,
            Scope.ADMIN,
            body=RetryAllBody,
            answer=RetriedAnswer,
        ),
        Route("GET", one, letters.read, Scope.ADMIN, answer=answer),
        Route("POST", f"{one}/retry", letters.retry, Scope.ADMIN, body=ReasonBody, answer=answer),
        Route("PATCH", one, letters.move, Scope.ADMIN, body=MoveBody, answer=answer),
        Route("DELETE", one, letters.discard, Scope.ADMIN, query=DiscardQuery, answer=answer),
    ]


#: Changes a locked letter that waits.
_Change = Callable[[Connection, DeadLetter], Awaitable[None]]


class _DeadLetters:
    def __init__(self, core: Core, idempotency: IdempotencyKeys) -> None:
        self._core = core
        self._idempotency = idempotency

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List messages that could not be handled, the newest first."""
        query = parse_query(LettersQuery, request)
        before_id = number_of_cursor(PREFIX, query.cursor)
        async with self._core.database.connection() as connection:
            found = await dead_letters.list_letters(
                connection,
                state=query.state,
                queue=query.queue,
                message_name=query.message_name,
                before_id=before_id,
                limit=query.limit + 1,
            )
        page = query.page(
            "deadLetters", found, id_of=lambda each: numbered_id(PREFIX, each.id), render=render
        )
        return page.response()

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a message that could not be handled, whatever became of it."""
        async with self._core.database.connection() as connection:
            letter = await dead_letters.find_letter(connection, _number_in(request))
        if letter is None:
            raise _unknown(request)
        return Answer(render(letter)).response()

    async def retry(self, request: web.Request) -> web.StreamResponse:
        """Handle a message again, within about a second.

        When it fails again it is kept with the new reason; after an outage it is tried again by
        itself.
        """
        raw = await read_body(request)
        reason = parse(ReasonBody, raw).reason
        now = self._core.clock()

        async def change(connection: Connection, letter: DeadLetter) -> None:
            await dead_letters.move_letter(connection, letter.id, now)

        return await self._act(request, raw, "retry", reason, change)

    async def move(self, request: web.Request) -> web.StreamResponse:
        """Set when a message is handled again; null keeps it until somebody says so."""
        raw = await read_body(request)
        body = parse(MoveBody, raw)

        async def change(connection: Connection, letter: DeadLetter) -> None:
            await dead_letters.move_letter(connection, letter.id, body.retry_at)

        return await self._act(request, raw, "move", body.reason, change)

    async def discard(self, request: web.Request) -> web.StreamResponse:
        """Give a message up for good. It stays readable under `state=discarded`."""
        reason = parse_query(DiscardQuery, request).reason

        async def change(connection: Connection, letter: DeadLetter) -> None:
            await dead_letters.discard_letter(connection, letter.id)

        query = request.query_string.encode("utf-8", "surrogateescape")
        return await self._act(request, query, "discard", reason, change)

    async def retry_all(self, request: web.Request) -> web.StreamResponse:
        """Handle all waiting messages again that match, up to 10,000 at a time."""
        raw = await read_body(request)
        body = parse(RetryAllBody, raw)
        caller = request[CALLER]

        async def work(action_id: str) -> Answer:
            now = self._core.clock()
            async with self._core.database.transaction() as connection:
                done = await find_action(connection, action_id)
                if done is not None:
                    return Answer(done.after)
                ids = await dead_letters.retry_all(
                    connection, now, queue=body.queue, message_name=body.message_name
                )
                result: RetriedAnswer = {"count": len(ids)}
                filters = {"queue": body.queue, "messageName": body.message_name}
                action = OperatorAction(
                    id=action_id,
                    at=now,
                    actor=caller,
                    action="retry",
                    target="dead_letters",
                    reason=body.reason,
                    before=filters,
                    after=result,
                )
                await record_action(connection, action)
            return Answer(result)

        return await self._idempotency.run(request, raw, caller=caller, prefix=ID_PREFIX, work=work)

    async def _act(
        self, request: web.Request, raw: bytes, action: str, reason: str, change: _Change
    ) -> web.StreamResponse:
        """Change one waiting letter and record who did it, once per idempotency key."""
        number = _number_in(request)
        caller = request[CALLER]

        async def work(action_id: str) -> Answer:
            async with self._core.database.transaction() as connection:
                letter = await dead_letters.lock_letter(connection, number)
                if letter is None:
                    raise _unknown(request)
                if await find_action(connection, action_id) is None:
                    _require_free(letter)
                    await change(connection, letter)
                    after = await dead_letters.find_letter(connection, number)
                    assert after is not None, "it is locked"
                    record = OperatorAction(
                        id=action_id,
                        at=self._core.clock(),
                        actor=caller,
                        action=action,
                        target=f"dead_letter:{numbered_id(PREFIX, number)}",
                        reason=reason,
                        before=_recorded(letter),
                        after=_recorded(after),
                    )
                    await record_action(connection, record)
                    letter = after
            return Answer(render(letter))

        return await self._idempotency.run(request, raw, caller=caller, prefix=ID_PREFIX, work=work)


def _number_in(request: web.Request) -> int:
    return number_in(PREFIX, request.match_info["dead_letter_id"], "dead letter")


def _unknown(request: web.Request) -> NotFoundError:
    return NotFoundError(f"no dead letter has the id {request.match_info['dead_letter_id']!r}")


def _require_free(letter: DeadLetter) -> None:
    if letter.state != "waiting":
        raise ConflictError(f"the dead letter was {letter.state}", details={"state": letter.state})
    if letter.is_in_hand:
        raise ConflictError("the dead letter is being handled; ask again in a moment")


def _recorded(letter: DeadLetter) -> dict[str, Any]:
    """Return what a record of an action says of a letter: not what it holds."""
    return {
        "state": letter.state,
        "messageName": letter.message_name,
        "sender": letter.sender,
        "retryAt": time_text(letter.retry_at),
    }


def render(letter: DeadLetter) -> DeadLetterAnswer:
    """Return a dead letter as the API shows it."""
    return {
        "id": numbered_id(PREFIX, letter.id),
        "state": letter.state,
        "queue": letter.queue,
        "sender": letter.sender,
        "messageName": letter.message_name,
        "payload": _json(letter.payload),
        "reason": letter.reason,
        "storedAt": time_text(letter.stored_at),
        "retryAt": time_text(letter.retry_at),
        "tries": letter.tries,
        "triedAt": time_text(letter.tried_at),
        "isInHand": letter.is_in_hand,
    }


def _json(text: str) -> JsonValue:
    """Read a payload; one that is no JSON, put there by hand, is shown as its text."""
    try:
        value: JsonValue = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value
