"""The search language, as far as it goes here: clauses joined by AND. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from services.simulator.stripe.errors import ApiError, bad_request

_TEXT: Final = r"""(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')"""
_CLAUSE: Final = re.compile(
    rf"""\s*(?:metadata\[\s*{_TEXT}\s*\]|(customer|status))\s*:\s*{_TEXT}\s*""", re.DOTALL
)
_AND: Final = re.compile(r"AND\s", re.IGNORECASE)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)

QUERY_LENGTH_MAX: Final = 5000


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for; every part must match."""

    metadata: dict[str, str] = field(default_factory=dict)
    customer: str | None = None
    status: str | None = None


def parse_query(text: str) -> Query:
    """Read `metadata["reference"]:"x" AND customer:"cus_1"`.

    Raises:
        ApiError: it is something else.
    """
    metadata: dict[str, str] = {}
    fields: dict[str, str] = {}
    position = 0
    while True:
        found = _CLAUSE.match(text, position)
        if found is None:
            raise _unreadable()
        names, field_name = found.group(1, 2), found.group(3)
        value = _plain(*found.group(4, 5))
        if field_name is None:
            metadata[_plain(*names)] = value
        else:
            fields[field_name] = value
        position = found.end()
        if position == len(text):
            return Query(metadata, fields.get("customer"), fields.get("status"))
        joined = _AND.match(text, position)
        if joined is None:
            raise _unreadable()
        position = joined.end()


def _plain(double_quoted: str | None, single_quoted: str | None) -> str:
    text = double_quoted if double_quoted is not None else single_quoted
    assert text is not None, "one of the two alternatives has matched"
    return _ESCAPED.sub(r"\1", text)


def _unreadable() -> ApiError:
    return bad_request(
        'We were unable to parse your search query. Try using the format `metadata["key"]:'
        '"value"`.',
        param="query",
    )
