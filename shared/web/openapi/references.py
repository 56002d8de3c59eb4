"""References inside a document: where they lead, which there are, and how they are exchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

#: Where a reference to a schema leads.
SCHEMAS: Final = "#/components/schemas/"


def definition(document: Json, reference: str) -> Json:
    """Return the part of a document that a reference (`#/components/…`) leads to."""
    found: Any = document
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    assert isinstance(found, dict), "references lead to objects"
    return found


def references_in(value: Any) -> set[str]:
    """Return all references in a part of a document."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(references_in, value))
    return set()


def with_references(value: Any, new: Mapping[str, str]) -> Any:
    """Return a part of a document with some references put in place of others."""
    if isinstance(value, dict):
        return {
            name: new.get(each, each)
            if name == "$ref" and isinstance(each, str)
            else with_references(each, new)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [with_references(each, new) for each in value]
    return value
