"""How a call to Stripe can fail. None of these says more than a few words: see `reason`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class StripeCallError(Exception):
    """A call has no result. By itself it says nothing about money; `reason` is a few words.

    With `is_lasting` the same idempotency key gets the same answer for a day. Stripe may ask us to
    wait for `retry_after_seconds`.
    """

    def __init__(
        self, reason: str, *, is_lasting: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_lasting = is_lasting
        self.retry_after_seconds = retry_after_seconds


class CardDeclinedError(StripeCallError):
    """402: the card was declined. `error` is what Stripe says of it, its intent included."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__("card_declined")
        self.error = error


class RequestRefusedError(StripeCallError):
    """400 or 404: the parameters or the state of an object forbid it; nothing was done."""


class AccessRefusedError(StripeCallError):
    """401 or 403: this request was not carried out; an earlier one may have been."""


class RateLimitedError(StripeCallError):
    """429 for the rate: this request was not carried out; an earlier one may have been."""

    def __init__(self, retry_after_seconds: float | None) -> None:
        super().__init__("rate_limited", retry_after_seconds=retry_after_seconds)


class KeyReusedError(StripeCallError):
    """400: our idempotency key came with other parameters than before. Our own mistake."""

    def __init__(self) -> None:
        super().__init__("idempotency_key_reused", is_lasting=True)
