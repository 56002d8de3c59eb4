"""What a customer should be told when no further try will be made."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from shared.gateways.interface import FailureKind


class Advice(StrEnum):
    """A code that an application turns into a sentence in the customer's language."""

    USE_ANOTHER_METHOD = "use_another_payment_method"
    ADD_FUNDS = "add_funds_or_use_another_payment_method"
    CHECK_DETAILS = "check_your_details_and_pay_again"
    CONTACT_BANK = "contact_your_bank_or_use_another_payment_method"
    TRY_LATER = "try_again_later"
    PAY_AGAIN = "pay_again_when_you_want"
    CONTACT_SUPPORT = "contact_support"


#: It must not tell why a card is refused: whoever holds it may have stolen it.
ADVICE: Final[Mapping[FailureKind, Advice]] = MappingProxyType(
    {
        FailureKind.CARD_DECLINED: Advice.USE_ANOTHER_METHOD,
        FailureKind.INSUFFICIENT_FUNDS: Advice.ADD_FUNDS,
        FailureKind.AUTHENTICATION_FAILED: Advice.CHECK_DETAILS,
        FailureKind.PROCESSING_ERROR: Advice.TRY_LATER,
        FailureKind.NETWORK_ERROR: Advice.TRY_LATER,
        FailureKind.SERVICE_UNAVAILABLE: Advice.TRY_LATER,
        FailureKind.RATE_LIMIT_EXCEEDED: Advice.TRY_LATER,
        FailureKind.UNKNOWN_CODE: Advice.CONTACT_BANK,
        FailureKind.CANCELLED: Advice.PAY_AGAIN,
        FailureKind.EXPIRED: Advice.PAY_AGAIN,
        # Nothing that a customer could do about it.
        FailureKind.CONFIGURATION: Advice.CONTACT_SUPPORT,
    }
)
