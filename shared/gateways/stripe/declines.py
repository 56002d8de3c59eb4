"""Stripe's decline codes, and what each means for the next step.

The 50 codes are those of Stripe's page (copy of 2026-09-18). Their classes are ours, derived from
Stripe's text, its list of codes that end its own Smart Retries, and the card networks' rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from shared.gateways.interface import FailureKind

#: Never charge this card again.
_STOP: Final = FailureKind.CARD_DECLINED
#: The customer must correct something or be present.
_CUSTOMER: Final = FailureKind.AUTHENTICATION_FAILED
#: Money or a limit: try again in days.
_RETRY_LATER: Final = FailureKind.INSUFFICIENT_FUNDS
#: The issuer does not say why: a few tries at most.
_RETRY_LIMITED: Final = FailureKind.UNKNOWN_CODE
#: Technical: minutes to hours.
_RETRY_SOON: Final = FailureKind.PROCESSING_ERROR
#: Alert, do not blame the card.
_OURS: Final = FailureKind.CONFIGURATION

DECLINE_CODES: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        "lost_card": _STOP,
        "stolen_card": _STOP,
        "pickup_card": _STOP,
        "incorrect_number": _STOP,
        "invalid_number": _STOP,
        "invalid_account": _STOP,
        "new_account_information_available": _STOP,  # Ask for the new details.
        "revocation_of_authorization": _STOP,
        "revocation_of_all_authorizations": _STOP,
        "stop_payment_order": _STOP,
        "transaction_not_allowed": _STOP,
        "fraudulent": _STOP,
        "merchant_blacklist": _STOP,
        "restricted_card": _STOP,
        "security_violation": _STOP,
        "do_not_try_again": _STOP,  # Deprecated by Stripe, still sent.
        "card_not_supported": _STOP,
        "currency_not_supported": _STOP,
        "service_not_allowed": _STOP,
        "not_permitted": _STOP,
        "authentication_required": _CUSTOMER,
        "authentication_not_handled": _CUSTOMER,
        "mobile_device_authentication_required": _CUSTOMER,
        "expired_card": _CUSTOMER,
        "incorrect_cvc": _CUSTOMER,
        "invalid_cvc": _CUSTOMER,
        "incorrect_zip": _CUSTOMER,
        "incorrect_address": _CUSTOMER,
        "invalid_expiry_month": _CUSTOMER,
        "invalid_expiry_year": _CUSTOMER,
        "incorrect_pin": _CUSTOMER,
        "invalid_pin": _CUSTOMER,
        "pin_try_exceeded": _CUSTOMER,
        "offline_pin_required": _CUSTOMER,
        "online_or_offline_pin_required": _CUSTOMER,
        "insufficient_funds": _RETRY_LATER,
        "card_velocity_exceeded": _RETRY_LATER,
        "withdrawal_count_limit_exceeded": _RETRY_LATER,
        "generic_decline": _RETRY_LIMITED,
        "do_not_honor": _RETRY_LIMITED,
        "call_issuer": _RETRY_LIMITED,
        "no_action_taken": _RETRY_LIMITED,
        "approve_with_id": _RETRY_LIMITED,  # Once more, then the customer must ask the issuer.
        "processing_error": _RETRY_SOON,
        "issuer_not_available": _RETRY_SOON,
        "reenter_transaction": _RETRY_SOON,
        "try_again_later": _RETRY_SOON,  # Deprecated by Stripe, still sent.
        "invalid_amount": _OURS,
        "duplicate_transaction": _OURS,  # Look for an existing payment first.
        "testmode_decline": _OURS,  # A test card in live mode.
    }
)

#: Members of `code` that end a payment without any of the decline codes.
_ERROR_CODES: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        "payment_intent_authentication_failure": _CUSTOMER,
        "payment_intent_payment_attempt_expired": FailureKind.EXPIRED,
        "payment_method_customer_decline": FailureKind.CANCELLED,
        "payment_method_provider_timeout": _RETRY_SOON,
        "payment_method_provider_decline": _RETRY_LIMITED,
        # Stripe stops asking for this card for a day.
        "card_decline_rate_limit_exceeded": FailureKind.RATE_LIMIT_EXCEEDED,
    }
)

#: The issuer's advice, which goes before every code; `try_again_later` is handled apart.
_ADVICE: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {"do_not_try_again": _STOP, "confirm_card_data": _CUSTOMER}
)

#: What a card network itself adds to a decline: Mastercard's advice codes 03 and 21 forbid another
#: try, and fine whoever makes one. They go before the issuer's hope that later may be better.
_NETWORK_STOPS: Final = frozenset({"03", "21"})

#: Kinds that `try_again_later` leaves as they are: later is what they mean, or it is our mistake.
_LATER_ALREADY: Final = frozenset({_RETRY_LATER, _RETRY_LIMITED, _RETRY_SOON, _OURS})

#: Errors of these types are never declines of a card.
_ERROR_TYPES: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {"api_error": _RETRY_SOON, "invalid_request_error": _OURS}
)

#: What a customer must not be told: whoever holds the card would learn that it is reported.
#: Stripe's page asks for it for all but `pickup_card`, which is the same case.
NOT_FOR_CUSTOMERS: Final = frozenset(
    {"lost_card", "stolen_card", "pickup_card", "fraudulent", "merchant_blacklist"}
)
_SHOWN_INSTEAD: Final = "generic_decline"

#: A code is a word; anything else may be a text with personal data in it.
_WORD: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")


class Decline(NamedTuple):
    """What a decline means, what may be shown of it, and what only operators may read."""

    kind: FailureKind
    reason: str
    code: str


def word(value: object) -> str:
    """Return a value if it is one of a protocol's words, else nothing."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def read_decline(error: Mapping[str, Any]) -> Decline:
    """Read an error of type `card_error`, or an intent's `last_payment_error`.

    Test mode leaves `decline_code` out when `code` says the same.
    """
    code = word(error.get("decline_code")) or word(error.get("code")) or "declined"
    reason = _SHOWN_INSTEAD if code in NOT_FOR_CUSTOMERS else code
    return Decline(_kind(error, code), reason, code)


def _kind(error: Mapping[str, Any], code: str) -> FailureKind:
    advice = word(error.get("advice_code"))
    if word(error.get("network_advice_code")) in _NETWORK_STOPS:
        return _STOP
    if advice in _ADVICE:
        return _ADVICE[advice]
    kind = DECLINE_CODES.get(code) or _ERROR_CODES.get(code)
    if kind is None:
        kind = _ERROR_TYPES.get(word(error.get("type")), _RETRY_LIMITED)
    if advice == "try_again_later" and kind not in _LATER_ALREADY:
        return _RETRY_LIMITED
    return kind
