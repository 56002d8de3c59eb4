"""OpenAPI 3.1, drawn from the routes: what they say of themselves, and what all of them share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from inspect import cleandoc
from types import MappingProxyType
from typing import Any, Final

from pydantic.alias_generators import to_camel

from shared.web.idempotency import KEY_LENGTH_MAX
from shared.web.openapi.answers import ERROR, name_of, refusal, refusals, success
from shared.web.openapi.references import SCHEMAS, Json, references_in, with_references
from shared.web.openapi.schemas import Schemas
from shared.web.routes import Route

VERSION: Final = "3.1.0"

_PARAMETER: Final = re.compile(r"{(\w+)}")

_DESCRIPTION: Final = """\
Every success is `{"success": true, "data": …}`, every error `{"success": false, "error": {"code",
"message", "details"}}`. Amounts are integers in minor units (cents, poisha), times RFC 3339 in UTC.

A write takes an `Idempotency-Key`: the same key and body give the first answer again, another body
409. Lists come in pages: the `nextCursor` of one is the `cursor` of the next, null on the last.

Keys are sent as `Authorization: Bearer <key>` and have the scopes `read`, `write` and `admin`;
each operation names the one it needs. Over the rate of a key the answer is 429 with `Retry-After`.
"""

#: What all documents share, beside the schemas of their bodies and answers.
_COMPONENTS: Final[Mapping[str, Json]] = MappingProxyType(
    {
        "securitySchemes": {
            "apiKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key; the scope that it needs stands beside each operation.",
            }
        },
        "parameters": {
            "IdempotencyKey": {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Makes the request repeatable: one effect, and the same answer.",
                "schema": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": KEY_LENGTH_MAX,
                    "pattern": "^[ -~]+$",
                },
                "example": "order-1",
            }
        },
        "headers": {
            "RequestId": {
                "description": "Finds the request in the logs.",
                "schema": {"type": "string"},
            },
            "RetryAfter": {
                "description": "Seconds after which the same request may be repeated.",
                "schema": {"type": "integer", "minimum": 0},
            },
            "IdempotentReplayed": {
                "description": "`true` when the answer was given before, to the same key.",
                "schema": {"type": "string", "const": "true"},
            },
        },
    }
)


def document(routes: Iterable[Any], *, title: str, version: str) -> Json:
    """Describe all routes that say what they answer; the others are left out.

    Raises:
        ValueError: two routes describe one operation, or name a parameter of one path differently.
    """
    described = [route for route in routes if isinstance(route, Route) and route.answer is not None]
    schemas = Schemas(described)
    names = Counter(map(_operation_id, described))
    paths: dict[str, Json] = {}
    shapes: dict[str, str] = {}
    for route in described:
        path = _PARAMETER.sub(lambda found: f"{{{to_camel(found[1])}}}", route.path)
        if shapes.setdefault(_PARAMETER.sub("{}", route.path), path) != path:
            raise ValueError(f"{path} has another name for a parameter than a route before it")
        operations = paths.setdefault(path, {})
        if route.method.lower() in operations:
            raise ValueError(f"{route.method} {path} is described twice")
        name = _operation_id(route)
        if names[name] > 1:
            name = re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_")
        operations[route.method.lower()] = {"operationId": name, **_operation(route, schemas)}
    refused = {name_of(kinds): kinds for one in described for kinds in refusals(one).values()}
    return _with_short_names(
        {
            "openapi": VERSION,
            "info": {"title": title, "version": version, "description": _DESCRIPTION},
            "servers": [{"url": "/"}],
            "tags": [{"name": name} for name in sorted({tag_of(route) for route in described})],
            "paths": dict(sorted(paths.items())),
            "components": {
                "schemas": schemas.definitions | {"Error": dict(ERROR)},
                "responses": {name: refusal(refused[name]) for name in sorted(refused)},
                **_COMPONENTS,
            },
        }
    )


def _with_short_names(document: Json) -> Json:
    """Leave out types that nothing refers to, and shorten the names of those that share theirs.

    pydantic tells types of one name apart by their modules: `services__payments__routes__Twin`
    becomes `payments.Twin`, unless that is another one's, too.
    """
    schemas = document["components"]["schemas"]
    used = _reachable(document)
    short = {name: _short(name) for name in used}
    shared = Counter(short.values())
    new = {name: each if shared[each] == 1 else name for name, each in short.items()}
    document["components"]["schemas"] = {new[name]: schemas[name] for name in sorted(used)}
    exchanged: Json = with_references(
        document, {f"{SCHEMAS}{name}": f"{SCHEMAS}{each}" for name, each in new.items()}
    )
    return exchanged


def _short(name: str) -> str:
    package, *modules = name.split("__")
    return f"{modules[0]}.{modules[-1]}" if len(modules) > 1 else package


def _reachable(document: Json) -> set[str]:
    """Return the names of the types that operations refer to, by however many steps."""
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    reached = references_in({**document, "components": document["components"]["responses"]})
    while reached:
        names = {each.removeprefix(SCHEMAS) for each in reached if each.startswith(SCHEMAS)}
        reached = references_in([schemas[name] for name in names - found])
        found |= names
        reached = {each for each in reached if each.removeprefix(SCHEMAS) not in found}
    return found


def tag_of(route: Route) -> str:
    """Return the subject of a route: its module in a package `routes`, else the whole service."""
    names = str(_function(route).__module__).split(".")
    name = names[-1].removesuffix("_routes")
    if names[0] == "services" and names[-2] != "routes":
        name = names[1]
    return name.replace("_", " ")


def _operation_id(route: Route) -> str:
    """Return the name of an operation; of one that several services have, with the place."""
    function = _function(route)
    name = f"{tag_of(route).replace(' ', '_')}.{function.__name__.strip('_')}"
    if str(function.__module__).startswith("services."):
        return name
    place = route.path.removeprefix("/api").split("/")[1]
    return name if place in name else f"{place}.{name}"


def _function(route: Route) -> Any:
    handler: Any = route.handler
    while isinstance(handler, partial):
        handler = handler.func
    return handler


def _operation(route: Route, schemas: Schemas) -> Json:
    function = _function(route)
    summary, _, description = cleandoc(function.__doc__ or "").partition("\n\n")
    tag = tag_of(route)
    operation: Json = {
        "tags": [tag],
        "summary": " ".join(summary.split()).rstrip("."),
    }
    if description:
        operation["description"] = description
    operation["parameters"] = [
        *_path_parameters(route, schemas),
        *_query_parameters(route, schemas),
    ]
    if route.is_write:
        operation["parameters"].append({"$ref": "#/components/parameters/IdempotencyKey"})
    if route.body is not None:
        schema = schemas.of(route.body, "validation")
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    operation["responses"] = {
        **{
            str(status): success(status, answer, schemas, may_be_replayed=route.is_write)
            for status, answer in {route.status: route.answer, **route.other_answers}.items()
        },
        **{
            str(status): {"$ref": f"#/components/responses/{name_of(kinds)}"}
            for status, kinds in refusals(route).items()
        },
    }
    operation["security"] = [] if route.scope is None else [{"apiKey": [route.scope.value]}]
    return operation


def _path_parameters(route: Route, schemas: Schemas) -> Iterable[Json]:
    for name in _PARAMETER.findall(route.path):
        schema: Json = {"type": "string", "minLength": 1}
        if name in route.parameters:
            schema = dict(schemas.of(route.parameters[name], "validation"))
        yield {"name": to_camel(name), "in": "path", "required": True} | _described(schema)


def _query_parameters(route: Route, schemas: Schemas) -> Iterable[Json]:
    if route.query is None:
        return
    model = schemas.resolved(schemas.of(route.query, "validation"))
    for name, schema in model.get("properties", {}).items():
        required = name in model.get("required", ())
        yield {"name": name, "in": "query", "required": required} | _described(_given(schema))


def _given(schema: Json) -> Json:
    """Return the schema of a value that is given: what is left out of a query is not null."""
    choices: list[Json] = [
        choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}
    ]
    rest = {
        name: value
        for name, value in schema.items()
        if name != "anyOf" and (name, value) != ("default", None)
    }
    match choices:
        case []:
            return rest
        case [only]:
            return rest | only
        case _:
            return rest | {"anyOf": choices}


def _described(schema: Json) -> Json:
    """Move the words about a parameter from its schema to where readers look for them."""
    rest = dict(schema)
    description = rest.pop("description", None)
    return {"schema": rest} if description is None else {"schema": rest, "description": description}
