"""Cards and how a charge on each ends: the test payment methods and the decline codes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

#: Any of the decline codes can be had by this prefix and the code.
DECLINE_PREFIX: Final = "pm_card_decline_"

_STOP: Final = "do_not_try_again"
_DETAILS: Final = "confirm_card_data"
_LATER: Final = "try_again_later"


@dataclass(frozen=True, slots=True)
class Decline:
    """What the error of a declined charge says.

    Some declines have a `code` of their own and no `decline_code` (testing page of Stripe).
    """

    code: str
    decline_code: str | None
    advice_code: str | None
    message: str
    network_decline_code: str | None = None


class Authentication(StrEnum):
    """When the customer must authenticate."""

    NEVER = "never"
    ON_SESSION = "on_session"


class RefundFate(StrEnum):
    """How a refund to the card goes."""

    SUCCEEDS = "succeeds"
    PENDING = "pending"
    FAILS_LATER = "fails_later"


@dataclass(frozen=True, slots=True)
class Card:
    """How a payment method behaves; `decline` of none is paid."""

    brand: str = "visa"
    last4: str = "4242"
    decline: Decline | None = None
    authentication: Authentication = Authentication.NEVER
    can_be_attached: bool = True
    risk_level: str = "normal"
    is_blocked: bool = False
    refund: RefundFate = RefundFate.SUCCEEDS


def _text(sentence: str) -> str:
    return f"Your card {sentence}"


_DECLINED: Final = _text("was declined.")
_UNSUPPORTED: Final = _text("does not support this type of purchase.")

#: Decline code to (advice, message, code of the network); the advice follows the class that
#: providers.md gives each of the 50 codes.
_CODES: Final[Mapping[str, tuple[str | None, str, str | None]]] = {
    "lost_card": (_STOP, _DECLINED, "41"),
    "stolen_card": (_STOP, _DECLINED, "43"),
    "pickup_card": (_STOP, _DECLINED, "04"),
    "incorrect_number": (_STOP, "Your card number is incorrect.", "14"),
    "invalid_number": (_STOP, "The card number is not a valid credit card number.", "14"),
    "invalid_account": (_STOP, _DECLINED, "14"),
    "new_account_information_available": (_STOP, _DECLINED, None),
    "revocation_of_authorization": (_STOP, _DECLINED, "R1"),
    "revocation_of_all_authorizations": (_STOP, _DECLINED, "R3"),
    "stop_payment_order": (_STOP, _DECLINED, "R0"),
    "transaction_not_allowed": (_STOP, _UNSUPPORTED, "57"),
    "fraudulent": (_STOP, _DECLINED, "59"),
    "merchant_blacklist": (_STOP, _DECLINED, None),
    "restricted_card": (_STOP, _DECLINED, "62"),
    "security_violation": (_STOP, _DECLINED, "63"),
    "do_not_try_again": (_STOP, _DECLINED, None),
    "card_not_supported": (_STOP, _UNSUPPORTED, None),
    "currency_not_supported": (_STOP, _text("does not support the currency."), None),
    "service_not_allowed": (_STOP, _DECLINED, "58"),
    "not_permitted": (_STOP, _DECLINED, "57"),
    "authentication_required": (None, "Your card was declined. It requires authentication.", "1A"),
    "authentication_not_handled": (None, _DECLINED, None),
    "mobile_device_authentication_required": (None, _DECLINED, None),
    "expired_card": (_DETAILS, _text("has expired."), "54"),
    "incorrect_cvc": (_DETAILS, "Your card's security code is incorrect.", "N7"),
    "invalid_cvc": (_DETAILS, "Your card's security code is invalid.", "N7"),
    "incorrect_zip": (_DETAILS, "Your postal code is incorrect.", None),
    "incorrect_address": (_DETAILS, "Your address is incorrect.", None),
    "invalid_expiry_month": (_DETAILS, "Your card's expiration month is invalid.", None),
    "invalid_expiry_year": (_DETAILS, "Your card's expiration year is invalid.", None),
    "incorrect_pin": (_DETAILS, "Your PIN is incorrect.", "55"),
    "invalid_pin": (_DETAILS, "Your PIN is incorrect.", "55"),
    "pin_try_exceeded": (_DETAILS, _DECLINED, "75"),
    "offline_pin_required": (_DETAILS, _text("requires a PIN."), None),
    "online_or_offline_pin_required": (_DETAILS, _text("requires a PIN."), "1A"),
    "insufficient_funds": (_LATER, _text("has insufficient funds."), "51"),
    "card_velocity_exceeded": (
        _LATER,
        (
            "Your card was declined for making repeated attempts too frequently or exceeding its"
            " amount limit."
        ),
        "65",
    ),
    "withdrawal_count_limit_exceeded": (_LATER, _text("has exceeded its limit."), "65"),
    "generic_decline": (_LATER, _DECLINED, "01"),
    "do_not_honor": (_LATER, _DECLINED, "05"),
    "call_issuer": (_LATER, _DECLINED, "01"),
    "no_action_taken": (_LATER, _DECLINED, "21"),
    "approve_with_id": (_LATER, _DECLINED, None),
    "processing_error": (
        _LATER,
        "An error occurred while processing your card. Try again in a little bit.",
        "96",
    ),
    "issuer_not_available": (_LATER, _DECLINED, "91"),
    "reenter_transaction": (_LATER, _DECLINED, "19"),
    "try_again_later": (_LATER, _DECLINED, None),
    "invalid_amount": (None, _DECLINED, "13"),
    "duplicate_transaction": (None, _DECLINED, "94"),
    "testmode_decline": (None, "Your card was declined. It is a test card.", None),
}

#: Codes that stand in `code` as well; the others have `card_declined` there.
_OWN_CODES: Final = frozenset(
    {
        "authentication_required",
        "expired_card",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_zip",
        "invalid_cvc",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "invalid_number",
        "processing_error",
    }
)


def _decline(decline_code: str) -> Decline:
    advice_code, message, network_code = _CODES[decline_code]
    code = decline_code if decline_code in _OWN_CODES else "card_declined"
    return Decline(code, decline_code, advice_code, message, network_code)


#: How a charge is declined, by its decline code.
DECLINES: Final[Mapping[str, Decline]] = MappingProxyType({code: _decline(code) for code in _CODES})


def _without_decline_code(code: str) -> Decline:
    """Make a decline of the test mode, whose error has only a `code`."""
    return Decline(code, None, DECLINES[code].advice_code, DECLINES[code].message)


def _declining(decline: Decline, last4: str, *, can_be_attached: bool = False) -> Card:
    return Card(last4=last4, decline=decline, can_be_attached=can_be_attached)


_GENERIC: Final = DECLINES["generic_decline"]
_FUNDS: Final = DECLINES["insufficient_funds"]
_VELOCITY: Final = DECLINES["card_velocity_exceeded"]

#: The test payment methods (testing page of Stripe; providers.md 4.2).
_TEST_CARDS: Final[Mapping[str, Card]] = MappingProxyType(
    {
        "pm_card_visa": Card(),
        "pm_card_visa_debit": Card(last4="5556"),
        "pm_card_mastercard": Card(brand="mastercard", last4="4444"),
        "pm_card_amex": Card(brand="amex", last4="8431"),
        "pm_card_chargeCustomerFail": _declining(_GENERIC, "0341", can_be_attached=True),
        "pm_card_chargeDeclined": _declining(_GENERIC, "0002"),
        "pm_card_visa_chargeDeclined": _declining(_GENERIC, "0002"),
        "pm_card_chargeDeclinedInsufficientFunds": _declining(_FUNDS, "9995"),
        "pm_card_visa_chargeDeclinedInsufficientFunds": _declining(_FUNDS, "9995"),
        "pm_card_visa_chargeDeclinedLostCard": _declining(DECLINES["lost_card"], "9987"),
        "pm_card_visa_chargeDeclinedStolenCard": _declining(DECLINES["stolen_card"], "9979"),
        "pm_card_visa_chargeDeclinedVelocityLimitExceeded": _declining(_VELOCITY, "6975"),
        "pm_card_chargeDeclinedExpiredCard": _declining(
            _without_decline_code("expired_card"), "0069"
        ),
        "pm_card_chargeDeclinedIncorrectCvc": _declining(
            _without_decline_code("incorrect_cvc"), "0127"
        ),
        "pm_card_chargeDeclinedProcessingError": _declining(
            _without_decline_code("processing_error"), "0119"
        ),
        "pm_card_radarBlock": Card(
            last4="0019",
            decline=DECLINES["fraudulent"],
            risk_level="highest",
            is_blocked=True,
        ),
        "pm_card_riskLevelElevated": Card(last4="9235", risk_level="elevated"),
        "pm_card_authenticationRequired": Card(
            last4="3184", authentication=Authentication.ON_SESSION
        ),
        "pm_card_threeDSecure2Required": Card(
            last4="3220", authentication=Authentication.ON_SESSION
        ),
        "pm_card_pendingRefund": Card(last4="7726", refund=RefundFate.PENDING),
        "pm_card_refundFail": Card(last4="5126", refund=RefundFate.FAILS_LATER),
    }
)

#: Every payment method that exists without being made.
CARDS: Final[Mapping[str, Card]] = MappingProxyType(
    {
        **_TEST_CARDS,
        **{
            DECLINE_PREFIX + code: _declining(decline, "0002", can_be_attached=True)
            for code, decline in DECLINES.items()
        },
    }
)
