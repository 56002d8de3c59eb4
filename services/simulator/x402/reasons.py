"""Why a payment is not valid or not settled: the words of the protocol and of its package."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """`invalidReason` and `errorReason`."""

    INVALID_VERSION = "invalid_x402_version"
    INVALID_PAYLOAD = "invalid_payload"
    INVALID_REQUIREMENTS = "invalid_payment_requirements"
    UNSUPPORTED_SCHEME = "unsupported_scheme"
    INVALID_NETWORK = "invalid_network"
    NETWORK_MISMATCH = "network_mismatch"
    NOT_A_CONTRACT = "asset_not_deployed_contract"
    MISSING_DOMAIN = "missing_eip712_domain"
    NAME_MISMATCH = "invalid_exact_evm_token_name_mismatch"
    VERSION_MISMATCH = "invalid_exact_evm_token_version_mismatch"
    RECIPIENT_MISMATCH = "invalid_exact_evm_payload_recipient_mismatch"
    # Version 1 wants at least the amount, version 2 exactly.
    VALUE = "invalid_exact_evm_payload_authorization_value"
    VALUE_MISMATCH = "invalid_exact_evm_payload_authorization_value_mismatch"
    VALID_BEFORE = "invalid_exact_evm_payload_authorization_valid_before"
    VALID_AFTER = "invalid_exact_evm_payload_authorization_valid_after"
    SIGNATURE = "invalid_exact_evm_payload_signature"
    INSUFFICIENT_BALANCE = "invalid_exact_evm_insufficient_balance"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    NONCE_USED = "invalid_exact_evm_nonce_already_used"
    TRANSACTION_FAILED = "transaction_failed"
    PENDING = "settlement_pending"
    UNEXPECTED_SETTLE = "unexpected_settle_error"
