"""Ids of rows that PostgreSQL numbers, as the API shows them: `dlt_17`."""

from __future__ import annotations

import re
from typing import Final

from shared.errors import InvalidInputError, NotFoundError

#: Within a bigint.
_PATTERN: Final = re.compile(r"([a-z]{3})_([1-9][0-9]{0,17})")


def numbered_id(prefix: str, number: int) -> str:
    """Write the number of a row as an id."""
    return f"{prefix}_{number}"


def number_in(prefix: str, text: str, what: str) -> int:
    """Return the number in an id from a path.

    Raises:
        NotFoundError: it is no such id, so nothing has it.
    """
    number = _number(prefix, text)
    if number is None:
        raise NotFoundError(f"no {what} has the id {text[:40]!r}")
    return number


def number_of_cursor(prefix: str, cursor: str | None) -> int | None:
    """Return the number in the cursor of a page, if there is one.

    Raises:
        InvalidInputError: it is no such id.
    """
    if cursor is None:
        return None
    number = _number(prefix, cursor)
    if number is None:
        raise InvalidInputError("cursor is not one of ours", details={"cursor": "malformed"})
    return number


def _number(prefix: str, text: str) -> int | None:
    found = _PATTERN.fullmatch(text)
    return int(found[2]) if found is not None and found[1] == prefix else None
