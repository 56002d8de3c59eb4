"""The page at `/docs`: a document as HTML that loads nothing else, and runs no script."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from html import escape
from typing import Final

from shared.web.openapi.examples import example_of
from shared.web.openapi.references import Json, definition

_CODE: Final = re.compile(r"`([^`]+)`")

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 0 1rem 4rem;
       color: #1c2430; background: #fff }
code, pre { font: 13px/1.45 ui-monospace, monospace }
code { background: #eef1f5; border-radius: 3px; padding: 0 .25em }
pre { background: #1c2430; color: #e6ebf2; padding: .8em 1em; border-radius: 6px; overflow-x: auto }
table { border-collapse: collapse; width: 100%; margin: .4em 0 }
td, th { text-align: left; vertical-align: top; border-top: 1px solid #dde3ea;
         padding: .3em .8em .3em 0 }
details { border: 1px solid #dde3ea; border-radius: 6px; margin: .5em 0; padding: .4em .8em }
summary { cursor: pointer }
h2 { margin-top: 2em; text-transform: capitalize } h4 { margin: 1em 0 .2em }
nav a { margin-right: .9em; white-space: nowrap }
.method { display: inline-block; min-width: 4.2em; font-weight: 700 }
.get { color: #0b6bcb } .post { color: #1a7f37 } .put, .patch { color: #9a6700 }
.delete { color: #c0362c }
.quiet { color: #5b6777 }
@media (prefers-color-scheme: dark) {
  body { color: #dfe6ee; background: #12171e } code { background: #232c38 } a { color: #7db7ff }
  td, th, details { border-color: #2c3745 } .quiet { color: #98a5b5 }
}
"""

#: Nothing is loaded from anywhere, so nothing may be.
CONTENT_SECURITY_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(document: Json) -> str:
    """Return the page of a document."""
    info = document["info"]
    tags = [tag["name"] for tag in document["tags"]]
    links = [f'<a href="#{_anchor(tag)}">{escape(tag)}</a>' for tag in [*tags, "types"]]
    sections = [_section(document, tag) for tag in tags]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{title}</h1>{_paragraphs(info['description'])}"
        '<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
        f"<nav>{''.join(links)}</nav>{''.join(sections)}{_types(document)}</body></html>\n"
    )


