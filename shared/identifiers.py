"""Prefixed, time-ordered ids: `pay_` and 26 characters of ULID make 30.

Thirty is the most that SSLCommerz accepts for its `tran_id`. The time inside an id is what
tables are partitioned by.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from ulid import ULID

PREFIX_LENGTH: Final = 4
_PATTERN: Final = re.compile(r"[a-z]{3}_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_id(prefix: str, now: datetime) -> str:
    """Return a new id that sorts by `now`; `prefix` is three lower-case letters."""
    return f"{prefix}_{ULID.from_datetime(now)}"


def is_id(text: str, prefix: str) -> bool:
    """Tell whether `text` has the shape of an id with this prefix."""
    return _PATTERN.fullmatch(text) is not None and text.startswith(f"{prefix}_")


def created_at(identifier: str) -> datetime:
    """Return the moment inside an id, to the millisecond.

    Raises:
        ValueError: the text is no id of ours.
    """
    if _PATTERN.fullmatch(identifier) is None:
        raise ValueError(f"{identifier!r} is not an id")
    ulid = ULID.from_str(identifier[PREFIX_LENGTH:])
    return datetime.fromtimestamp(ulid.milliseconds / 1000, UTC)


def first_id_at(prefix: str, moment: datetime) -> str:
    """Return the lowest id of a moment: a bound for partitions and range scans."""
    ulid = ULID.from_datetime(moment)
    return f"{prefix}_{str(ulid)[:10]}{'0' * 16}"
