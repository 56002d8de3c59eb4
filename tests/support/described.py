"""Answers as they are described: what a test gets must be what `/openapi.json` says it gets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import orjson
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from shared.web.openapi.references import Json, definition
from shared.web.openapi.routes import described
from shared.web.routes import Route

#: Documents by what they describe: tests open the same routes again and again.
_documents: dict[Any, Json] = {}


class Description:
    """What the routes of one application say of their answers."""

    def __init__(self, routes: Sequence[Any]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]

    @cached_property
    def document(self) -> Json:
        key = tuple(
            (route.method, route.path, repr(route.answer), str(route.handler))
            for route in self._routes
            if route.answer is not None
        )
        names = re.sub(r" at 0x[0-9a-f]+", "", repr(key))
        if names not in _documents:
            _documents[names] = described(self._routes)
        return _documents[names]

    @cached_property
    def _operations(self) -> list[tuple[str, re.Pattern[str], Json]]:
        """All operations; those without parameters first, as they are chosen first."""
        return [
            (method.upper(), re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operation)
            for path, methods in sorted(
                self.document["paths"].items(), key=lambda item: ("{" in item[0], -len(item[0]))
            )
            for method, operation in methods.items()
        ]

    def check(
        self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Fail unless an answer has a status, a type and a shape that are documented for it.

        A 500 never is. What is not an operation of ours (405, 404 of a path of nobody) is not
        checked, and neither are operations that are not described.
        """
        bare = path.partition("?")[0]
        operation = next(
            (
                found
                for by, pattern, found in self._operations
                if by == method and pattern.fullmatch(bare)
            ),
            None,
        )
        if operation is None:
            return
        where = f"{method} {bare} -> {status}"
        assert str(status) in operation["responses"], f"{where} is not documented: {body[:500]!r}"
        response = self._resolved(operation["responses"][str(status)])
        content_type = headers.get("Content-Type", "").partition(";")[0]
        content = response.get("content")
        if content is None:
            assert not body, f"{where} has a body"
            return
        assert content_type in content, f"{where} has the undocumented type {content_type}"
        if content_type == "application/json":
            schema = _closed(content[content_type]["schema"])
            components = _closed(self.document["components"])
            validator = Draft202012Validator({**schema, "components": components})
            problems = [
                f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
                for error in validator.iter_errors(orjson.loads(body))
            ]
            assert not problems, f"{where} is not as documented: {problems}"

    def _resolved(self, thing: Json) -> Json:
        return definition(self.document, thing["$ref"]) if "$ref" in thing else thing


def _closed(schema: Any) -> Any:
    """Return the schema with every object closed: a field that nobody documented is found."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
