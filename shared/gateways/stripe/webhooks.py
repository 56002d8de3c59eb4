"""Verifies and reads Stripe's notices.

The verification is our own: the library's accepts time stamps of any future, takes the first of
several `t`, and one secret only. What ours accepts, the library's accepts too; a test compares.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Final

import orjson

from shared.clock import Clock
from shared.errors import InvalidInputError
from shared.gateways.interface import Claim, Notice, NoticeRefusedError, UnreadableNoticeError
from shared.identifiers import is_id
from shared.money import Money

SIGNATURE_HEADER: Final = "Stripe-Signature"

#: Stripe's own tolerance; ours holds for the future as well.
WINDOW_SECONDS: Final = 300

#: Far above any event of the types we subscribe to; the service's own limit comes first.
BODY_BYTES_MAX: Final = 1024 * 1024

#: A header has one time stamp and one signature per secret and scheme: about 200 characters.
_HEADER_LENGTH_MAX: Final = 4_096

#: What each type claims. Others are handed on as hints that claim nothing.
CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType(
    {
        "payment_intent.succeeded": "paid",
        "payment_intent.payment_failed": "failed",
        "payment_intent.canceled": "cancelled",
        "charge.dispute.created": "dispute",
        "charge.dispute.updated": "dispute",
        "charge.dispute.closed": "dispute",
        "charge.dispute.funds_withdrawn": "dispute",
        "charge.dispute.funds_reinstated": "dispute",
    }
)

#: Members of `metadata` that name an attempt of ours: of intents and charges, and of refunds,
#: whose own `reference` names the refund.
_REFERENCE_MEMBERS: Final = ("payment_reference", "reference")
_REFERENCE_PREFIX: Final = "att"

#: Stripe's ids; one of ours has 30 characters, so neither can be taken for the other.
_OBJECT_ID: Final = re.compile(r"[A-Za-z0-9_]{1,100}")
_INTENT_ID: Final = re.compile(r"pi_[A-Za-z0-9_]{1,97}")

_TIME_STAMP: Final = re.compile(r"0|[1-9][0-9]{0,11}")

#: The last second of the year 9999, beyond which no date goes.
_TIME_MAX: Final = 253_402_300_799


class StripeNotices:
    """Reads notices for one account. Two secrets are valid at once during a rotation."""

    name = "stripe"

    def __init__(self, secrets: Sequence[str], *, is_live: bool, clock: Clock) -> None:
        # The key is the whole text, `whsec_` included, and nothing is decoded.
        self._secrets = [secret.encode() for secret in secrets]
        self._is_live = is_live
        self._clock = clock

    def read(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Verify a notice over its raw bytes and read it.

        Raises:
            UnreadableNoticeError: it is genuine but no event, or it is too large.
            NoticeRefusedError: not signed by a secret of ours, not now, or of the other world.
        """
        if len(body) > BODY_BYTES_MAX:
            raise UnreadableNoticeError("too_large")
        self._verify(_signature_header(headers), body)
        event = _event(body)
        if event.get("livemode") is not self._is_live:
            raise NoticeRefusedError("other_environment")
        return _notice(event)

    def _verify(self, header: str, body: bytes) -> None:
        time_stamp, signatures = _parts(header)
        message = time_stamp.encode() + b"." + body
        if not any(
            hmac.compare_digest(hmac.digest(secret, message, hashlib.sha256).hex().encode(), given)
            for secret in self._secrets
            for given in signatures
        ):
            raise NoticeRefusedError("wrong_signature")
        # Only now, so that nobody learns our time without a secret.
        age_seconds = int(self._clock().timestamp()) - int(time_stamp)
        if age_seconds > WINDOW_SECONDS:
            raise NoticeRefusedError("too_old")
        if age_seconds < -WINDOW_SECONDS:
            raise NoticeRefusedError("in_the_future")


def _signature_header(headers: Mapping[str, str]) -> str:
    """Return the one header; `items` yields a repeated one each time."""
    name = SIGNATURE_HEADER.lower()
    given = [value for key, value in headers.items() if key.lower() == name]
    if not given:
        raise NoticeRefusedError("not_signed")
    if len(given) > 1:
        # Which one a proxy before us looked at cannot be known.
        raise NoticeRefusedError("signature_given_twice")
    return given[0]


