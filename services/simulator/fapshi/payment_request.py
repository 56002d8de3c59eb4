"""Reading what a merchant sends, member by member, as the protocol describes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final

import orjson
from yarl import URL

from services.simulator.fapshi.domain import AMOUNT_MIN, Kind, State
from services.simulator.mobile_money import network_of
from shared.errors import PermanentError
from shared.money import MINOR_UNITS_MAX

PHONE: Final = re.compile(r"6[0-9]{8}")
LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
TRANS_ID: Final = re.compile(r"[A-Za-z0-9]{8,10}")
_EMAIL: Final = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+\.[^@\s\x00-\x1f]+")

MEDIA: Final[Mapping[str, str]] = {"mtn": "mobile money", "orange": "orange money"}

TEXT_LENGTH_MAX: Final = 500

SEARCH_LIMIT_USUAL: Final = 10
SEARCH_LIMIT_MAX: Final = 100

#: Days of `search` are those of Cameroon, which is an hour ahead all year round.
_DOUALA: Final = timezone(timedelta(hours=1))

_SEARCHED_STATES: Final = frozenset({"created", "successful", "failed", "expired"})


class RefusedError(PermanentError):
    """The gateway refuses the call with 400; the message is what its body says."""


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """A request for a link or a prompt that is in order."""

    amount: int
    phone: str | None
    name: str | None
    email: str | None
    user_id: str | None
    external_id: str | None
    redirect_url: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for; null means that it does not matter."""

    state: State | None
    medium: str | None
    since: datetime | None
    before: datetime | None
    amount: int | None
    limit: int
    newest_first: bool


def read_members(body: bytes) -> dict[str, Any]:
    """Read a body; one that is no JSON object has no members."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return members if isinstance(members, dict) else {}


def read_reference(members: Mapping[str, Any]) -> str:
    """Return the merchant's reference before the checks, or nothing if it is none."""
    given = members.get("externalId")
    return given if isinstance(given, str) and LABEL.fullmatch(given) else ""


def read_amount(members: Mapping[str, Any]) -> int:
    """Return the amount before the checks, or 0 if it is none."""
    given = members.get("amount")
    return given if type(given) is int and given <= MINOR_UNITS_MAX else 0


def read_payment(members: Mapping[str, Any], kind: Kind) -> PaymentRequest:
    """Check every member; unknown ones are ignored.

    Raises:
        RefusedError: says what is wrong with the first that is.
    """
    if "amount" not in members:
        raise RefusedError("amount is required")
    if type(members["amount"]) is not int:  # JSON's true is an int to Python.
        raise RefusedError("amount must be of type integer")
    amount = read_amount(members)
    if amount < AMOUNT_MIN:
        raise RefusedError(f"amount cannot be less than {AMOUNT_MIN} XAF")
    return PaymentRequest(
        amount=amount,
        phone=_phone(members) if kind is Kind.PROMPT else None,
        name=_text(members, "name"),
        email=_matching(members, "email", _EMAIL),
        user_id=_matching(members, "userId", LABEL),
        external_id=_matching(members, "externalId", LABEL),
        redirect_url=_address(members, "redirectUrl"),
        message=_text(members, "message"),
    )


def read_search(query: Mapping[str, str]) -> Search:
    """Read a search; values that mean nothing are ignored, as the gateway does."""
    status, limit = query.get("status", "").lower(), query.get("limit", "")
    since, until = _day(query.get("start", "")), _day(query.get("end", ""))
    medium, amount = query.get("medium", ""), query.get("amt", "")
    is_limit = limit.isascii() and limit.isdigit() and 1 <= int(limit[:4]) <= SEARCH_LIMIT_MAX
    return Search(
        state=State(status.upper()) if status in _SEARCHED_STATES else None,
        medium=medium if medium in MEDIA.values() else None,
        since=since,
        before=None if until is None else until + timedelta(days=1),
        amount=int(amount[:16]) if amount.isascii() and amount.isdigit() else None,
        limit=int(limit) if is_limit else SEARCH_LIMIT_USUAL,
        newest_first=query.get("sort") != "asc",
    )


def _phone(members: Mapping[str, Any]) -> str:
    if "phone" not in members:
        raise RefusedError("phone is required")
    phone = members["phone"]
    if not isinstance(phone, str) or PHONE.fullmatch(phone) is None:
        raise RefusedError("invalid phone number")
    network = network_of(phone)
    if network is None:
        raise RefusedError("phone number must be of MTN or Orange")
    medium = members.get("medium")
    if medium is not None and medium != MEDIA[network]:
        raise RefusedError("medium does not fit the phone number")
    return phone


def _text(members: Mapping[str, Any], name: str) -> str | None:
    text = members.get(name)
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > TEXT_LENGTH_MAX or "\0" in text:
        raise RefusedError(f"invalid type, {name} should be string")
    return text


def _matching(members: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str | None:
    text = _text(members, name)
    if text is not None and pattern.fullmatch(text) is None:
        raise RefusedError(f"{name} is invalid")
    return text


def _address(members: Mapping[str, Any], name: str) -> str | None:
    text = _text(members, name)
    if text is None:
        return None
    try:
        address = URL(text)
        is_usable = address.scheme in ("http", "https") and bool(address.host)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise RefusedError(f"{name} is invalid")
    return text


def _day(text: str) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(text), time(), _DOUALA)
    except ValueError:
        return None
