"""What operators do by hand, over HTTP: carried out with a reason, and listed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints
from typing_extensions import TypedDict

from shared.database import Database
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_actions import ID_PREFIX, Instruction, OperatorAction, list_actions
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse_query

#: Why an operator does something: printable, and something to be seen.
ReasonText = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=500,
        pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$",
    ),
    Field(description="Why; it is recorded with who and when", examples=["bank is down"]),
]


class ReasonBody(Body):
    """The body of an action that needs nothing but its reason."""

    reason: ReasonText


class ReasonQuery(BaseModel):
    """The query of an action whose request has no body."""

    model_config = ConfigDict(extra="forbid")

    reason: ReasonText


async def carry_out(
    request: web.Request,
    idempotency: IdempotencyKeys,
    body: bytes,
    reason: str,
    work: Callable[[Instruction], Awaitable[Answer]],
) -> web.StreamResponse:
    """Answer a request for an action; `work` does it and records it under the instruction's id.

    Args:
        request: From a route with a scope.
        idempotency: Keeps the answer.
        body: What tells this request from others with its path.
        reason: The operator's.
        work: Called again with the same id when a request was cut off: what is recorded under the
            id by then is done.
    """
    caller = request[CALLER]

    async def instructed(action_id: str) -> Answer:
        return await work(Instruction(action_id, caller, reason))

    return await idempotency.run(request, body, caller=caller, prefix=ID_PREFIX, work=instructed)


class ActionsQuery(PageQuery):
    """Query of a list of actions."""

    target: ShortText | None = None
    action: ShortText | None = None
    actor: ShortText | None = None


class ActionAnswer(TypedDict):
    """One thing that an operator did."""

    id: Annotated[str, Field(examples=["act_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    at: TimeText
    actor: Annotated[str, Field(description="The name of the API key")]
    action: Annotated[str, Field(examples=["pause"])]
    target: Annotated[str, Field(examples=["gateway:stripe"])]
    reason: str
    before: JsonValue
    after: JsonValue


def action_routes(database: Database, path: str) -> list[Route]:
    """Return the route that lists the actions of a service at `path`."""

    async def list_(request: web.Request) -> web.StreamResponse:
        """List what operators did, the latest first: who, when, why, and from what to what."""
        query = parse_query(ActionsQuery, request)
        query.require_cursor_of(ID_PREFIX)
        async with database.connection() as connection:
            actions = await list_actions(
                connection,
                target=query.target,
                action=query.action,
                actor=query.actor,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        page = query.page("actions", actions, id_of=lambda action: action.id, render=render)
        return page.response()

    return [
        Route(
            "GET",
            path,
            list_,
            Scope.ADMIN,
            query=ActionsQuery,
            answer=PageOf("actions", ActionAnswer),
        )
    ]


def render(action: OperatorAction) -> ActionAnswer:
    """Return an action as the API shows it."""
    return {
        "id": action.id,
        "at": time_text(action.at),
        "actor": action.actor,
        "action": action.action,
        "target": action.target,
        "reason": action.reason,
        "before": action.before,
        "after": action.after,
    }
