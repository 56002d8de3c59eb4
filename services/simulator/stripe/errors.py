"""Refusals in Stripe's shape: `{"error": {"type", "code", "message", "param", …}}`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

IDEMPOTENCY_MISMATCH: Final = (
    "Keys for idempotent requests can only be used with the same parameters they were first used"
    " with. Try using a key other than '{key}' if you meant to execute a different request."
)
IDEMPOTENCY_ENDPOINT: Final = (
    "Keys for idempotent requests can only be used for the same endpoint they were first used for"
    " ('{path}' vs '{given}'). Try using a key other than '{key}' if you meant to execute a"
    " different request."
)
KEY_IN_USE: Final = (
    "There is currently another in-progress request using this Idempotent Key (that probably"
    " means you submitted twice, and the other request is still going through): {key}. Please try"
    " again later."
)


class ApiError(Exception):
    """An answer that is not 200.

    `is_stored` tells whether the endpoint had begun to execute: only then does the idempotency
    key keep the answer.
    """

    def __init__(
        self,
        status: int,
        error: Mapping[str, Any],
        *,
        headers: Mapping[str, str] | None = None,
        is_stored: bool = False,
    ) -> None:
        super().__init__(f"{status} {error.get('code') or error['type']}")
        self.status = status
        self.error = {name: value for name, value in error.items() if value is not None}
        self.headers = dict(headers or {})
        self.is_stored = is_stored

    def body(self) -> dict[str, Any]:
        """Return the answer's JSON."""
        return {"error": self.error}


def bad_request(message: str, *, code: str | None = None, param: str | None = None) -> ApiError:
    """Refuse parameters; the idempotency key keeps nothing."""
    return ApiError(400, _error("invalid_request_error", message, code=code, param=param))


def refused(
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    payment_intent: Mapping[str, Any] | None = None,
) -> ApiError:
    """Refuse what the objects' state forbids; the idempotency key keeps the answer."""
    error = _error("invalid_request_error", message, code=code, param=param)
    return ApiError(400, {**error, "payment_intent": payment_intent}, is_stored=True)


def missing(kind: str, identifier: str, param: str) -> ApiError:
    """Say that there is no such object."""
    message = f"No such {kind}: '{identifier}'"
    error = _error("invalid_request_error", message, code="resource_missing", param=param)
    return ApiError(404, error, is_stored=True)


def unauthorized(key: str | None) -> ApiError:
    """Refuse a request without a key, or with another's; of that only the ends are repeated."""
    if not key:
        message = (
            "You did not provide an API key. You need to provide your API key in the Authorization"
            " header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
        )
        return ApiError(401, _error("invalid_request_error", message))
    masked = f"{key[:7]}{'*' * 8}{key[-4:]}" if len(key) > 11 else "*" * 8  # noqa: PLR2004
    return ApiError(401, _error("invalid_request_error", f"Invalid API Key provided: {masked}"))


def unknown_address(method: str, path: str) -> ApiError:
    """Refuse an address that is no endpoint."""
    message = f"Unrecognized request URL ({method}: {path})."
    return ApiError(404, _error("invalid_request_error", message))


def mismatch(key: str, path: str, given: str) -> ApiError:
    """Refuse a key that was first used with other parameters, or for another endpoint."""
    text = IDEMPOTENCY_MISMATCH if path == given else IDEMPOTENCY_ENDPOINT
    message = text.format(key=key, path=path, given=given)
    return ApiError(400, _error("idempotency_error", message))


def key_in_use(key: str) -> ApiError:
    """Refuse a key whose first request is still running."""
    error = _error("idempotency_error", KEY_IN_USE.format(key=key), code="idempotency_key_in_use")
    return ApiError(409, error, headers={"Stripe-Should-Retry": "true"})


def rate_limited(reason: str, headers: Mapping[str, str] | None = None) -> ApiError:
    """Refuse for the rate; the headers name the limit, and seldom when to come back."""
    message = (
        "Request rate limit exceeded. You can learn more about rate limits here"
        " https://stripe.com/docs/rate-limits."
    )
    error = _error("invalid_request_error", message, code="rate_limit")
    return ApiError(429, error, headers={"Stripe-Rate-Limited-Reason": reason, **(headers or {})})


def lock_timeout() -> ApiError:
    """Refuse because another request holds the same object."""
    message = (
        "This object cannot be accessed right now because another API request or Stripe process"
        " is currently accessing it."
    )
    error = _error("invalid_request_error", message, code="lock_timeout")
    return ApiError(429, error, headers={"Stripe-Should-Retry": "true"})


def server_error(*, should_retry: bool, is_stored: bool) -> ApiError:
    """Fail with 500, whose result the caller cannot know."""
    message = "An unknown error occurred"
    headers = {"Stripe-Should-Retry": "true" if should_retry else "false"}
    return ApiError(500, _error("api_error", message), headers=headers, is_stored=is_stored)


def _error(
    kind: str, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        error |= {"code": code, "doc_url": f"https://stripe.com/docs/error-codes/{code}"}
    if param is not None:
        error["param"] = param
    return error
