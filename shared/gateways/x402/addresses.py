"""EVM addresses: 20 bytes in hexadecimal, whose capitals are a checksum (EIP-55)."""

from __future__ import annotations

import re
from typing import Final

from eth_utils.address import to_checksum_address

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")


def checksummed(text: str) -> str | None:
    """Return an address with the capitals of its checksum; None when it is not right.

    One in small letters only carries no checksum and is taken as it is; any other must carry the
    right one, because a mistyped recipient cannot be asked for the money back.
    """
    if _ADDRESS.fullmatch(text) is None:
        return None
    address: str = to_checksum_address(text.lower())
    return address if text in {address, address.lower()} else None
