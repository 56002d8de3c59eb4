"""Verifies and reads Campay notices.

The proof is a JWT in the field `signature`. It names neither the payment nor its state, so a token
seen once can be attached to other fields until it expires: a notice is only a hint that leads to a
reading of the status. A callback comes as GET or POST, with a form or with JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from types import MappingProxyType
from typing import Any, Final, TypeGuard
from urllib.parse import parse_qsl

import jwt
import orjson

from shared.clock import Clock
from shared.gateways.campay.transaction import CURRENCY, TRANSACTION_ID, text_of
from shared.gateways.interface import Claim, Notice, NoticeRefusedError, UnreadableNoticeError
from shared.gateways.json_calls import money_in
from shared.identifiers import as_uuid, created_at, from_uuid
from shared.money import DECIMAL_PLACES, Money

#: Longest body or query string that is read; a genuine one has about 1 kB.
NOTICE_BYTES_MAX: Final = 64 * 1024
FIELDS_MAX: Final = 100

#: By how much the gateway's clock and ours may differ.
LEEWAY_SECONDS: Final = 60

CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType({"SUCCESSFUL": "paid", "FAILED": "failed"})

#: A genuine token has about 170 characters.
_TOKEN: Final = re.compile(r"(?=.{1,2000}\Z)[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_STATUS_LENGTH_MAX: Final = 40

#: Any UUID reads as an id of ours, with some time in it. Ours were made since the first release.
_FIRST_REFERENCE_YEAR: Final = 2026
_AHEAD_MAX: Final = timedelta(days=1)

#: The day of an event whose time cannot be read: it is kept in the default partition.
_NO_DAY: Final = date(1970, 1, 1)


class CampayNotices:
    """Reads notices for one application. Several keys are valid at once during a rotation."""

    name = "campay"

    def __init__(self, keys: Sequence[str], clock: Clock) -> None:
        self._keys = [key for key in keys if key]
        self._clock = clock
        self._tokens = jwt.PyJWS()

    def read(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Verify a notice and read it. Of one that came as a GET, `body` is the query string.

        Raises:
            UnreadableNoticeError: neither a JSON object nor a form with the fields of a notice.
            NoticeRefusedError: no token, or none that is valid now under a key of ours.
        """
        fields = _fields(body)
        self._verify(text_of(fields, "signature"))
        return self._notice(fields)

    def _verify(self, token: str) -> None:
        if not self._keys:
            raise NoticeRefusedError("no_key_configured")
        if not token:
            raise NoticeRefusedError("not_signed")
        if _TOKEN.fullmatch(token) is None:
            raise NoticeRefusedError("wrong_signature")
        self._check_times(self._claims(token))

    def _claims(self, token: str) -> Mapping[str, Any]:
        for key in self._keys:
            try:
                # The algorithm is pinned: a token that names another (or `none`) is refused.
                payload = self._tokens.decode(token, key, algorithms=["HS256"])
                claims = orjson.loads(payload)
            except (jwt.PyJWTError, orjson.JSONDecodeError):
                continue
            if isinstance(claims, dict):
                return claims
        raise NoticeRefusedError("wrong_signature")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        """Check the claims of time by our clock; PyJWT would take the system's."""
        now = self._clock().timestamp()
        expires_at = claims.get("exp")
        if not _is_number(expires_at):
            # Callbacks were seen with it. One without it could be attached to anything for ever.
            raise NoticeRefusedError("no_expiry")
        if now > expires_at + LEEWAY_SECONDS:
            raise NoticeRefusedError("expired")
        for name in ("iat", "nbf"):
            begins_at = claims.get(name, now)
            if not _is_number(begins_at) or begins_at > now + LEEWAY_SECONDS:
                raise NoticeRefusedError("not_yet_valid")

    def _notice(self, fields: Mapping[str, Any]) -> Notice:
        handle, status = text_of(fields, "reference"), text_of(fields, "status")
        if TRANSACTION_ID.fullmatch(handle) is None:
            raise UnreadableNoticeError("no_reference")
        if not status:
            raise UnreadableNoticeError("no_status")
        reference = self._our_reference(text_of(fields, "external_reference"))
        currency = text_of(fields, "currency")
        amount = money_in(fields.get("amount"), currency) if currency in DECIMAL_PLACES else None
        return Notice(
            event_key=f"{handle}:{status[:_STATUS_LENGTH_MAX]}",
            event_day=created_at(reference).date() if reference else _NO_DAY,
            reference=reference or handle,  # Another system may share the application.
            claim=CLAIMS.get(status, "other") if reference else "other",
            validation_id=handle,
            amount=amount or Money(0, CURRENCY),
        )

    def _our_reference(self, text: str) -> str | None:
        try:
            reference = from_uuid("att", text)
            made_at = created_at(reference)
        except ValueError:
            return None
        is_plausible = (
            made_at.year >= _FIRST_REFERENCE_YEAR and made_at <= self._clock() + _AHEAD_MAX
        )
        return reference if is_plausible and as_uuid(reference) == text.lower() else None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fields(body: bytes) -> Mapping[str, Any]:
    if len(body) > NOTICE_BYTES_MAX:
        raise UnreadableNoticeError("too_large")
    return _json_fields(body) if body.lstrip()[:1] == b"{" else _form_fields(body)


def _json_fields(body: bytes) -> Mapping[str, Any]:
    if b"\\u0000" in body:
        raise UnreadableNoticeError("not_text")  # PostgreSQL stores no NUL.
    try:
        fields: Mapping[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableNoticeError("not_json") from None
    return fields


def _form_fields(body: bytes) -> Mapping[str, Any]:
    if b"\x00" in body or b"%00" in body:
        raise UnreadableNoticeError("not_text")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:  # Not ASCII, encoded bytes that are no UTF-8, too many fields.
        raise UnreadableNoticeError("not_a_form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise UnreadableNoticeError("field_given_twice")
    return fields
