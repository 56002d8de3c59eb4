"""Reading what a merchant sends, member by member, as the protocol describes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final

import orjson
from yarl import URL

from services.simulator.campay.domain import COUNTRY_CODE, Kind
from services.simulator.mobile_money import CURRENCY, network_of
from shared.errors import PermanentError
from shared.money import MINOR_UNITS_MAX

TEXT_LENGTH_MAX: Final = 500

_PHONE: Final = re.compile(COUNTRY_CODE + r"[0-9]{9}")
_WHOLE: Final = re.compile(r"[0-9]{1,16}")
_MARKUP: Final = re.compile(r"<[^>]*>")
_REFERENCE: Final = re.compile(r"[!-~]{1,100}")

#: Days of the history are those of Cameroon, which is an hour ahead all year round.
_DOUALA: Final = timezone(timedelta(hours=1))

#: The member that holds the phone, by what is asked for; a link's is optional.
_PHONE_MEMBERS: Final[Mapping[Kind, str]] = {
    Kind.COLLECT: "from",
    Kind.LINK: "from",
    Kind.WITHDRAW: "to",
}


class RefusedError(PermanentError):
    """The gateway refuses the call with 400; `er_code` is its code, if it has one."""

    def __init__(self, message: str, er_code: str | None = None) -> None:
        super().__init__(message)
        self.er_code = er_code


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """A request for a prompt, a link or a withdrawal that is in order."""

    amount: int
    phone: str | None
    operator: str | None
    description: str
    external_reference: str
    external_user: str
    first_name: str
    last_name: str
    email: str
    redirect_url: str
    failure_url: str


def read_members(body: bytes) -> dict[str, Any]:
    """Read a body; one that is no JSON object has no members."""
    try:
        members = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return members if isinstance(members, dict) else {}


def read_reference(members: Mapping[str, Any]) -> str:
    """Return the merchant's reference before the checks, or nothing if it is none."""
    given = members.get("external_reference")
    return given if isinstance(given, str) and _REFERENCE.fullmatch(given) else ""


def read_amount(members: Mapping[str, Any]) -> int:
    """Return the amount before the checks, or 0 if it is none: an integer, or text of one."""
    given = members.get("amount")
    if isinstance(given, str) and _WHOLE.fullmatch(given):
        given = int(given)
    return given if type(given) is int and 0 < given <= MINOR_UNITS_MAX else 0


def read_payment(members: Mapping[str, Any], kind: Kind) -> PaymentRequest:
    """Check every member; unknown ones are ignored.

    Raises:
        RefusedError: says what is wrong with the first that is.
    """
    for name, member in members.items():
        if isinstance(member, str) and _MARKUP.search(member):
            raise RefusedError("malicious_payload_rejected")
        if isinstance(member, str) and (len(member) > TEXT_LENGTH_MAX or "\0" in member):
            raise RefusedError(f"{name} is invalid")
    amount = read_amount(members)
    if not amount:
        raise RefusedError("Invalid amount. Decimals are not allowed", "ER201")
    if members.get("currency", CURRENCY) != CURRENCY:
        raise RefusedError("Invalid currency")
    phone = _phone(members, kind)
    network = None if phone is None else network_of(phone.removeprefix(COUNTRY_CODE))
    if phone is not None and network is None:
        raise RefusedError("Unsupported phone number carrier", "ER102")
    if not _text(members, "description"):
        raise RefusedError("description is required")
    if "external_reference" in members and not read_reference(members):
        raise RefusedError("external_reference is invalid")
    return PaymentRequest(
        amount=amount,
        phone=phone,
        operator=None if network is None else network.upper(),
        description=_text(members, "description"),
        external_reference=read_reference(members),
        external_user=_text(members, "external_user"),
        first_name=_text(members, "first_name"),
        last_name=_text(members, "last_name"),
        email=_text(members, "email"),
        redirect_url=_address(members, "redirect_url"),
        failure_url=_address(members, "failure_redirect_url"),
    )


def read_days(members: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """Return the beginning of the first day and the end of the last.

    Raises:
        RefusedError: a day is none.
    """
    first, last = _day(members, "start_date"), _day(members, "end_date")
    return first, last + timedelta(days=1)


def _phone(members: Mapping[str, Any], kind: Kind) -> str | None:
    given = members.get(_PHONE_MEMBERS[kind])
    if kind is Kind.LINK and not given:
        return None
    phone = str(given) if type(given) is int else given
    if not isinstance(phone, str) or _PHONE.fullmatch(phone) is None:
        raise RefusedError("Invalid phone number. Start with the country code", "ER101")
    return phone


def _text(members: Mapping[str, Any], name: str) -> str:
    text = members.get(name)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise RefusedError(f"{name} is invalid")
    return text


def _address(members: Mapping[str, Any], name: str) -> str:
    text = _text(members, name)
    if not text:
        return ""
    try:
        address = URL(text)
        is_usable = address.scheme in ("http", "https") and bool(address.host)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise RefusedError(f"{name} is invalid")
    return text


def _day(members: Mapping[str, Any], name: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(str(members.get(name))), time(), _DOUALA)
    except ValueError:
        raise RefusedError(f"{name} is invalid") from None
