"""What the parts of the simulated x402 share."""

from __future__ import annotations

from dataclasses import dataclass

from services.simulator.core import Core
from services.simulator.x402.networks import Network


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the handlers need: the core, and the chain that the node and the resource are on."""

    core: Core
    network: Network
