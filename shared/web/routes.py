"""Routes, requests and answers, in the one shape that every service uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeAlias, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from shared.errors import InvalidInputError, SluiceError, TooLargeError

#: Largest body of an API request; a payment with its metadata is far below.
BODY_BYTES_MAX: Final = 64 * 1024

#: A refusal names this many fields at most, and cuts their names: the sender chose them.
FIELDS_NAMED_MAX: Final = 20
FIELD_NAME_LENGTH_MAX: Final = 200


_WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Scope(StrEnum):
    """What an API key may do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class PageOf:
    """Says that an answer is a page (`shared.web.pages`): items under `name`, and `nextCursor`."""

    name: str
    item: Any


@dataclass(frozen=True, slots=True)
class Bare:
    """Says that an answer is JSON of this type, without the envelope."""

    body: Any


@dataclass(frozen=True, slots=True)
class Text:
    """Says that an answer is text of this kind; None: there is no body."""

    content_type: str | None = "text/plain"


#: What a successful answer holds: the type of `data` in the envelope (a TypedDict, say, or NoneType
#: where it is null), or what one of the three classes above says.
AnswerType: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP route; without a scope it needs no key.

    What stands after the scope is what `/openapi.json` says of it (`shared.web.openapi`), beside
    the docstring of the handler, whose first line is its summary. Nothing of it is read when a
    request comes. A route without `answer` is not described there at all.
    """

    method: str
    path: str
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    scope: Scope | None = None
    _: KW_ONLY
    answer: AnswerType = None
    status: int = 200
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    #: Refusals beyond those of every route of this shape: 400 with a body, a query or an
    #: idempotency key; 401, 403, 429 and 503 with a scope; 404 with a parameter in the path;
    #: 409 for writes, 413 with a body.
    errors: tuple[type[SluiceError], ...] = ()
    #: Types of parameters in the path that are more than text, by the name in the path.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Further successful answers by their status.
    other_answers: Mapping[int, AnswerType] = field(default_factory=dict)

    @property
    def is_write(self) -> bool:
        """Whether it changes something for a caller, and so takes an `Idempotency-Key`."""
        return self.scope is not None and self.method in _WRITES


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A POST that needs no key, at a path without parameters, answered by headers and body alone.

    `handler` returns the text of a 200. A request that arrives whole is answered without aiohttp
    (`shared.web.direct`), any other by `handle`.
    """

    path: str
    handler: Callable[[Mapping[str, str], bytes], Awaitable[bytes]]
    body_bytes_max: int

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request of aiohttp's."""
        body = await read_body(request, self.body_bytes_max)
        text = await self.handler(request.headers, body)
        return web.Response(body=text, content_type="text/plain")


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer before it is put into the envelope."""

    data: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the JSON body with its envelope."""
        return orjson.dumps({"success": True, "data": self.data})

    def response(self) -> web.Response:
        """Return the HTTP answer."""
        return json_response(self.body(), status=self.status, headers=self.headers)


def json_response(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a JSON answer from its bytes."""
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def read_body(request: web.Request, limit: int = BODY_BYTES_MAX) -> bytes:
    """Read the raw body once.

    Raises:
        InvalidInputError: it is cut short or not encoded as it says.
        TooLargeError: it is longer than `limit` bytes; the rest is not read.
    """
    try:
        body, length = await _read_up_to(request, limit)
    except web.RequestPayloadError:
        raise InvalidInputError("the body is not what its headers say") from None
    if length > limit:
        raise TooLargeError(f"the body is over {limit} bytes")
    return body


async def _read_up_to(request: web.Request, limit: int) -> tuple[bytes, int]:
    length = request.content_length
    if length is not None:
        return await request.read() if length <= limit else b"", length
    body = b""
    while len(body) <= limit and not request.content.at_eof():
        body += await request.content.read(limit + 1 - len(body))
    return body, len(body)


B = TypeVar("B", bound=BaseModel)


def parse(model: type[B], body: bytes) -> B:
    """Read a JSON body.

    Raises:
        InvalidInputError: its details name each field and what is wrong with it.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error, "the body") from None


def parse_query(model: type[B], request: web.Request) -> B:
    """Read the query string; a parameter may be given once.

    Raises:
        InvalidInputError: its details name each parameter and what is wrong with it.
    """
    repeated = sorted({name for name in request.query if len(request.query.getall(name)) > 1})
    if repeated:
        raise InvalidInputError(
            "a query parameter is given twice", details=dict.fromkeys(repeated, "given twice")
        )
    try:
        return model.model_validate(dict(request.query))
    except ValidationError as error:
        raise invalid(error, "the query") from None


def invalid(error: ValidationError, what: str) -> InvalidInputError:
    """Turn pydantic's error into ours; the values themselves are not repeated."""
    items = error.errors(include_url=False, include_input=False, include_context=False)
    details = {
        ".".join(str(part) for part in item["loc"])[:FIELD_NAME_LENGTH_MAX] or "body": item["msg"]
        for item in items[:FIELDS_NAMED_MAX]
    }
    problems = "; ".join(f"{name}: {problem}" for name, problem in details.items())
    return InvalidInputError(f"{what} is not right: {problems}", details=details)
