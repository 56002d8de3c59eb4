"""Builds the client from its variables; apart from them, because it loads cryptography."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from shared.gateways.registration import Surroundings
from shared.gateways.x402 import facilitator, rpc
from shared.gateways.x402.addresses import checksummed
from shared.gateways.x402.chain import Chain
from shared.gateways.x402.client import SpendingRules, X402Gateway
from shared.gateways.x402.facilitator import Facilitator
from shared.gateways.x402.json_calls import JsonCalls
from shared.gateways.x402.keys import X402Keys
from shared.gateways.x402.networks import NETWORKS, Network
from shared.gateways.x402.rpc import Node
from shared.gateways.x402.signer import LocalSigner
from shared.settings import SettingsError


def gateway_of(keys: X402Keys, surroundings: Surroundings) -> X402Gateway:
    """Return a client whose wallet is a key in this process.

    Raises:
        SettingsError: the key or a recipient is not right; names the variable, not its value.
    """
    network = NETWORKS[keys.x402_network]
    calls = JsonCalls(
        surroundings.http_client(keys.x402_facilitator_url),
        keys.x402_facilitator_token.get_secret_value(),
        facilitator.OPERATIONS,
    )
    return X402Gateway(
        Facilitator(calls, network),
        _chain(keys.x402_rpc_url.get_secret_value(), network, surroundings),
        network=network,
        rules=SpendingRules(
            signer=_signer(keys),
            nonce_key=keys.x402_nonce_key.get_secret_value().encode(),
            recipients=_recipients(keys.x402_recipients),
            max_per_payment=keys.x402_max_per_payment,
            since=keys.x402_keys_since,
        ),
        public_url=surroundings.public_url,
        clock=surroundings.clock,
    )


def _signer(keys: X402Keys) -> LocalSigner:
    name = "X402_PRIVATE_KEY" if keys.x402_private_key_file is None else "X402_PRIVATE_KEY_FILE"
    try:
        return LocalSigner(keys.private_key())
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None


def _chain(url: str, network: Network, surroundings: Surroundings) -> Chain | None:
    if not url:
        return None
    parts = urlsplit(url)
    origin = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    calls = JsonCalls(surroundings.http_client(origin), "", rpc.OPERATIONS)
    return Chain(Node(calls, url), network)


def _recipients(text: str) -> frozenset[str]:
    listed = [part.strip() for part in text.split(",") if part.strip()]
    addresses = [checksummed(part) for part in listed]
    known = [address for address in addresses if address is not None]
    if len(known) != len(listed):
        position = addresses.index(None) + 1
        raise SettingsError(f"X402_RECIPIENTS: entry {position} is no checksummed address")
    return frozenset(known)
