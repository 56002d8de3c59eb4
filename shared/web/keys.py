"""API keys: configured as hashes, several at once for rotation, each with its scopes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shared.errors import ForbiddenError, UnauthorizedError
from shared.settings import SettingsError
from shared.web.routes import Scope

_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One configured key: a name for records, what it may do, SHA-256 of its text."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes


def digest_of(key: str) -> bytes:
    """Hash a key. Keys are long and random, so a plain hash is enough."""
    # A header may hold bytes that are no text; such a key is as unknown as any other.
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def describe(name: str, scopes: Iterable[Scope], key: str) -> str:
    """Write a key as `API_KEYS` wants it: `name:read+write:<sha256 in hex>`."""
    return f"{name}:{'+'.join(sorted(scopes))}:{digest_of(key).hex()}"


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Read `API_KEYS`: entries of `name:scopes:sha256`, separated by commas or line breaks.

    Raises:
        SettingsError: an entry has another shape; names its position, not its content.
    """
    keys = []
    entries = [entry.strip() for entry in text.replace("\n", ",").split(",")]
    for position, entry in enumerate(filter(None, entries), start=1):
        fields = entry.split(":")
        try:
            if len(fields) != _FIELDS:
                raise ValueError
            name, scopes, digest = fields
            key = ApiKey(
                name, frozenset(Scope(scope) for scope in scopes.split("+")), bytes.fromhex(digest)
            )
            if len(key.digest) != hashlib.sha256().digest_size:
                raise ValueError
        except ValueError:
            raise SettingsError(
                f"API_KEYS: entry {position} is not name:scope+scope:sha256-in-hex"
            ) from None
        keys.append(key)
    return tuple(keys)


class Keyring:
    """Finds the key of a request."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)

    def authorize(self, header: str | None, scope: Scope) -> str:
        """Return the name of the key in an `Authorization` header.

        Raises:
            UnauthorizedError: no header, another scheme, or an unknown key.
            ForbiddenError: the key lacks the scope.
        """
        scheme, _, text = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise UnauthorizedError("send an API key as 'Authorization: Bearer <key>'")
        digest = digest_of(text.strip())
        found = None
        for key in self._keys:  # All of them, so that the time says nothing about which.
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise UnauthorizedError("the API key is not known")
        if scope not in found.scopes:
            raise ForbiddenError(f"the API key '{found.name}' lacks the scope '{scope}'")
        return found.name
