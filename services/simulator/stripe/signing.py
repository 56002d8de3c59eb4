"""How Stripe signs an event: HMAC-SHA256 over the time, a point and the raw body. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable


def sign(body: bytes, secrets: Iterable[str], timestamp: int) -> str:
    """Return the `Stripe-Signature` header, with one `v1` per secret that is active.

    The key is the whole text of a secret, `whsec_` included.
    """
    signed = str(timestamp).encode() + b"." + body
    schemes = [
        f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets
    ]
    return ",".join([f"t={timestamp}", *schemes])
