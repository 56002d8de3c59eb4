"""Signed payments: the key of the reference's vector, and anything else a test needs changed."""

from __future__ import annotations

from typing import Any

from eth_account import Account

#: Throw-away and publicly known.
PRIVATE_KEY = b"\x01" * 32
PAYER = "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"
PAY_TO = "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"
USDC = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
NETWORK = "eip155:84532"
DOMAIN = {"name": "USDC", "version": "2"}
NONCE = "0x5cc48071bb9d31e10945df544c3b8b8bd23674bf588a3a13ebf42844b22b8e74"

_TYPES = {
    "TransferWithAuthorization": [
        {"name": "from", "type": "address"},
        {"name": "to", "type": "address"},
        {"name": "value", "type": "uint256"},
        {"name": "validAfter", "type": "uint256"},
        {"name": "validBefore", "type": "uint256"},
        {"name": "nonce", "type": "bytes32"},
    ]
}


def authorization(**changes: str) -> dict[str, str]:
    return {
        "from": PAYER,
        "to": PAY_TO,
        "value": "10000",
        "validAfter": "0",
        "validBefore": "1767614700",
        "nonce": NONCE,
        **changes,
    }


def sign(
    signed: dict[str, str], *, domain: dict[str, str] | None = None, chain_id: int = 84532
) -> str:
    """Sign as a buyer's library does."""
    message = {
        **signed,
        "value": int(signed["value"]),
        "validAfter": int(signed["validAfter"]),
        "validBefore": int(signed["validBefore"]),
        "nonce": bytes.fromhex(signed["nonce"][2:]),
    }
    done = Account.sign_typed_data(
        PRIVATE_KEY,
        domain_data={**(domain or DOMAIN), "chainId": chain_id, "verifyingContract": USDC},
        message_types=_TYPES,
        message_data=message,
    )
    return "0x" + bytes(done.signature).hex()


def requirements(**changes: Any) -> dict[str, Any]:
    return {
        "scheme": "exact",
        "network": NETWORK,
        "amount": "10000",
        "asset": USDC,
        "payTo": PAY_TO,
        "maxTimeoutSeconds": 300,
        "extra": DOMAIN,
        **changes,
    }


def request_v2(
    signed: dict[str, str] | None = None,
    *,
    signature: str | None = None,
    wanted: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of `/verify` and `/settle` in version 2."""
    signed, wanted = signed or authorization(), wanted or requirements()
    payload = {"signature": signature or sign(signed), "authorization": signed}
    return {
        "x402Version": 2,
        "paymentPayload": {"x402Version": 2, "accepted": wanted, "payload": payload},
        "paymentRequirements": wanted,
    }


def request_v1(signed: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the same body in version 1."""
    signed = signed or authorization()
    wanted = requirements(
        network="base-sepolia",
        maxAmountRequired="10000",
        resource="https://api.example.com/pay",
        description="",
        mimeType="application/json",
        **changes,
    )
    del wanted["amount"]
    payload = {"signature": sign(signed), "authorization": signed}
    return {
        "x402Version": 1,
        "paymentPayload": {
            "x402Version": 1,
            "scheme": "exact",
            "network": "base-sepolia",
            "payload": payload,
        },
        "paymentRequirements": wanted,
    }
