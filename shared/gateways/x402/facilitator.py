"""The facilitator: it checks a signed payment, and carries it to the chain at its own cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from shared.gateways.http_client import HttpCallError
from shared.gateways.x402.json_calls import JsonCalls
from shared.gateways.x402.networks import Network
from shared.gateways.x402.payload import Version

OPERATIONS: Final = ("supported", "verify", "settle")

#: How long what a facilitator supports is remembered; it changes with its releases.
SUPPORTED_FOR: Final = timedelta(hours=1)


class Verification(NamedTuple):
    """What a facilitator thinks of a payment; `reason` is empty when it finds it valid."""

    is_valid: bool
    reason: str
    payer: str | None


class Settlement(NamedTuple):
    """What a facilitator says it did; all but `is_success` unchecked text from outside."""

    is_success: bool
    reason: str
    payer: str | None
    transaction: str
    network: str
    amount: str | None


class Facilitator:
    """Calls one facilitator for one network."""

    def __init__(self, calls: JsonCalls, network: Network) -> None:
        self._calls = calls
        self._network = network
        self._known: tuple[datetime, Version] | None = None

    async def version(self, now: datetime) -> Version | None:
        """Return the version to speak, 2 if it is offered; None when our network is not.

        Raises:
            HttpCallError: the facilitator did not say.
        """
        if self._known is not None and now < self._known[0] + SUPPORTED_FOR:
            return self._known[1]
        version = _offered(await self._calls.get("supported", "/supported"), self._network)
        if version is not None:
            self._known = now, version
        return version

    async def verify(self, body: Mapping[str, Any]) -> Verification:
        """Ask whether a payment would be settled. Nothing is broadcast.

        Raises:
            HttpCallError: no readable answer.
        """
        fields = await self._calls.post("verify", "/verify", body)
        is_valid = fields.get("isValid")
        if not isinstance(is_valid, bool):
            raise HttpCallError("wrong_shape")
        return Verification(is_valid, _text(fields, "invalidReason") or "", _text(fields, "payer"))

    async def settle(self, body: Mapping[str, Any]) -> Settlement:
        """Have a payment carried out. The same payment again is carried out once at most.

        Raises:
            HttpCallError: no readable answer; the payment may have been made.
        """
        return read_settlement(await self._calls.post("settle", "/settle", body))

    def close(self) -> None:
        """Close kept connections."""
        self._calls.close()


def read_settlement(fields: Mapping[str, Any]) -> Settlement:
    """Read a facilitator's answer or a seller's receipt.

    Raises:
        HttpCallError: its shape is another.
    """
    is_success = fields.get("success")
    if not isinstance(is_success, bool):
        raise HttpCallError("wrong_shape")
    return Settlement(
        is_success,
        _text(fields, "errorReason") or "",
        _text(fields, "payer"),
        _text(fields, "transaction") or "",
        _text(fields, "network") or "",
        _text(fields, "amount"),
    )


def _offered(fields: Mapping[str, Any], network: Network) -> Version | None:
    kinds = fields.get("kinds")
    if not isinstance(kinds, list):
        raise HttpCallError("wrong_shape")
    offers = {
        (kind.get("x402Version"), kind.get("network"))
        for kind in kinds
        if isinstance(kind, dict)
        and kind.get("scheme") == "exact"
        and isinstance(kind.get("x402Version"), int)
        and isinstance(kind.get("network"), str)
    }
    if (2, network.caip2) in offers:
        return 2
    return 1 if network.v1_name is not None and (1, network.v1_name) in offers else None


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise HttpCallError("wrong_shape")
    return value
