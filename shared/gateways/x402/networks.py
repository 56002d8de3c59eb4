"""The networks on which we pay, and the USDC contract of each.

Contracts and names: Circle's published contracts, as the x402 package ships them. The name differs
between Base and Base Sepolia; with a wrong one every signature is invalid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from shared.money import DECIMAL_PLACES, MINOR_UNITS_MAX, Money

CURRENCY: Final = "USDC"


@dataclass(frozen=True, slots=True)
class Network:
    """One chain and the token on it."""

    chain_id: int
    #: What version 1 of the protocol calls it; None where it has no name for it.
    v1_name: str | None
    #: The contract, with the capitals of its checksum.
    token: str
    #: Name and version that the token signs with (its EIP-712 domain).
    domain_name: str
    domain_version: str = "2"
    #: Of the token, not of our `Money`: another token may have 18.
    decimals: int = 6

    @property
    def caip2(self) -> str:
        """The network's name in version 2 of the protocol (CAIP-2)."""
        return f"eip155:{self.chain_id}"

    def units(self, amount: Money) -> int:
        """Return an amount of USDC in the token's atomic units."""
        assert amount.currency == CURRENCY
        return amount.minor_units * self._units_per_minor_unit()

    def money(self, units: int) -> Money | None:
        """Return atomic units as money; None when they are no whole amount that we can hold."""
        minor_units, rest = divmod(units, self._units_per_minor_unit())
        return None if rest or minor_units > MINOR_UNITS_MAX else Money(minor_units, CURRENCY)

    def _units_per_minor_unit(self) -> int:
        assert self.decimals >= DECIMAL_PLACES[CURRENCY], "an amount of ours could not be written"
        return int(10 ** (self.decimals - DECIMAL_PLACES[CURRENCY]))


_NETWORKS: Final = (
    Network(8453, "base", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
    Network(84532, "base-sepolia", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    Network(1, None, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin"),
    Network(137, "polygon", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USD Coin"),
    Network(42161, None, "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USD Coin"),
    Network(43114, "avalanche", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USD Coin"),
)

#: By CAIP-2 name.
NETWORKS: Final[Mapping[str, Network]] = MappingProxyType(
    {network.caip2: network for network in _NETWORKS}
)
