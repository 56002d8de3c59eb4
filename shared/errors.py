"""Every error a handler may meet, cut by what the caller must do.

SluiceError
├── TransientError            the same call may succeed later: redeliver, answer 503
│   ├── DatabaseUnavailableError
│   ├── RedisUnavailableError
│   └── NotAcceptingError     an operator lets nothing new in
└── PermanentError            repeating cannot help: dead letter, answer 4xx
    ├── InvalidInputError     a field has a wrong value (400)
    ├── UnauthorizedError     no valid API key (401)
    ├── ForbiddenError        the key lacks the scope (403)
    ├── NotFoundError         no such thing (404)
    ├── ConflictError         the state forbids it (409)
    ├── TooLargeError         body over the limit (413)
    ├── TooManyRequestsError  over the rate limit (429)
    ├── SpendingLimitError    our own wallet must not pay as much (422)
    ├── GatewayRefusedError   the gateway would not begin (422)
    ├── NotSupportedError     the gateway has no such thing (422)
    └── IllegalTransitionError  a state machine was asked for a step it does not have
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SluiceError(Exception):
    """Base of all our errors; `code` is what an API client matches on."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})


class TransientError(SluiceError):
    """Something we depend on did not answer; the same call may succeed later."""

    code = "temporarily_unavailable"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after_seconds: int = 5,
    ) -> None:
        super().__init__(message, details=details)
        #: What `Retry-After` says.
        self.retry_after_seconds = retry_after_seconds


class DatabaseUnavailableError(TransientError):
    """PostgreSQL is away, or did not answer in time."""


class RedisUnavailableError(TransientError):
    """Redis is away, or did not answer in time."""


class GatewayUnavailableError(TransientError):
    """A payment gateway did not answer, or gave an answer that says nothing."""

    code = "gateway_unavailable"


class NotAcceptingError(TransientError):
    """An operator lets nothing new in for the time being; the message is the operator's reason."""

    code = "not_accepting"


class PermanentError(SluiceError):
    """Repeating the same call cannot help."""

    code = "refused"


class InvalidInputError(PermanentError):
    """A value is wrong; `details` names each field and its problem."""

    code = "invalid_input"


class UnauthorizedError(PermanentError):
    """The request carries no valid API key, or no valid signature."""

    code = "unauthorized"


class ForbiddenError(PermanentError):
    """The API key is valid but lacks the scope."""

    code = "forbidden"


class NotFoundError(PermanentError):
    """Nothing has this id."""

    code = "not_found"


class ConflictError(PermanentError):
    """The present state forbids what was asked."""

    code = "conflict"


class IdempotencyConflictError(ConflictError):
    """An idempotency key was used before with another body."""

    code = "idempotency_key_reused"


class TooLargeError(PermanentError):
    """The request body is over the limit."""

    code = "too_large"


class TooManyRequestsError(PermanentError):
    """The caller is over its rate limit."""

    code = "rate_limited"

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SpendingLimitError(PermanentError):
    """Our own wallet must not pay as much; nothing was signed."""

    code = "spending_limit"


class GatewayRefusedError(PermanentError):
    """The gateway refused a request of ours for good; the message is its reason."""

    code = "gateway_refused"


class NotSupportedError(PermanentError):
    """What was asked for does not exist at the gateway; `details` names the field that decides."""

    code = "not_supported"


class IllegalTransitionError(PermanentError):
    """A state machine was asked for a step that its table does not have."""

    code = "illegal_transition"
