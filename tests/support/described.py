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


class Description:
    """What the routes of one application say of their answers."""

    def __init__(self, routes: Sequence[Any]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]

    def check(
        self, method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Fail unless an answer has a status, a type and a shape that are documented for it.

        A 500 never is. What is not an operation of ours (405, 404 of a path of nobody) is not
        checked, and neither are operations that are not described.
        """
        bare = path.partition("?")[0]
        operation = self._document.find(method, bare)
        if operation is None:
            return
        where = f"{method} {bare} -> {status}"
        assert str(status) in operation["responses"], f"{where} is not documented: {body[:500]!r}"
        response = self._document.resolved(operation["responses"][str(status)])
        content_type = headers.get("Content-Type", "").partition(";")[0]
        content = response.get("content")
        if content is None:
            assert not body, f"{where} has a body"
            return
        assert content_type in content, f"{where} has the undocumented type {content_type}"
        if content_type == "application/json":
            validator = self._document.validator(content[content_type]["schema"])
            problems = [
                f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
                for error in validator.iter_errors(orjson.loads(body))
            ]
            assert not problems, f"{where} is not as documented: {problems}"

    @cached_property
    def _document(self) -> _Document:
        key = repr(
            [
                (route.method, route.path, route.answer, route.handler)
                for route in self._routes
                if route.answer is not None
            ]
        )
        names = re.sub(r" at 0x[0-9a-f]+", "", key)
        if names not in _documents:
            _documents[names] = _Document(described(self._routes))
        return _documents[names]


class _Document:
    """A document, with every object closed: a field that nobody documented is found."""

    def __init__(self, document: Json) -> None:
        self._whole: Json = _closed(document)
        self._validators: dict[int, Any] = {}
        # Those without parameters first, as the application chooses them first.
        self._operations: list[tuple[str, re.Pattern[str], Json]] = [
            (method.upper(), re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), operation)
            for path, methods in sorted(
                self._whole["paths"].items(), key=lambda item: ("{" in item[0], -len(item[0]))
            )
            for method, operation in methods.items()
        ]

    def find(self, method: str, path: str) -> Json | None:
        """Return the operation that answers, if it is described."""
        for its_method, pattern, operation in self._operations:
            if its_method == method and pattern.fullmatch(path):
                return operation
        return None

    def resolved(self, thing: Json) -> Json:
        return definition(self._whole, thing["$ref"]) if "$ref" in thing else thing

    def validator(self, schema: Json) -> Any:
        """Return the one validator of a schema of this document."""
        if id(schema) not in self._validators:
            rooted = {**schema, "components": self._whole["components"]}
            self._validators[id(schema)] = Draft202012Validator(rooted)
        return self._validators[id(schema)]


#: By what they describe: tests open the same routes again and again.
_documents: dict[str, _Document] = {}


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed
