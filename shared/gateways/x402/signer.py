"""Who signs for our wallet: a private key in memory now, a key service behind the same interface.

The key is in no setting's repr, no exception and no log; nothing here hands it out again.
eth-account is imported where it is used: its import starts a process (pycryptodome asks `file`
about the interpreter), and importing a module of ours does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from eth_utils.crypto import keccak

if TYPE_CHECKING:
    from eth_account.messages import SignableMessage

SIGNATURE_BYTES: Final = 65

#: The order of secp256k1; a key is a whole number from 1 up to it, exclusive.
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_PRIVATE_KEY: Final = re.compile(r"(?:0x)?([0-9a-fA-F]{64})")


class SigningError(Exception):
    """No signature could be had; nothing was given out. It never names a key or what was signed."""


@dataclass(frozen=True, slots=True)
class TypedData:
    """A structured message to sign (EIP-712) with one struct type."""

    domain: Mapping[str, Any]
    types: Mapping[str, list[dict[str, str]]]
    message: Mapping[str, Any]

    def signable(self) -> SignableMessage:
        """Return it with its domain separator as header and its struct hash as body."""
        from eth_account.messages import encode_typed_data  # noqa: PLC0415 - see the module

        return encode_typed_data(dict(self.domain), dict(self.types), dict(self.message))

    def digest(self) -> bytes:
        """Return the 32 bytes that are signed: what a key service is given."""
        signable = self.signable()
        return bytes(keccak(b"\x19" + signable.version + signable.header + signable.body))


class Signer(Protocol):
    """Signs for one address."""

    @property
    def address(self) -> str:
        """The wallet's address, with the capitals of its checksum."""

    async def sign(self, typed_data: TypedData) -> bytes:
        """Return r, s and v (27 or 28), 65 bytes; s in the lower half of its range.

        A key service that draws its own randomness may return other bytes for the same message:
        both authorize the same nonce, which the token takes once.

        Raises:
            SigningError: no signature could be had.
        """


class LocalSigner:
    """Signs with a private key in this process; the same message gives the same bytes (RFC 6979).

    Raises:
        ValueError: the text is no private key.
    """

    def __init__(self, private_key: str) -> None:
        found = _PRIVATE_KEY.fullmatch(private_key)
        # eth-account's own complaints may quote what they were given.
        if found is None or not 0 < int(found.group(1), 16) < _CURVE_ORDER:
            raise ValueError("a private key is 32 bytes in hexadecimal")
        from eth_account import Account  # noqa: PLC0415 - see the module

        self._account = Account.from_key(f"0x{found.group(1)}")

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    @property
    def address(self) -> str:
        """The wallet's address."""
        return str(self._account.address)

    async def sign(self, typed_data: TypedData) -> bytes:
        """Sign; takes about 3 ms of the event loop's time."""
        return bytes(self._account.sign_message(typed_data.signable()).signature)
