"""Prefixed, time-ordered ids: `pay_` and 26 characters of ULID make 30.

Thirty is the most that SSLCommerz accepts for its `tran_id`. The time inside an id is what
tables are partitioned by.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from ulid import ULID

PREFIX_LENGTH: Final = 4
ID_LENGTH: Final = 30
_PATTERN: Final = re.compile(r"[a-z]{3}_[0-7][0-9A-HJKMNP-TV-Z]{25}")

#: From Crockford's digits, which ULIDs use, to those of `int(text, 32)`.
_TO_BASE_32: Final = str.maketrans(
    "0123456789ABCDEFGHJKMNPQRSTVWXYZ", "0123456789abcdefghijklmnopqrstuv"
)


#: Where a UUID says that it is one of version 4; a ULID has random bits there.
_UUID_BITS: Final = (0xF << 76) | (0x3 << 62)
_UUID_4: Final = (0x4 << 76) | (0x2 << 62)


def new_id(prefix: str, now: datetime) -> str:
    """Return a new id that sorts by `now`; `prefix` is three lower-case letters.

    Read as a UUID it is one of version 4, for gateways that accept nothing else.
    """
    random = int.from_bytes(os.urandom(10), "big")
    value = int(now.timestamp() * 1000) << 80 | (random & ~_UUID_BITS) | _UUID_4
    return f"{prefix}_{ULID(value.to_bytes(16, 'big'))}"


def as_uuid(identifier: str) -> str:
    """Write an id as a UUID; `from_uuid` reads it back."""
    return str(ULID.from_str(identifier[PREFIX_LENGTH:]).to_uuid())


def from_uuid(prefix: str, text: str) -> str:
    """Return the id that `as_uuid` wrote.

    Raises:
        ValueError: the text is no UUID.
    """
    return f"{prefix}_{ULID.from_uuid(UUID(text))}"


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
    milliseconds = int(identifier[PREFIX_LENGTH : PREFIX_LENGTH + 10].translate(_TO_BASE_32), 32)
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def first_id_at(prefix: str, moment: datetime) -> str:
    """Return the lowest id of a moment: a bound for partitions and range scans."""
    ulid = ULID.from_datetime(moment)
    return f"{prefix}_{str(ulid)[:10]}{'0' * 16}"
