"""How SSLCommerz signs a notice: two hashes over chosen fields and the hashed store password."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

#: What the two hashes are called on the wire, and what they are.
HASHES: Final = (("verify_sign", "md5"), ("verify_sign_sha2", "sha256"))


def sign(fields: Mapping[str, str], signed: Iterable[str], store_password: str) -> dict[str, str]:
    """Return `verify_key`, `verify_sign` and `verify_sign_sha2` for the named fields.

    Values go in as they are: not encoded, not trimmed, empty ones too.
    """
    names = sorted(signed)
    signature = {"verify_key": ",".join(names)}
    for name, algorithm in HASHES:
        parts = {field: fields[field] for field in names}
        parts["store_passwd"] = _hex(algorithm, store_password)
        signature[name] = _hex(algorithm, "&".join(f"{key}={parts[key]}" for key in sorted(parts)))
    return signature


def _hex(algorithm: str, text: str) -> str:
    return hashlib.new(algorithm, text.encode()).hexdigest()
