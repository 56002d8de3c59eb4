"""What the enrollment service's handlers need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.enrollment import metrics
from services.enrollment.domain.model import (
    Enrollment,
    EnrollmentState,
    Grant,
    PaymentEffect,
    effect_on,
)
from services.enrollment.domain.revocation import Policy, PolicyKind
from services.enrollment.settings import EnrollmentSettings
from services.enrollment.store import enrollments as enrollment_store
from services.enrollment.store import revocations as revocation_store
from shared.batching import Batcher
from shared.database import Connection
from shared.process import Core


@dataclass(frozen=True, slots=True)
class Runtime:
    """The core, the one way by which payments become enrollments, and when those end."""

    core: Core
    policy: Policy
    grants: Batcher[Grant, None]


@asynccontextmanager
async def open_runtime(core: Core, settings: EnrollmentSettings) -> AsyncIterator[Runtime]:
    """Put together what handlers need."""

    async def commit(grants: Sequence[Grant]) -> Sequence[None]:
        await _grant(core, grants)
        return [None] * len(grants)

    grants: Batcher[Grant, None] = Batcher(commit)
    policy = Policy(PolicyKind(settings.revocation), settings.revocation_grace)
    try:
        yield Runtime(core, policy, grants)
    finally:
        await grants.drain()


async def _grant(core: Core, grants: Sequence[Grant]) -> None:
    """Give a batch of payments their effect; repeating it, in whole or in part, changes nothing."""
    ordered = sorted(grants, key=lambda grant: (grant.customer_id, grant.product_id, grant.id))
    async with core.database.connection() as connection:
        granted = await enrollment_store.insert_grants(connection, ordered, core.clock())
    effects: dict[str, str] = dict.fromkeys(granted, PaymentEffect.GRANTED)
    refused = [grant for grant in ordered if grant.payment_id not in granted]
    if refused:
        async with core.database.transaction() as connection:
            for grant in refused:
                effects[grant.payment_id] = await _grant_again(core, connection, grant)
    for effect in effects.values():
        metrics.PAYMENTS.labels(effect).inc()


async def _grant_again(core: Core, connection: Connection, grant: Grant) -> str:
    """Handle a payment whose product the customer has, or that was handled before."""
    existing = await enrollment_store.lock_enrollment(
        connection, grant.customer_id, grant.product_id
    )
    if existing is None or await enrollment_store.is_known_payment(connection, grant.payment_id):
        return "repeated"
    has_gone_back = await revocation_store.has_gone_back(connection, grant.payment_id)
    effect = effect_on(existing.state, has_gone_back=has_gone_back)
    await enrollment_store.insert_further_payment(connection, grant, existing.id, effect)
    if effect is PaymentEffect.REGRANTED:
        await enrollment_store.change_state(
            connection,
            existing.id,
            EnrollmentState.ACTIVE,
            event="regranted",
            payment_id=grant.payment_id,
        )
    if has_gone_back:
        await revocation_store.wake(connection, grant.payment_id, core.clock())
    else:
        await cancel_planned(connection, existing, reason="paid_again")
    return effect


async def cancel_planned(connection: Connection, existing: Enrollment, *, reason: str) -> bool:
    """Cancel what waits for a locked enrollment that something else holds now.

    Returns:
        Whether anything waited.
    """
    cancelled = await revocation_store.cancel_waiting(
        connection, existing.customer_id, existing.product_id, reason=reason
    )
    for payment_id in cancelled:
        await enrollment_store.add_to_history(
            connection, existing.id, "revocation_cancelled", payment_id=payment_id, reason=reason
        )
        metrics.REVOCATIONS.labels("cancelled").inc()
    return bool(cancelled)
