"""Examples: the one that a schema gives, or one made of what it requires."""

from __future__ import annotations

from typing import Any

from shared.web.openapi.references import Json, definition


def example_of(document: Json, schema: Json) -> Any:  # noqa: C901, PLR0911 - a case a keyword
    """Return a value of a schema, for people to read; patterns are not followed."""
    match schema:
        case {"$ref": str(reference)}:
            return example_of(document, definition(document, reference))
        case {"examples": [first, *_]}:
            return first
        case {"const": value} | {"enum": [value, *_]}:
            return value
        case {"default": value} if value is not None:
            return value
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]}:
            return example_of(document, first)
        case {"type": "array"}:
            return [example_of(document, schema["items"])] if "items" in schema else []
        case {"type": "object"}:
            properties = schema.get("properties", {})
            return {
                name: example_of(document, properties[name]) for name in schema.get("required", ())
            }
        case {"type": "integer" | "number"}:
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case {"type": "boolean"}:
            return False
        case {"type": "string", "format": "date-time"}:
            return "2026-01-31T12:00:00Z"
        case {"type": "string"}:
            return "text"
        case _:
            return None
