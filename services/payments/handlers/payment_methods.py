"""Stores means of payment, and erases them when they are removed. No gateway is called for either.

The scheduler is told which there are: an id, whose it is, the gateway and the kind, nothing else.
"""

from __future__ import annotations

from datetime import datetime

from services.payments.domain.payment_methods import (
    ID_PREFIX,
    Means,
    StoredMethod,
    refusal_to_store,
    smallest_order,
)
from services.payments.runtime import Runtime
from services.payments.store import payment_methods as method_store
from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored
from shared.errors import InvalidInputError, NotFoundError
from shared.gateways.interface import PaymentGateway
from shared.identifiers import is_id
from shared.messaging import outbox
from shared.messaging.envelope import Outgoing


async def store_method(
    runtime: Runtime, method_id: str, gateway_name: str, means: Means
) -> StoredMethod:
    """Store how a customer is charged, and tell the scheduler.

    Repeated with the same id it finds it there, or removed.

    Raises:
        InvalidInputError: the gateway cannot charge so, or is off; the details name the field.
    """
    gateway = runtime.gateways.get(gateway_name)
    if gateway is None:
        raise InvalidInputError(
            f"gateway must be one of {', '.join(sorted(runtime.gateways))}",
            details={"gateway": "unknown"},
        )
    now = runtime.core.clock()
    _require_chargeable(gateway, method_id, means, now)
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        if await method_store.insert_method(connection, method_id, gateway_name, means, now):
            stored = PaymentMethodStored(
                payment_method_id=method_id,
                customer_id=means.customer.id,
                gateway=gateway_name,
                kind=means.method.kind,
                stored_at=now,
            )
            outgoing = await outbox.append(connection, [(stored, None)])
    runtime.core.publisher.publish(outgoing)
    return await read_method(runtime, method_id)


def _require_chargeable(
    gateway: PaymentGateway, method_id: str, means: Means, now: datetime
) -> None:
    order = smallest_order(gateway.capabilities, means, reference=method_id, now=now)
    refusal = refusal_to_store(gateway.name, gateway.capabilities, means.method)
    refusal = refusal or gateway.refusal(order)
    if refusal is not None:
        raise InvalidInputError(refusal.problem, details={refusal.field: refusal.problem})


async def read_method(runtime: Runtime, method_id: str) -> StoredMethod:
    """Return a means of payment, a removed one too.

    Raises:
        NotFoundError: none has this id.
    """
    found: dict[str, StoredMethod] = {}
    if is_id(method_id, ID_PREFIX):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            found = await method_store.find_methods(connection, [method_id])
    if method_id not in found:
        raise NotFoundError(f"no payment method has the id {method_id[:40]!r}")
    return found[method_id]


async def remove_method(runtime: Runtime, method_id: str) -> StoredMethod:
    """Erase what a means of payment is made of, tell the scheduler, and return what is left.

    Payments that were made from it keep their copy: their gateway is still asked about them. One
    that is removed already stays as it is.

    Raises:
        NotFoundError: none has this id.
    """
    method = await read_method(runtime, method_id)
    now = runtime.core.clock()
    outgoing: list[Outgoing] = []
    async with runtime.core.database.transaction() as connection:
        if await method_store.erase_method(connection, method_id, now):
            removed = PaymentMethodRemoved(
                payment_method_id=method_id, customer_id=method.customer_id, removed_at=now
            )
            outgoing = await outbox.append(connection, [(removed, None)])
    runtime.core.publisher.publish(outgoing)
    return await read_method(runtime, method_id)
