"""What the webhook service does: one function per request or message."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal
from urllib.parse import urlencode

import structlog
from opentelemetry.trace import SpanKind

from services.webhook import metrics, store
from services.webhook.runtime import Runtime
from services.webhook.store import InboundEvent
from shared import partitions
from shared.contracts.payments import CheckoutOpened
from shared.errors import (
    DatabaseUnavailableError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from shared.gateways.interface import Notice, NoticeRefusedError, UnreadableNoticeError
from shared.identifiers import is_id
from shared.messaging.receiver import Delivery

log = structlog.get_logger()


async def receive_notice(
    runtime: Runtime,
    gateway: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    source: Literal["notice", "return"] = "notice",
) -> Notice:
    """Verify and store a notice; when this returns, it is committed.

    Raises:
        NotFoundError: we know no such gateway.
        InvalidInputError: the body cannot be read.
        UnauthorizedError: the proof is missing or wrong.
        DatabaseUnavailableError: it could not be stored; the gateway must send it again.
    """
    reader = runtime.readers.get(gateway)
    if reader is None:
        metrics.REJECTED.labels("unknown", "unknown_gateway").inc()
        raise NotFoundError("there is no such gateway")
    try:
        notice = reader.read(headers, body)
    except UnreadableNoticeError as error:
        metrics.REJECTED.labels(gateway, error.reason).inc()
        raise InvalidInputError(f"the notice cannot be read: {error.reason}") from error
    except NoticeRefusedError as error:
        metrics.REJECTED.labels(gateway, error.reason).inc()
        raise UnauthorizedError("the notice is not authentic") from error
    with runtime.core.tracing.span(
        "webhook.receive", kind=SpanKind.SERVER, attributes={"gateway": gateway}
    ) as traceparent:
        received_at = runtime.core.clock()
        event = InboundEvent(gateway, notice, source, received_at, body, traceparent)
        await runtime.inbox.submit(event)
    return notice


async def return_address(runtime: Runtime, reference: str, result: str) -> str | None:
    """Return the merchant's address for a customer who comes back, with id and result added.

    Only an address given when the payment was created; None when we know none.
    """
    if not is_id(reference, "att"):
        return None  # Anybody may send anything here, also what PostgreSQL cannot encode.
    async with runtime.core.database.connection() as connection:
        found = await store.find_return_address(connection, reference)
    if found is None:
        return None
    payment_id, url = found
    # Added to the text as it was given: taken apart and put together again it might be another.
    address, hash_sign, fragment = url.partition("#")
    joint = "&" if "?" in address else "?"
    added = urlencode({"paymentId": payment_id, "result": result})
    return f"{address}{joint}{added}{hash_sign}{fragment}"


async def remember_return_addresses(
    runtime: Runtime, deliveries: Sequence[Delivery[CheckoutOpened]]
) -> None:
    """Store where customers go after paying."""
    messages = [delivery.message for delivery in deliveries]
    async with runtime.core.database.connection() as connection:
        await store.insert_return_addresses(
            connection,
            [(message.reference, message.payment_id, message.return_url) for message in messages],
        )


async def forget_old_bodies(runtime: Runtime) -> None:
    """Delete, once an hour and for ever, what lies outside the partitions past its time."""
    while True:
        before = runtime.core.clock() - timedelta(days=store.BODIES_KEPT_DAYS)
        try:
            async with runtime.core.database.connection() as connection:
                await store.delete_strays(connection, before)
        except DatabaseUnavailableError as error:
            log.warning("old_bodies_wait", reason=error.message)
        await asyncio.sleep(partitions.INTERVAL_SECONDS)