def _section(document: Json, tag: str) -> str:
    operations = [
        _operation(document, method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]
    return f'<h2 id="{_anchor(tag)}">{escape(tag)}</h2>{"".join(operations)}'


def _operation(document: Json, method: str, path: str, operation: Json) -> str:
    scopes = [scope for need in operation["security"] for scope in need.get("apiKey", ())]
    needs = f"scope <code>{escape(scopes[0])}</code>" if scopes else "no key"
    return (
        f'<details id="{escape(operation["operationId"])}"><summary>'
        f'<span class="method {escape(method)}">{escape(method.upper())}</span> '
        f"<code>{escape(path)}</code> {_words(operation['summary'])} "
        f'<span class="quiet">({needs})</span></summary>'
        f"{_paragraphs(operation.get('description', ''))}"
        f"{_parameters(document, operation)}{_body(operation)}"
        f"<h4>Example</h4><pre>{escape(_command(document, method, path, operation))}</pre>"
        f"{_answers(document, operation)}</details>"
    )


def _parameters(document: Json, operation: Json) -> str:
    found = [_resolved(document, parameter) for parameter in operation["parameters"]]
    if not found:
        return ""
    rows = [
        (
            f"<code>{escape(one['name'])}</code>",
            one["in"] + ("" if one.get("required") else ", optional"),
            _type(one["schema"]),
            _words(one.get("description", "")) + _default(one["schema"]),
        )
        for one in found
    ]
    return f"<h4>Parameters</h4>{_table(rows)}"


def _body(operation: Json) -> str:
    if "requestBody" not in operation:
        return ""
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return f"<h4>Body</h4><p>{_type(schema)}</p>"


def _answers(document: Json, operation: Json) -> str:
    rows = []
    for status, answer in operation["responses"].items():
        response = _resolved(document, answer)
        types = [
            _type(_inner(content["schema"])) for content in response.get("content", {}).values()
        ]
        words = _words(response["description"]).replace("\n\n", "<br>")
        rows.append((escape(status), words, " or ".join(types)))
    return f"<h4>Answers</h4>{_table(rows)}"


def _inner(schema: Json) -> Json:
    """Return what the envelope carries: every success has it, and the page says so once."""
    properties = schema.get("properties", {})
    inner: Json = properties["data"] if set(properties) == {"success", "data"} else schema
    return inner


def _command(document: Json, method: str, path: str, operation: Json) -> str:
    lines = [f"curl -s {'' if method == 'get' else f'-X {method.upper()} '}$URL{path}"]
    if operation["security"]:
        lines.append('-H "Authorization: Bearer $KEY"')
    names = [_resolved(document, parameter)["name"] for parameter in operation["parameters"]]
    if "Idempotency-Key" in names:
        lines.append("-H 'Idempotency-Key: order-1'")
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        lines.append("-H 'Content-Type: application/json'")
        example = json.dumps(example_of(document, schema), ensure_ascii=False)
        lines.append(f"-d {shlex.quote(example)}")
    return " \\\n  ".join(lines)


def _types(document: Json) -> str:
    parts = []
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(
            f'<details id="type-{escape(name)}" open><summary><code>{escape(name)}</code> '
            f"{_words(schema.get('description', ''))}</summary>{_type(schema)}</details>"
        )
    return f'<h2 id="types">types</h2>{"".join(parts)}'


def _type(schema: Json) -> str:  # noqa: PLR0911 - a case a keyword
    """Write a schema as words, with a table where it has fields and links where it has a name."""
    match schema:
        case {"$ref": str(reference)}:
            name = escape(reference.rpartition("/")[2])
            return f'<a href="#type-{name}">{name}</a>'
        case {"const": value}:
            return f"<code>{escape(json.dumps(value))}</code>"
        case {"enum": values}:
            return " | ".join(f"<code>{escape(str(value))}</code>" for value in values)
        case {"anyOf": choices} | {"oneOf": choices}:
            return " or ".join(_type(choice) for choice in choices)
        case {"type": "array"}:
            return f"list of {_type(schema.get('items', {}))}"
        case {"properties": properties}:
            required = schema.get("required", ())
            return _table(
                _field(name, each, is_required=name in required)
                for name, each in properties.items()
            )
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"object, each value: {_type(values)}"
        case {"type": list(names)}:
            return " or ".join(escape(name) for name in names)
        case {"type": str(name)}:
            return escape(name) + _limits(schema)
        case _:
            return "anything"


def _field(name: str, schema: Json, *, is_required: bool) -> tuple[str, ...]:
    label = f"<code>{escape(name)}</code>"
    notes = _words(schema.get("description", "")) + _default(schema)
    return (label if is_required else f"{label}, optional", _type(schema), notes)


#: Keywords that narrow a type, and how a person says them.
_LIMITS: Final[Mapping[str, str]] = {
    "format": "{}",
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "pattern": "like {}",
}


def _limits(schema: Json) -> str:
    limits = [words.format(schema[name]) for name, words in _LIMITS.items() if name in schema]
    if "maxLength" in schema:
        limits.insert(0, f"{schema.get('minLength', 0)} to {schema['maxLength']} characters")
    return f' <span class="quiet">{escape(", ".join(limits))}</span>' if limits else ""


def _default(schema: Json) -> str:
    if schema.get("default") is None:
        return ""
    return f' <span class="quiet">default {escape(json.dumps(schema["default"]))}</span>'


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _resolved(document: Json, thing: Json) -> Json:
    return definition(document, thing["$ref"]) if "$ref" in thing else thing


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_words(part)}</p>" for part in text.split("\n\n") if part.strip())


def _words(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))


def _anchor(tag: str) -> str:
    return "section-" + re.sub(r"\W+", "-", tag) if tag != "types" else tag
