"""Cursor-paged lists: the query they take and the answer they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from shared.errors import InvalidInputError
from shared.identifiers import is_id
from shared.web.bodies import ShortText
from shared.web.routes import Answer

SIZE_DEFAULT: Final = 50
SIZE_MAX: Final = 200

T = TypeVar("T")


class PageQuery(BaseModel):
    """The query of a list; a list adds its filters. The cursor is the last id of a page."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    cursor: Annotated[
        ShortText | None, Field(description="The `nextCursor` of the page before")
    ] = None
    limit: Annotated[int, Field(ge=1, le=SIZE_MAX, description="Of items on a page")] = SIZE_DEFAULT

    def require_cursor_of(self, prefix: str) -> None:
        """Check that the cursor, if any, is an id with this prefix.

        Raises:
            InvalidInputError: it is not.
        """
        if self.cursor is not None and not is_id(self.cursor, prefix):
            raise InvalidInputError("cursor is not one of ours", details={"cursor": "malformed"})

    def page(
        self,
        name: str,
        found: Sequence[T],
        *,
        id_of: Callable[[T], str],
        render: Callable[[T], Mapping[str, Any]],
    ) -> Answer:
        """Return a page under `name`. `found` has one more than `limit` unless it is the last."""
        items = found[: self.limit]
        is_last = len(found) <= self.limit
        return Answer(
            {
                name: [render(item) for item in items],
                "nextCursor": None if is_last else id_of(items[-1]),
            }
        )