def _parts(header: str) -> tuple[str, list[bytes]]:
    """Split `t=<unix>,v1=<hex>[,…]`; other schemes are ignored, `v0` is test mode's."""
    if len(header) > _HEADER_LENGTH_MAX or not header.isascii():
        raise NoticeRefusedError("malformed_signature")
    pairs = [item.partition("=") for item in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    is_whole = all(separator for _, separator, _ in pairs)
    # The signed text is the number in plain decimal, so `007`, ` 7` or `7_0` never come.
    if not is_whole or len(times) != 1 or _TIME_STAMP.fullmatch(times[0]) is None:
        raise NoticeRefusedError("malformed_signature")
    signatures = [value.encode() for name, _, value in pairs if name == "v1"]
    if not signatures:
        raise NoticeRefusedError("not_signed")
    return times[0], signatures


def _event(body: bytes) -> Mapping[str, Any]:
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableNoticeError("not_json") from None
    if not isinstance(event, dict) or event.get("object") != "event":
        raise UnreadableNoticeError("not_an_event")
    return event


def _notice(event: Mapping[str, Any]) -> Notice:
    data = event.get("data")
    subject = data.get("object") if isinstance(data, dict) else None
    if not isinstance(subject, dict):
        raise UnreadableNoticeError("not_an_event")
    event_id, subject_id = _id(event), _id(subject)
    if CLAIMS.get(_text(event, "type")) == "dispute":
        return _dispute_notice(event, subject, event_id, subject_id)
    reference = _own_reference(subject)
    claim = CLAIMS.get(_text(event, "type"), "other") if reference else "other"
    return Notice(
        event_key=event_id,
        event_day=_day(event),
        # Another system may share the account; its objects are known by Stripe's own ids.
        reference=reference or subject_id,
        claim=claim,
        validation_id=_intent_id(subject),
        amount=_claimed_amount(subject),
    )


def _dispute_notice(
    event: Mapping[str, Any], dispute: Mapping[str, Any], event_id: str, dispute_id: str
) -> Notice:
    """Read a notice about a dispute.

    It names the intent and not our reference, so whose it is the gateway must be asked.
    """
    return Notice(
        event_key=event_id,
        event_day=_day(event),
        reference=_intent_id(dispute) or dispute_id,
        claim="dispute",
        validation_id=dispute_id,
        amount=_claimed_amount(dispute),
    )


def _id(fields: Mapping[str, Any]) -> str:
    identifier = _text(fields, "id")
    if _OBJECT_ID.fullmatch(identifier) is None:
        raise UnreadableNoticeError("no_id")
    return identifier


def _own_reference(subject: Mapping[str, Any]) -> str:
    metadata = subject.get("metadata")
    if isinstance(metadata, dict):
        for member in _REFERENCE_MEMBERS:
            reference = _text(metadata, member)
            if is_id(reference, _REFERENCE_PREFIX):
                return reference
    return ""


def _intent_id(subject: Mapping[str, Any]) -> str:
    """Return the intent that a notice is about: itself, or what a charge or refund belongs to."""
    is_intent = subject.get("object") == "payment_intent"
    found = _text(subject, "id" if is_intent else "payment_intent")
    return found if _INTENT_ID.fullmatch(found) else ""


def _claimed_amount(subject: Mapping[str, Any]) -> Money:
    """Read an amount; only a hint, so what cannot be read is zero."""
    amount = subject.get("amount")
    try:
        # A boolean is an `int` too, and JSON's `true` no amount.
        return Money(amount if type(amount) is int else 0, _text(subject, "currency").upper())
    except InvalidInputError:
        return Money(0, "USD")


def _day(event: Mapping[str, Any]) -> date:
    created = event.get("created")
    if type(created) is not int or not 0 <= created <= _TIME_MAX:
        raise UnreadableNoticeError("no_time")
    return datetime.fromtimestamp(created, UTC).date()


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
