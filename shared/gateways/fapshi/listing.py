"""Lists what Fapshi took money for, by its search of a few days.

A search tells a hundred transactions at most, the newest or the oldest of some days. It is asked
from both ends; what is in the middle of busier days it keeps to itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from shared.gateways.fapshi.transaction import (
    COLLECTION,
    CURRENCY,
    TRANSACTION_ID,
    several,
)
from shared.gateways.http_client import HttpCallError
from shared.gateways.interface import Listing, Unknown
from shared.gateways.json_calls import JsonAnswer, money_in, text_in
from shared.gateways.listings import ListedPage, ListedPayment
from shared.identifiers import is_id

#: The most that `/search` tells at once.
SEARCH_MAX: Final = 100

_DAY: Final = timedelta(days=1)

#: In which zone days are counted, and whether the last one is among them, is not documented: so
#: each search is of two days, and they begin a day before ours and end one after.
_SEARCHES: Final = 3


class _Step(NamedTuple):
    """Which search comes next, and the last transaction that was told from the other end."""

    number: int
    sort: str
    last_told: str

    @classmethod
    def read(cls, cursor: str | None) -> _Step:
        if cursor is None:
            return cls(0, "desc", "")
        number, sort, last_told = (*cursor.split(" "), "")[:3]
        return cls(int(number), sort, last_told)

    def after(self, told: list[str]) -> str | None:
        """Return the cursor of the step that follows when these transactions were told."""
        if self.sort == "desc" and len(told) >= SEARCH_MAX:
            return f"{self.number} asc {told[-1]}"
        return f"{self.number + 1} desc" if self.number + 1 < _SEARCHES else None


async def list_paid(
    search: Callable[[str], Awaitable[JsonAnswer]], day: date, cursor: str | None, now: datetime
) -> Listing:
    """Return one page of what customers paid around a day of UTC.

    Args:
        search: Makes the call.
        day: Which.
        cursor: That of the page before.
        now: The present moment: no day is asked for that has not begun.
    """
    step = _Step.read(cursor)
    first = day + (step.number - 1) * _DAY
    query = {
        "status": "successful",
        "start": first.isoformat(),
        "end": min(first + _DAY, now.astimezone(UTC).date()).isoformat(),
        "limit": str(SEARCH_MAX),
        "sort": step.sort,
    }
    try:
        rows = several((await search(f"/search?{urlencode(query)}")).said())
    except HttpCallError as error:
        return Unknown(error.reason, error.retry_after_seconds)
    told = [text_in(row, "transId") for row in rows]
    ours = [row for row in rows if is_ours(row)]
    payments = [payment for row in ours if (payment := _listed(row)) is not None]
    has_gap = step.sort == "asc" and len(rows) >= SEARCH_MAX and step.last_told not in told
    return ListedPage(
        tuple(payments), step.after(told), is_cut=has_gap or len(payments) < len(ours)
    )


def is_ours(row: Any) -> bool:
    """Tell whether a transaction is a paid one under a reference of ours."""
    return (
        text_in(row, "status") == "SUCCESSFUL"
        and row.get("transType") == COLLECTION
        and is_id(text_in(row, "externalId"), "att")
    )


def _listed(row: Any) -> ListedPayment | None:
    amount, handle = money_in(row.get("amount"), CURRENCY), text_in(row, "transId")
    if amount is None or TRANSACTION_ID.fullmatch(handle) is None:
        return None
    return ListedPayment(text_in(row, "externalId"), handle, amount)
