"""What a document says of answers: the envelope, refusals by status, headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from inspect import cleandoc
from types import MappingProxyType
from typing import Any, Final

from shared.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyConflictError,
    InvalidInputError,
    NotFoundError,
    SluiceError,
    TooLargeError,
    TooManyRequestsError,
    TransientError,
    UnauthorizedError,
)
from shared.web.errors import status_of_kind
from shared.web.idempotency import KeyInUseError
from shared.web.openapi.references import SCHEMAS, Json
from shared.web.openapi.schemas import Schemas
from shared.web.routes import AnswerType, Bare, PageOf, Route, Text

#: Where the errors below say that a request may be repeated, `Retry-After` says when.
_REPEATABLE: Final = (TransientError, TooManyRequestsError, KeyInUseError)

ERROR: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "type": "object",
        "description": "Why a request was refused. `code` is what a program should look at.",
        "required": ["success", "error"],
        "properties": {
            "success": {"type": "boolean", "const": False},
            "error": {
                "type": "object",
                "required": ["code", "message", "details"],
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "details": {
                        "type": "object",
                        "description": "By field, what is wrong with it; or ids that help.",
                    },
                },
            },
        },
    }
)


def success(status: int, answer: AnswerType, schemas: Schemas, *, may_be_replayed: bool) -> Json:
    """Describe a successful answer."""
    description = HTTPStatus(status).phrase
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    match answer:
        case Text(content_type=None):
            return {"description": description, "headers": headers}
        case Text(content_type=str(content_type)):
            content = {content_type: {"schema": {"type": "string"}}}
            return {"description": description, "headers": headers, "content": content}
        case Bare(body=type_):
            schema = schemas.of(type_, "serialization")
        case PageOf(name=name, item=item):
            items = {"type": "array", "items": schemas.of(item, "serialization")}
            page = {name: items, "nextCursor": {"type": ["string", "null"]}}
            schema = _envelope({"type": "object", "required": list(page), "properties": page})
        case type_:
            schema = _envelope(schemas.of(type_, "serialization"))
    if may_be_replayed:
        headers["Idempotent-Replayed"] = {"$ref": "#/components/headers/IdempotentReplayed"}
    return {
        "description": description,
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def _envelope(data: Json) -> Json:
    return {
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"type": "boolean", "const": True}, "data": data},
    }


def refusals(route: Route) -> dict[int, tuple[type[SluiceError], ...]]:
    """Return what a route may refuse, by status: each code once."""
    kinds: list[type[SluiceError]] = []
    if route.body is not None or route.query is not None or route.is_write:
        kinds.append(InvalidInputError)
    if route.scope is not None:
        kinds += (UnauthorizedError, ForbiddenError, TooManyRequestsError, TransientError)
    if "{" in route.path:
        kinds.append(NotFoundError)
    if route.is_write:
        kinds += (ConflictError, IdempotencyConflictError, KeyInUseError)
    if route.body is not None:
        kinds.append(TooLargeError)
    by_code: dict[str, type[SluiceError]] = {}
    for kind in (*kinds, *route.errors):
        by_code.setdefault(kind.code, kind)
    by_status: dict[int, tuple[type[SluiceError], ...]] = {}
    for kind in by_code.values():
        status = status_of_kind(kind)
        by_status[status] = (*by_status.get(status, ()), kind)
    return dict(sorted(by_status.items()))


def name_of(kinds: Sequence[type[SluiceError]]) -> str:
    """Return the name under which a document keeps `refusal`: the same for the same refusals."""
    return "-".join(kind.code for kind in kinds)


def refusal(kinds: Sequence[type[SluiceError]]) -> Json:
    """Describe the refusals of one status."""
    headers = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if any(issubclass(kind, _REPEATABLE) for kind in kinds):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return {
        "description": "\n\n".join(f"`{kind.code}`: {_meaning(kind)}" for kind in kinds),
        "headers": headers,
        "content": {"application/json": {"schema": {"$ref": f"{SCHEMAS}Error"}}},
    }


def _meaning(kind: type[SluiceError]) -> str:
    return cleandoc(kind.__doc__ or "").partition("\n\n")[0]
