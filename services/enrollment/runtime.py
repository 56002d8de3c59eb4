"""What the enrollment service's handlers need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.enrollment import metrics, store
from services.enrollment.domain import EnrollmentState, Grant, PaymentEffect, effect_on
from shared.batching import Batcher
from shared.database import Connection
from shared.process import Core


@dataclass(frozen=True, slots=True)
class Runtime:
    """The core, and the one way by which payments become enrollments."""

    core: Core
    grants: Batcher[Grant, None]


@asynccontextmanager
async def open_runtime(core: Core) -> AsyncIterator[Runtime]:
    """Put together what handlers need."""

    async def commit(grants: Sequence[Grant]) -> Sequence[None]:
        await _grant(core, grants)
        return [None] * len(grants)

    grants: Batcher[Grant, None] = Batcher(commit)
    try:
        yield Runtime(core, grants)
    finally:
        await grants.drain()


async def _grant(core: Core, grants: Sequence[Grant]) -> None:
    """Give a batch of payments their effect; repeating it, in whole or in part, changes nothing."""
    ordered = sorted(grants, key=lambda grant: (grant.customer_id, grant.product_id, grant.id))
    async with core.database.connection() as connection:
        granted = await store.insert_grants(connection, ordered)
    effects: dict[str, str] = dict.fromkeys(granted, PaymentEffect.GRANTED)
    refused = [grant for grant in ordered if grant.payment_id not in granted]
    if refused:
        async with core.database.transaction() as connection:
            for grant in refused:
                effects[grant.payment_id] = await _grant_again(connection, grant)
    for effect in effects.values():
        metrics.PAYMENTS.labels(effect).inc()


async def _grant_again(connection: Connection, grant: Grant) -> str:
    """Handle a payment whose product the customer has, or that was handled before."""
    existing = await store.lock_enrollment(connection, grant.customer_id, grant.product_id)
    if existing is None or await store.is_known_payment(connection, grant.payment_id):
        return "repeated"
    effect = effect_on(existing.state)
    await store.insert_further_payment(connection, grant, existing.id, effect)
    if effect is PaymentEffect.REGRANTED:
        await store.change_state(
            connection,
            existing.id,
            EnrollmentState.ACTIVE,
            event="regranted",
            payment_id=grant.payment_id,
        )
    return effect
