"""What a facilitator's reasons mean.

Names: the protocol's specification and the x402 package, 2.25.0. Anything that is not listed may
mean anything, so it is read as no answer at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from shared.gateways.interface import FailureKind

#: The nonce was used: most likely by an earlier try of this very payment. The chain knows.
NONCE_USED: Final = "invalid_exact_evm_nonce_already_used"

_SHORT_OF_FUNDS: Final = ("insufficient_funds", "invalid_exact_evm_insufficient_balance")

#: Our clock, or a call that came too late: another try has a window of its own.
_OUTSIDE_WINDOW: Final = (
    "invalid_exact_evm_payload_authorization_valid_after",
    "invalid_exact_evm_payload_authorization_valid_before",
)

#: We built or configured something wrongly; nobody's money is the matter.
_OUR_MISTAKE: Final = (
    "asset_not_deployed_contract",
    "invalid_exact_evm_eip3009_not_supported",
    "invalid_exact_evm_failed_to_get_network_config",
    "invalid_exact_evm_payload_authorization_value",
    "invalid_exact_evm_payload_authorization_value_mismatch",
    "invalid_exact_evm_payload_recipient_mismatch",
    "invalid_exact_evm_payload_signature",
    "invalid_exact_evm_payload_undeployed_smart_wallet",
    "invalid_exact_evm_token_name_mismatch",
    "invalid_exact_evm_token_version_mismatch",
    "invalid_network",
    "invalid_payload",
    "invalid_payment_requirements",
    "invalid_scheme",
    "invalid_x402_version",
    "missing_eip712_domain",
    "network_mismatch",
    "unsupported_scheme",
)

#: Reasons that definitely refuse a payment which was never broadcast. Not among them are
#: `settlement_pending` (broadcast, receipt not seen yet), `unexpected_*`, `transaction_failed`,
#: failed simulations and failed reads of the chain.
REFUSALS: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        **dict.fromkeys(_SHORT_OF_FUNDS, FailureKind.INSUFFICIENT_FUNDS),
        **dict.fromkeys(_OUTSIDE_WINDOW, FailureKind.PROCESSING_ERROR),
        **dict.fromkeys(_OUR_MISTAKE, FailureKind.CONFIGURATION),
    }
)

#: Words of at most 30 characters: no key, signature or hash looks like it.
_WORDS: Final = re.compile(r"[a-z][a-z0-9]{0,29}(?:_[a-z0-9]{1,30}){0,12}")


def readable(reason: str) -> str:
    """Return a facilitator's reason if it is made of short words, as all the known ones are.

    Other text may quote the payment, which must not be recorded.
    """
    if not reason:
        return "no_reason_given"
    return reason[:100] if _WORDS.fullmatch(reason) is not None else "unreadable_reason"
