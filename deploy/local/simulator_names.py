"""What the simulator's ledger calls a payment of ours: each gateway has a form of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeAlias

from shared.identifiers import as_uuid, is_id

#: From a gateway and our reference to the name in its ledger.
NameAtSimulator: TypeAlias = Callable[[str, str], str]


class NamesAtSimulator:
    """How the processes of an environment name their payments to gateways.

    What x402 sees is a nonce, keyed with our wallet's variables. Where the environment has none, a
    payment by x402 keeps the name that only we have for it, and cannot be found in the ledger.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._x402 = {
            name: value for name, value in environment.items() if name.startswith("X402_")
        }

    def knows(self, gateway: str) -> bool:
        """Tell whether the names of a gateway can be told."""
        return gateway != "x402" or bool(self._x402.get("X402_NONCE_KEY"))

    def of(self, gateway: str, reference: str) -> str:
        """Return what a gateway knows a payment by; what is no reference of ours stays as it is."""
        if not is_id(reference, "att"):
            return reference
        if gateway == "campay":
            return as_uuid(reference)  # Campay accepts nothing but a UUID of version 4.
        if gateway == "x402" and self.knows(gateway):
            return self._nonce_of(reference)
        return reference

    @cached_property
    def _nonce_of(self) -> Callable[[str], str]:
        # They load eth-account, which takes half a second: only where there is a wallet.
        from shared.gateways.x402.keys import X402Keys  # noqa: PLC0415
        from shared.gateways.x402.networks import NETWORKS  # noqa: PLC0415
        from shared.gateways.x402.payload import nonce_of  # noqa: PLC0415
        from shared.gateways.x402.signer import LocalSigner  # noqa: PLC0415

        keys = X402Keys(**self._x402)  # type: ignore[arg-type]  # They are read from text, as ever.
        network, payer = NETWORKS[keys.x402_network], LocalSigner(keys.private_key()).address
        nonce_key = keys.x402_nonce_key.get_secret_value().encode()
        return lambda reference: f"0x{nonce_of(nonce_key, network, payer, reference).hex()}"
