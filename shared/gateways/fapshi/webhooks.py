"""Verifies and reads Fapshi notices.

The proof is the header `x-wh-secret`, whose value is the secret typed into the dashboard: no
signature, nothing about the body, no time. A notice is therefore a hint that leads to a reading of
the status, and each copy of it has the same key. Fapshi sends a notice once (docs.fapshi.com).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, Final

import orjson

from shared.gateways.fapshi.transaction import COLLECTION, CURRENCY, TRANSACTION_ID
from shared.gateways.interface import Claim, Notice, NoticeRefusedError, UnreadableNoticeError
from shared.gateways.json_calls import money_in, text_in
from shared.identifiers import created_at, is_id
from shared.money import Money

#: Longest body that is read; a transaction has about 1 kB.
NOTICE_BYTES_MAX: Final = 64 * 1024

CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType(
    {"SUCCESSFUL": "paid", "FAILED": "failed", "EXPIRED": "expired"}
)

_STATUS_LENGTH_MAX: Final = 40

#: The day of an event whose time cannot be read: it is kept in the default partition.
_NO_DAY: Final = date(1970, 1, 1)


class FapshiNotices:
    """Reads notices for one service. Several secrets are valid at once during a rotation."""

    name = "fapshi"

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = [_as_bytes(secret) for secret in secrets if secret]

    def read(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Verify a notice and read it.

        Raises:
            UnreadableNoticeError: no JSON object with the fields of a transaction.
            NoticeRefusedError: the header is missing, came twice, or holds no secret of ours.
        """
        self._verify(headers)
        return _notice(_fields(body))

    def _verify(self, headers: Mapping[str, str]) -> None:
        if not self._secrets:
            # Fapshi leaves the header out when no secret was set. Then anybody could write to us.
            raise NoticeRefusedError("no_secret_configured")
        # `items` of a multi-dictionary gives a header that came twice twice.
        given = [value for name, value in headers.items() if name.lower() == "x-wh-secret"]
        if not given:
            raise NoticeRefusedError("not_signed")
        if len(given) > 1:
            raise NoticeRefusedError("signed_twice")
        # A list, not a generator: how long it takes does not tell which secret it was.
        matches = [hmac.compare_digest(_as_bytes(given[0]), secret) for secret in self._secrets]
        if not any(matches):
            raise NoticeRefusedError("wrong_signature")


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # Bytes that are no UTF-8 arrive as surrogates.


def _fields(body: bytes) -> Mapping[str, Any]:
    if len(body) > NOTICE_BYTES_MAX:
        raise UnreadableNoticeError("too_large")
    if b"\\u0000" in body:
        raise UnreadableNoticeError("not_text")  # PostgreSQL stores no NUL.
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UnreadableNoticeError("not_json") from None
    if not isinstance(fields, dict):
        raise UnreadableNoticeError("not_an_object")
    return fields


def _notice(fields: Mapping[str, Any]) -> Notice:
    handle, status = text_in(fields, "transId"), text_in(fields, "status")[:_STATUS_LENGTH_MAX]
    if TRANSACTION_ID.fullmatch(handle) is None:
        raise UnreadableNoticeError("no_transaction_id")
    if not status:
        raise UnreadableNoticeError("no_status")
    reference = text_in(fields, "externalId")
    is_ours = is_id(reference, "att") and fields.get("transType") == COLLECTION
    return Notice(
        event_key=f"{handle}:{status}",
        event_day=_day(reference, text_in(fields, "dateInitiated")),
        # Another system may share the account, and payouts may be told of at the same address.
        reference=reference if is_ours else handle,
        claim=CLAIMS.get(status, "other") if is_ours else "other",
        validation_id=handle,
        amount=money_in(fields.get("amount"), CURRENCY) or Money(0, CURRENCY),
    )


def _day(reference: str, initiated: str) -> date:
    """Return a day that is the same for each copy: inside our reference, else the gateway's."""
    try:
        return created_at(reference).date()
    except ValueError:
        pass  # Not a reference of ours.
    try:
        return date.fromisoformat(initiated[:10])
    except ValueError:
        return _NO_DAY
