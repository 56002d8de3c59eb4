"""JWTs with HS256, written from RFC 7515 and RFC 7519: access tokens, and callbacks' signatures."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Any, Final

import orjson

#: How long a callback's signature is valid. Not documented; tokens seen in the wild had minutes.
CALLBACK_SECONDS: Final = 300


def encode(claims: dict[str, Any], key: str, algorithm: str = "HS256") -> str:
    """Make a JWT; with the algorithm `none` it has an empty signature."""
    head = {"alg": algorithm, "typ": "JWT"}
    signed = f"{_letters(orjson.dumps(head))}.{_letters(orjson.dumps(claims))}"
    signature = "" if algorithm == "none" else _letters(_mac(signed, key))
    return f"{signed}.{signature}"


def access_token(user: str, key: str, now: datetime, lifetime_seconds: int) -> str:
    """Make an access token."""
    at = int(now.timestamp())
    return encode({"user": user, "iat": at, "nbf": at, "exp": at + lifetime_seconds}, key)


def callback_signature(key: str, now: datetime, algorithm: str = "HS256") -> str:
    """Make what a callback carries as proof: it names the sender, and no payment."""
    at = int(now.timestamp())
    return encode({"source": "CamPay", "iat": at, "exp": at + CALLBACK_SECONDS}, key, algorithm)


def is_valid(token: str, key: str, now: datetime) -> bool:
    """Tell whether an access token is ours and has not expired."""
    signed, _, signature = token.rpartition(".")
    if not signature or not hmac.compare_digest(
        signature.encode(), _letters(_mac(signed, key)).encode()
    ):
        return False
    claims = orjson.loads(_bytes(signed.partition(".")[2]))
    return bool(claims["exp"] > now.timestamp())


def _mac(signed: str, key: str) -> bytes:
    return hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest()


def _letters(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(letters: str) -> bytes:
    return urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
