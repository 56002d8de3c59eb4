"""What the simulator's ledger calls a payment of ours: each gateway has a form of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from shared.identifiers import as_uuid, is_id

#: From a gateway and our reference to the name in its ledger.
NameAtSimulator: TypeAlias = Callable[[str, str], str]


def names_in(environment: Mapping[str, str]) -> NameAtSimulator:
    """Return how the processes of an environment name their payments to gateways.

    What x402 sees is a nonce, keyed with our wallet's variables; where the environment has none,
    a payment by x402 keeps the name that only we have for it.
    """
    nonce_of = _nonces_in(environment)

    def name_of(gateway: str, reference: str) -> str:
        if not is_id(reference, "att"):
            return reference
        if gateway == "campay":
            return as_uuid(reference)  # Campay accepts nothing but a UUID of version 4.
        return nonce_of(reference) if gateway == "x402" else reference

    return name_of


def _nonces_in(environment: Mapping[str, str]) -> Callable[[str], str]:
    given = {name: value for name, value in environment.items() if name.startswith("X402_")}
    if not given.get("X402_NONCE_KEY"):
        return lambda reference: reference
    # They load eth-account, which takes half a second: only where there is a wallet.
    from shared.gateways.x402.keys import X402Keys  # noqa: PLC0415
    from shared.gateways.x402.networks import NETWORKS  # noqa: PLC0415
    from shared.gateways.x402.payload import nonce_of  # noqa: PLC0415
    from shared.gateways.x402.signer import LocalSigner  # noqa: PLC0415

    keys = X402Keys(**given)  # type: ignore[arg-type]  # They are read from text, as ever.
    network, payer = NETWORKS[keys.x402_network], LocalSigner(keys.private_key()).address
    nonce_key = keys.x402_nonce_key.get_secret_value().encode()
    return lambda reference: f"0x{nonce_of(nonce_key, network, payer, reference).hex()}"
