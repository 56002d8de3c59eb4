"""The HTTP headers of the protocol: base64 of compact JSON.

We speak to the facilitator ourselves and need none of them to pay an order; they are for whoever
buys from, or sells to, a party that speaks x402 over plain HTTP.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from shared.errors import PermanentError
from shared.gateways.x402.payload import Resource, Version

#: What the seller wants; version 1 says it in the body of its 402.
PAYMENT_REQUIRED: Final = "PAYMENT-REQUIRED"

#: How the buyer pays, by version.
PAYMENT: Final[Mapping[Version, str]] = MappingProxyType({1: "X-PAYMENT", 2: "PAYMENT-SIGNATURE"})

#: The seller's receipt, also of a payment that was not settled.
RECEIPT: Final[Mapping[Version, str]] = MappingProxyType(
    {1: "X-PAYMENT-RESPONSE", 2: "PAYMENT-RESPONSE"}
)

#: Longest header value that is read; genuine ones have about 1 kB.
VALUE_LENGTH_MAX: Final = 16 * 1024


class UnreadableHeaderError(PermanentError):
    """A header is not base64 of a JSON object. The message does not quote it."""


class Header(NamedTuple):
    """A header's name and value."""

    name: str
    value: str


def required_header(error: str, resource: Resource, accepts: Sequence[Mapping[str, Any]]) -> Header:
    """Say what a seller wants, in version 2."""
    fields = {
        "x402Version": 2,
        "error": error,
        "resource": resource.members(),
        "accepts": list(accepts),
    }
    return Header(PAYMENT_REQUIRED, _encoded(fields))


def payment_header(payload: Mapping[str, Any]) -> Header:
    """Carry a payment, in the version it is made for."""
    return Header(PAYMENT[payload["x402Version"]], _encoded(payload))


def receipt_header(version: Version, settlement: Mapping[str, Any]) -> Header:
    """Carry what a facilitator answered to the settlement."""
    return Header(RECEIPT[version], _encoded(settlement))


def read_header(value: str) -> dict[str, Any]:
    """Read the value of any of these headers.

    Raises:
        UnreadableHeaderError: it is too long, no base64, or no JSON object.
    """
    if len(value) > VALUE_LENGTH_MAX:
        raise UnreadableHeaderError("the header is too long")
    try:
        fields = orjson.loads(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError):
        raise UnreadableHeaderError("the header is no base64 of JSON") from None
    if not isinstance(fields, dict):
        raise UnreadableHeaderError("the header holds no object")
    return fields


def _encoded(fields: Mapping[str, Any]) -> str:
    return base64.b64encode(orjson.dumps(dict(fields))).decode()
