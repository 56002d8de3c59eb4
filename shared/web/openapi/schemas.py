"""The schemas of a document: one for each type, made together by pydantic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from shared.web.openapi.references import SCHEMAS, Json
from shared.web.routes import Bare, PageOf, Route, Text


class _Untitled(GenerateJsonSchema):
    """Leaves out titles: pydantic would make them from the names, and say nothing new."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class Schemas:
    """The schemas of all bodies, queries, parameters and answers, made together.

    So that a type has one name wherever it occurs, and two types of one name have two.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        inputs: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {}
        for route in routes:
            inputs |= {(_key(type_), mode): TypeAdapter(type_) for type_, mode in _types_of(route)}
        made, defined = TypeAdapter.json_schemas(
            [(key, mode, adapter) for (key, mode), adapter in inputs.items()],
            ref_template=f"{SCHEMAS}{{model}}",
            schema_generator=_Untitled,
        )
        self._made = made
        self.definitions: Json = {
            name: _without_title(schema) for name, schema in defined.get("$defs", {}).items()
        }

    def of(self, type_: Any, mode: JsonSchemaMode) -> Json:
        """Return the schema of a type, often only a reference to its definition."""
        return _without_title(self._made[_key(type_), mode])

    def resolved(self, schema: Json) -> Json:
        """Return what a reference refers to, or the schema itself."""
        reference = schema.get("$ref")
        if reference is None:
            return schema
        found: Json = self.definitions[reference.removeprefix(SCHEMAS)]
        return found


def _key(type_: Any) -> str:
    """Return what tells types apart; two annotations that look the same are the same."""
    return f"{id(type_)}" if isinstance(type_, type) else repr(type_)


def _without_title(schema: Json) -> Json:
    return {name: value for name, value in schema.items() if name != "title"}


def _types_of(route: Route) -> Iterable[tuple[Any, JsonSchemaMode]]:
    if route.body is not None:
        yield route.body, "validation"
    if route.query is not None:
        yield route.query, "validation"
    for parameter in route.parameters.values():
        yield parameter, "validation"
    for answer in (route.answer, *route.other_answers.values()):
        match answer:
            case PageOf(item=type_) | Bare(body=type_):
                yield type_, "serialization"
            case Text():
                pass
            case _:
                yield answer, "serialization"
