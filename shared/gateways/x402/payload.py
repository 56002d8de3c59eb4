"""What we sign and send: an EIP-3009 authorization, in both versions of the protocol.

Everything follows from the order and our configuration, so that signing again after a crash gives
the same nonce, and with it a payment that the token takes once at most.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from shared.gateways.x402.networks import Network
from shared.gateways.x402.signer import SIGNATURE_BYTES, Signer, SigningError, TypedData

Version: TypeAlias = Literal[1, 2]

#: How long an authorization is valid. Long enough for a few tries at a facilitator that stumbles,
#: short because until it is over a payment without an answer cannot be called failed. Shortened, it
#: would end payments early that an older process has signed for longer: mind `X402_KEYS_SINCE`.
WINDOW: Final = timedelta(minutes=5)

#: Version 1 of the protocol lets an authorization begin this long before it is made.
V1_HEAD_START: Final = timedelta(minutes=10)

NONCE_BYTES: Final = 32

_TYPES: Final = MappingProxyType(
    {
        "TransferWithAuthorization": [
            {"name": "from", "type": "address"},
            {"name": "to", "type": "address"},
            {"name": "value", "type": "uint256"},
            {"name": "validAfter", "type": "uint256"},
            {"name": "validBefore", "type": "uint256"},
            {"name": "nonce", "type": "bytes32"},
        ]
    }
)


@dataclass(frozen=True, slots=True)
class Resource:
    """What is paid for, as the protocol wants it described; says nothing about a customer."""

    url: str
    description: str = "Payment"
    mime_type: str = "application/json"

    def members(self) -> dict[str, str]:
        """Return it as version 2 writes it."""
        return {"url": self.url, "description": self.description, "mimeType": self.mime_type}


@dataclass(frozen=True, slots=True)
class Authorization:
    """A transfer that the payer allows once, in Unix seconds and the token's atomic units."""

    payer: str
    recipient: str
    value: int
    valid_after: int
    valid_before: int
    nonce: bytes

    def typed_data(self, network: Network) -> TypedData:
        """Return what is signed for the token of a network."""
        # A shorter nonce would be padded silently, and a longer one refused by the token.
        assert len(self.nonce) == NONCE_BYTES
        return TypedData(
            domain={
                "name": network.domain_name,
                "version": network.domain_version,
                "chainId": network.chain_id,
                "verifyingContract": network.token,
            },
            types=_TYPES,
            message={
                "from": self.payer,
                "to": self.recipient,
                "value": self.value,
                "validAfter": self.valid_after,
                "validBefore": self.valid_before,
                "nonce": self.nonce,
            },
        )

    def members(self) -> dict[str, str]:
        """Return it as it travels: every number is a decimal string."""
        return {
            "from": self.payer,
            "to": self.recipient,
            "value": str(self.value),
            "validAfter": str(self.valid_after),
            "validBefore": str(self.valid_before),
            "nonce": f"0x{self.nonce.hex()}",
        }


@dataclass(frozen=True, slots=True)
class SignedAuthorization:
    """An authorization with its signature: who holds both can have it carried out."""

    authorization: Authorization
    signature: str = field(repr=False)


def nonce_of(key: bytes, network: Network, payer: str, reference: str) -> bytes:
    """Derive the nonce of a payment: the same for each signing of it.

    Nonces are public on the chain; without the key nobody can tell whose payment one belongs to.
    Addresses enter in small letters, so that their spelling cannot make a second nonce.
    """
    text = f"x402|{network.caip2}|{network.token.lower()}|{payer.lower()}|{reference}"
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def window_of(version: Version, started_at: datetime) -> tuple[int, int]:
    """Return `validAfter` and `validBefore` of a payment begun at a moment, in Unix seconds."""
    valid_before = int((started_at + WINDOW).timestamp())
    if version == 1:
        return int((started_at - V1_HEAD_START).timestamp()), valid_before
    return 0, valid_before


async def sign(
    signer: Signer, network: Network, authorization: Authorization
) -> SignedAuthorization:
    """Have an authorization signed.

    Raises:
        SigningError: the signer gave none, or none that a token takes.
    """
    signature = await signer.sign(authorization.typed_data(network))
    if len(signature) != SIGNATURE_BYTES or signature[-1] not in {27, 28}:
        raise SigningError("the signature has not the form that a token takes")
    return SignedAuthorization(authorization, f"0x{signature.hex()}")


def payment_requirements(
    version: Version, network: Network, authorization: Authorization, resource: Resource
) -> dict[str, Any]:
    """Return what a facilitator checks a payment against: exactly what we authorize."""
    extra = {"name": network.domain_name, "version": network.domain_version}
    seconds = int(WINDOW.total_seconds())
    if version == 1:
        return {
            "scheme": "exact",
            "network": wire_name(version, network),
            "maxAmountRequired": str(authorization.value),
            "resource": resource.url,
            "description": resource.description,
            "mimeType": resource.mime_type,
            "payTo": authorization.recipient,
            "maxTimeoutSeconds": seconds,
            "asset": network.token,
            "extra": extra,
        }
    return {
        "scheme": "exact",
        "network": wire_name(version, network),
        "amount": str(authorization.value),
        "asset": network.token,
        "payTo": authorization.recipient,
        "maxTimeoutSeconds": seconds,
        "extra": extra,
    }


def payment_payload(
    version: Version, network: Network, signed: SignedAuthorization, resource: Resource
) -> dict[str, Any]:
    """Return the payment itself. A secret until it is settled: it must not be logged."""
    payload = {"signature": signed.signature, "authorization": signed.authorization.members()}
    if version == 1:
        return {
            "x402Version": 1,
            "scheme": "exact",
            "network": wire_name(version, network),
            "payload": payload,
        }
    return {
        "x402Version": 2,
        "resource": resource.members(),
        "accepted": payment_requirements(version, network, signed.authorization, resource),
        "payload": payload,
    }


def wire_name(version: Version, network: Network) -> str:
    """Return what a version of the protocol calls a network."""
    if version == 1:
        assert network.v1_name is not None, "chosen only where version 1 knows the network"
        return network.v1_name
    return network.caip2
