"""Structured logs: one JSON object a line, with secrets and personal data scrubbed."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import orjson
import structlog

#: Fields whose values never reach a log, whoever binds them.
_SECRET_FIELDS: Final = re.compile(
    r"passw|secret|token|authori[sz]ation|api_?key|signature|verify_sign|card|phone|email"
    r"|cus_name|customer_name",
    re.IGNORECASE,
)

#: Secrets inside text: SSLCommerz carries its password in query strings, PostgreSQL in URLs.
_SECRET_TEXT: Final = (
    (re.compile(r"(store_passwd=)[^&\s\"']*"), r"\1***"),
    (re.compile(r"(://[^:/@\s]*:)[^@/\s]+@"), r"\1***@"),
    (re.compile(r"(Bearer |Token )[A-Za-z0-9._~+/=-]+"), r"\1***"),
)


def scrub(value: str) -> str:
    """Remove known shapes of secrets from a text."""
    for pattern, replacement in _SECRET_TEXT:
        value = pattern.sub(replacement, value)
    return value


def _scrub_event(
    _logger: Any,
    _method: str,
    event: MutableMapping[str, Any],
) -> Mapping[str, Any]:
    for key, value in event.items():
        if _SECRET_FIELDS.search(key):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = scrub(value)
    return event


def _serialize(event: Mapping[str, Any], **_options: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def configure(*, level: str, process: str) -> None:
    """Send our events and those of libraries to standard output as JSON lines.

    Args:
        level: Least severity: DEBUG, INFO, WARNING, ERROR.
        process: Bound to every line, for example `payments-worker`.
    """
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _scrub_event,
    ]
    renderer = structlog.processors.JSONRenderer(serializer=_serialize)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    structlog.contextvars.bind_contextvars(process=process)
