"""The one table from our errors to HTTP statuses, and the error envelope."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from shared.errors import (
    ConflictError,
    ForbiddenError,
    GatewayRefusedError,
    GatewayUnavailableError,
    IllegalTransitionError,
    InvalidInputError,
    NotFoundError,
    PermanentError,
    SluiceError,
    TooLargeError,
    TooManyRequestsError,
    TransientError,
    UnauthorizedError,
)

#: The most specific class that an error belongs to decides.
STATUSES: Final[Mapping[type[SluiceError], int]] = MappingProxyType(
    {
        InvalidInputError: 400,
        UnauthorizedError: 401,
        ForbiddenError: 403,
        NotFoundError: 404,
        ConflictError: 409,
        IllegalTransitionError: 409,
        TooLargeError: 413,
        GatewayRefusedError: 422,
        PermanentError: 422,
        TooManyRequestsError: 429,
        GatewayUnavailableError: 502,
        TransientError: 503,
        SluiceError: 500,
    }
)


def status_of(error: SluiceError) -> int:
    """Return the HTTP status of an error."""
    return status_of_kind(type(error))


def status_of_kind(kind: type[SluiceError]) -> int:
    """Return the HTTP status of errors of a class."""
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


def envelope(code: str, message: str, details: Mapping[str, Any] | None = None) -> bytes:
    """Return the body of an error."""
    error = {"code": code, "message": message, "details": dict(details or {})}
    return orjson.dumps({"success": False, "error": error})


def error_body(error: SluiceError) -> bytes:
    """Return the body of one of our errors."""
    return envelope(error.code, error.message, error.details)
