"""Pieces of request and answer bodies that every service uses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, overload
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

#: Control characters are refused: PostgreSQL cannot store NUL, and a page should not show the rest.
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*$"

ShortText = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_PRINTABLE)]
LongText = Annotated[str, StringConstraints(max_length=500, pattern=_PRINTABLE)]


def _is_web_address(url: str) -> str:
    parts = urlsplit(url)
    _ = parts.port  # Raises ValueError when it is none.
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("must be an http(s) address without a user name")
    return url


WebAddress = Annotated[
    str,
    StringConstraints(max_length=2_000, pattern=r"^[hH][tT][tT][pP][sS]?://[\x21-\x7e]+$"),
    AfterValidator(_is_web_address),
    Field(json_schema_extra={"format": "uri"}),
]


class Body(BaseModel):
    """A request body in camelCase; an unknown field is an error, and types are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, strict=True)


#: A moment in an answer, as `time_text` writes it.
TimeText = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


@overload
def time_text(moment: datetime) -> str: ...


@overload
def time_text(moment: datetime | None) -> str | None: ...


def time_text(moment: datetime | None) -> str | None:
    """Write a moment in RFC 3339, UTC."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
