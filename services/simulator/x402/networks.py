"""The networks and the one token that each has here. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Network:
    """An EVM chain and its USDC; `name` and `version` are the token's own EIP-712 domain."""

    caip: str
    v1_name: str | None
    token: str
    name: str
    version: str = "2"

    @property
    def chain_id(self) -> int:
        """The number in the CAIP-2 name."""
        return int(self.caip.partition(":")[2])


_ALL: Final = (
    Network("eip155:8453", "base", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin"),
    Network("eip155:84532", "base-sepolia", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC"),
    Network("eip155:1", None, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USD Coin"),
    Network("eip155:137", "polygon", "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USD Coin"),
    Network("eip155:42161", None, "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USD Coin"),
    Network("eip155:43114", "avalanche", "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USD Coin"),
)

#: By the name of version 2.
NETWORKS: Final[Mapping[str, Network]] = MappingProxyType({each.caip: each for each in _ALL})

#: By the name of version 1.
NETWORKS_V1: Final[Mapping[str, Network]] = MappingProxyType(
    {each.v1_name: each for each in _ALL if each.v1_name is not None}
)
