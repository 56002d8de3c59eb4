"""A small resource that costs money, for buyers of both versions. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import orjson

from services.simulator.x402.networks import Network
from services.simulator.x402.verification import SCHEME

Json: TypeAlias = dict[str, Any]

#: Who is paid when nobody else is named: the address of the key made of bytes 0x02.
PAY_TO: Final = "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"

AMOUNT: Final = 10_000
TIMEOUT_SECONDS: Final = 300

#: Headers by version: what is wanted, the payment, the receipt. Version 1 wants in the body.
REQUIRED: Final = "PAYMENT-REQUIRED"
PAYMENTS: Final[Mapping[int, str]] = {2: "PAYMENT-SIGNATURE", 1: "X-PAYMENT"}
RECEIPTS: Final[Mapping[int, str]] = {2: "PAYMENT-RESPONSE", 1: "X-PAYMENT-RESPONSE"}


@dataclass(frozen=True, slots=True)
class Offer:
    """What the resource costs, and where the money goes."""

    network: Network
    url: str
    amount: int = AMOUNT
    pay_to: str = PAY_TO

    def requirements(self, version: int) -> Json | None:
        """Return what is wanted in a version; none if its network has no name there."""
        name = self.network.caip if version != 1 else self.network.v1_name
        if name is None:
            return None
        wanted: Json = {"scheme": SCHEME, "network": name}
        if version == 1:
            wanted |= {
                "maxAmountRequired": str(self.amount),
                "resource": self.url,
                "description": "A page that costs money",
                "mimeType": "application/json",
            }
        else:
            wanted |= {"amount": str(self.amount)}
        return {
            **wanted,
            "asset": self.network.token,
            "payTo": self.pay_to,
            "maxTimeoutSeconds": TIMEOUT_SECONDS,
            "extra": {"name": self.network.name, "version": self.network.version},
        }

    def wanted(self, error: str) -> tuple[Json, str]:
        """Return what a 402 says: the body for version 1, the header for version 2."""
        first = self.requirements(1)
        body = {"x402Version": 1, "error": error, "accepts": [] if first is None else [first]}
        header = {
            "x402Version": 2,
            "error": error,
            "resource": {
                "url": self.url,
                "description": "A page that costs money",
                "mimeType": "application/json",
            },
            "accepts": [self.requirements(2)],
        }
        return body, encode(header)


def encode(value: Json) -> str:
    """Write JSON as a header."""
    return base64.b64encode(orjson.dumps(value)).decode()


def decode(header: str) -> Json | None:
    """Read JSON from a header, or none if it is not there."""
    try:
        value = orjson.loads(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError):
        return None
    return value if isinstance(value, dict) else None
