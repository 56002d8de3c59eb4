"""Lists what Campay took money for, by its history of a few days.

The history knows no `external_reference`: our reference is found in the description, which begins
with it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from shared.gateways.campay.tokens import TokenRefusedError
from shared.gateways.campay.transaction import CURRENCY, TRANSACTION_ID, text_of
from shared.gateways.http_client import HttpCallError
from shared.gateways.interface import Listing, Unknown
from shared.gateways.json_calls import JsonAnswer, money_in
from shared.gateways.listings import ListedPage, ListedPayment
from shared.identifiers import ID_LENGTH, is_id

_DAY: Final = timedelta(days=1)

#: In which zone days are counted, and whether the last one is among them, is not documented: so
#: each history is of two days, and they begin a day before ours and end one after.
_HISTORIES: Final = 3

#: Whether a history is cut anywhere is not documented; one of such a length may be.
_PAGE: Final = 100

#: What the gateway calls money from us.
_NOTHING: Final = re.compile(r"(?:0+(?:\.0*)?)?")


async def list_paid(
    history: Callable[[Mapping[str, str]], Awaitable[JsonAnswer]],
    day: date,
    cursor: str | None,
    now: datetime,
) -> Listing:
    """Return one page of what customers paid around a day of UTC.

    Args:
        history: Makes the call.
        day: Which.
        cursor: That of the page before.
        now: The present moment: no day is asked for that has not begun.
    """
    number = int(cursor or 0)
    first = day + (number - 1) * _DAY
    last = min(first + _DAY, now.astimezone(UTC).date())
    try:
        answer = await history({"start_date": first.isoformat(), "end_date": last.isoformat()})
        rows = answer.fields().get("data")
    except TokenRefusedError:
        return Unknown("token_refused")
    except HttpCallError as error:
        return Unknown(error.reason, error.retry_after_seconds)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return Unknown("not_a_history")
    ours = [row for row in rows if _is_ours(row)]
    payments = [payment for row in ours if (payment := _listed(row)) is not None]
    may_be_cut = bool(rows) and len(rows) % _PAGE == 0
    return ListedPage(
        tuple(payments),
        str(number + 1) if number + 1 < _HISTORIES else None,
        is_cut=may_be_cut or len(payments) < len(ours),
    )


def _reference(row: Mapping[str, Any]) -> str:
    return text_of(row, "description")[:ID_LENGTH]


def _is_ours(row: Mapping[str, Any]) -> bool:
    return (
        text_of(row, "status") == "SUCCESSFUL"
        and _NOTHING.fullmatch(str(row.get("debit") or "")) is not None
        and is_id(_reference(row), "att")
    )


def _listed(row: Mapping[str, Any]) -> ListedPayment | None:
    amount, handle = money_in(row.get("amount"), CURRENCY), text_of(row, "reference_uuid")
    if amount is None or TRANSACTION_ID.fullmatch(handle) is None:
        return None
    return ListedPayment(_reference(row), handle, amount)
