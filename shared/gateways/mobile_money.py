"""What the mobile money gateways of Cameroon share: phone numbers, and reasons in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from shared.gateways.interface import FailureKind, Method, Prompt, Refusal

#: Nine digits from 6 on, with or without the country's 237 (SDK of Fapshi, documents of Campay).
_PHONE: Final = re.compile(r"(?:237)?(6[0-9]{8})")

#: Longest reason that an outcome carries.
REASON_LENGTH_MAX: Final = 200

#: Addresses, and digits in a row that may be a phone number however it is spaced.
_PERSONAL: Final = re.compile(r"\S*@\S*|\+?\d[\d ().-]{4,}\d")

#: Words in the reason of a failure. Neither gateway documents its reasons: a kind decides when
#: to try again, never whether money moved, so an unlisted one costs nothing but patience.
_KINDS: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        "not supported": FailureKind.CARD_DECLINED,
        "not registered": FailureKind.CARD_DECLINED,
        "blocked": FailureKind.CARD_DECLINED,
        "barred": FailureKind.CARD_DECLINED,
        "suspended": FailureKind.CARD_DECLINED,
        "rate limit": FailureKind.RATE_LIMIT_EXCEEDED,
        "too many requests": FailureKind.RATE_LIMIT_EXCEEDED,
        "insufficient": FailureKind.INSUFFICIENT_FUNDS,
        "not enough": FailureKind.INSUFFICIENT_FUNDS,
        "low balance": FailureKind.INSUFFICIENT_FUNDS,
        # The account's limit of a day or a month: like an empty account, later is better.
        "limit exceeded": FailureKind.INSUFFICIENT_FUNDS,
        "limit reached": FailureKind.INSUFFICIENT_FUNDS,
        "cancel": FailureKind.CANCELLED,
        "rejected by": FailureKind.CANCELLED,
        "expire": FailureKind.EXPIRED,
        "timeout": FailureKind.EXPIRED,
        "timed out": FailureKind.EXPIRED,
        "no response": FailureKind.EXPIRED,
        "phone": FailureKind.AUTHENTICATION_FAILED,
        "wrong pin": FailureKind.AUTHENTICATION_FAILED,
        "invalid pin": FailureKind.AUTHENTICATION_FAILED,
        # Below what a customer did, because it may be said beside it.
        "unavailable": FailureKind.SERVICE_UNAVAILABLE,
        "maintenance": FailureKind.SERVICE_UNAVAILABLE,
        "network": FailureKind.NETWORK_ERROR,
        "connection": FailureKind.NETWORK_ERROR,
        "internal error": FailureKind.PROCESSING_ERROR,
        "technical": FailureKind.PROCESSING_ERROR,
        "system error": FailureKind.PROCESSING_ERROR,
        "processing error": FailureKind.PROCESSING_ERROR,
        "try again": FailureKind.PROCESSING_ERROR,
    }
)


def national_number(phone: str) -> str | None:
    """Return the nine digits of a Cameroonian mobile number, or None if it is none."""
    found = _PHONE.fullmatch(phone)
    return found.group(1) if found else None


def phone_refusal(method: Method) -> Refusal | None:
    """Return why a phone cannot be prompted, or None. The number itself is not repeated."""
    if not isinstance(method, Prompt) or national_number(method.phone) is not None:
        return None
    return Refusal("method.phone", "not a mobile number of Cameroon: 2376 and 8 digits")


def kind_in(words: str, otherwise: FailureKind = FailureKind.UNKNOWN_CODE) -> FailureKind:
    """Return the kind of failure that a gateway's words tell of."""
    plain = words.lower().replace("_", " ")
    return next((kind for word, kind in _KINDS.items() if word in plain), otherwise)


def plain_reason(words: str, otherwise: str, hidden: Iterable[str] = ()) -> str:
    """Return a gateway's words without what may be personal: the texts `hidden`, numbers, e-mail.

    Of words that leave nothing, `otherwise` is returned.
    """
    for text in sorted({text for text in hidden if text}, key=len, reverse=True):
        words = words.replace(text, "…")
    kept = "".join(character if character.isprintable() else " " for character in words)
    return _PERSONAL.sub("…", kept).strip()[:REASON_LENGTH_MAX] or otherwise
