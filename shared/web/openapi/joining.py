"""One document of several, for the address behind which several processes answer."""

from __future__ import annotations

from collections.abc import Mapping

from shared.web.openapi.references import SCHEMAS, Json, references_in, with_references


def joined(documents: Mapping[str, Json]) -> Json:
    """Join the documents of services, by their names; there is at least one.

    A path that several have (`/health`) is described once. Of two types with one name and different
    shape the second gets its service's name before its own.
    """
    (_, first), *others = documents.items()
    whole: Json = {
        **first,
        "paths": dict(first["paths"]),
        "components": {kind: dict(each) for kind, each in first["components"].items()},
    }
    tags = {tag["name"] for tag in first["tags"]}
    for service, document in others:
        added = _renamed(document, service, _clashes(whole, document))
        for path, methods in added["paths"].items():
            whole["paths"][path] = methods | whole["paths"].get(path, {})
        for kind, components in added["components"].items():
            whole["components"][kind] = components | whole["components"].get(kind, {})
        tags |= {tag["name"] for tag in added["tags"]}
    whole["paths"] = dict(sorted(whole["paths"].items()))
    whole["tags"] = [{"name": name} for name in sorted(tags)]
    return whole


def _clashes(whole: Json, document: Json) -> set[str]:
    """Return the names of types that mean something else in `whole`, or refer to one that does."""
    known, new = whole["components"]["schemas"], document["components"]["schemas"]
    clashes = {name for name in new if name in known and new[name] != known[name]}
    while True:
        more = {
            name
            for name in new.keys() & known.keys()
            if references_in(new[name]) & {f"{SCHEMAS}{clash}" for clash in clashes}
        }
        if more <= clashes:
            return clashes
        clashes |= more


def _renamed(document: Json, service: str, names: set[str]) -> Json:
    new_names = {f"{SCHEMAS}{name}": f"{SCHEMAS}{service}.{name}" for name in names}
    renamed: Json = with_references(document, new_names)
    schemas = renamed["components"]["schemas"]
    for name in names:
        schemas[f"{service}.{name}"] = schemas.pop(name)
    return renamed
