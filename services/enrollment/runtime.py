"""What the enrollment service's handlers need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from services.enrollment import metrics
from services.enrollment.domain.access import (
    Access,
    AccessEffect,
    Right,
    effect_of_end,
    effect_of_grant,
    news_that_count,
    right_left,
)
from services.enrollment.domain.model import (
    Enrollment,
    EnrollmentState,
    Grant,
    PaymentEffect,
    effect_on,
)
from services.enrollment.domain.revocation import Policy, PolicyKind
from services.enrollment.settings import EnrollmentSettings
from services.enrollment.store import access as access_store
from services.enrollment.store import enrollments as enrollment_store
from services.enrollment.store import revocations as revocation_store
from shared.batching import Batcher
from shared.database import Connection
from shared.identifiers import new_id
from shared.process import Core

#: The lines that a subscription writes into the history of an enrollment, by what it does to it.
_EVENTS: Final = {
    AccessEffect.GRANTED: "granted",
    AccessEffect.REGRANTED: "regranted",
    AccessEffect.REVOKED: "revoked_with_subscription",
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """The core, the ways by which enrollments follow payments and subscriptions, and their end."""

    core: Core
    policy: Policy
    grants: Batcher[Grant, None]
    access: Batcher[Access, None]


@asynccontextmanager
async def open_runtime(core: Core, settings: EnrollmentSettings) -> AsyncIterator[Runtime]:
    """Put together what handlers need."""

    async def commit(grants: Sequence[Grant]) -> Sequence[None]:
        await _grant(core, grants)
        return [None] * len(grants)

    async def follow(heard: Sequence[Access]) -> Sequence[None]:
        await _follow(core, heard)
        return [None] * len(heard)

    grants: Batcher[Grant, None] = Batcher(commit)
    access: Batcher[Access, None] = Batcher(follow)
    policy = Policy(PolicyKind(settings.revocation), settings.revocation_grace)
    try:
        yield Runtime(core, policy, grants, access)
    finally:
        await grants.drain()
        await access.drain()


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


async def _follow(core: Core, heard: Sequence[Access]) -> None:
    """Let enrollments follow subscriptions; repeating it, in whole or in part, changes nothing."""
    latest = sorted(news_that_count(heard, {}), key=lambda each: each.subscription_id)
    async with core.database.transaction() as connection:
        known = await access_store.lock_access(connection, latest)
        news = news_that_count(latest, known)
        effects = await _follow_news(core, connection, news, known) if news else []
    metrics.ACCESS.labels(AccessEffect.OUTDATED).inc(len(heard) - len(news))
    for effect in effects:
        metrics.ACCESS.labels(effect).inc()


async def _follow_news(
    core: Core, connection: Connection, news: Sequence[Access], known: Mapping[str, Access]
) -> list[AccessEffect]:
    """Do what the news of locked subscriptions mean, and return what came of them."""
    left = {each: right_left(each, known[each.subscription_id]) for each in news}
    now = core.clock()
    wanted = sorted({each.right for each in news if each.has_access})
    rights = sorted({*wanted, *(right for right in left.values() if right is not None)})
    new: set[str] = set()
    if wanted:
        given = [(new_id("enr", now), right) for right in wanted]
        new |= await access_store.insert_enrollments(connection, given)
    enrollments = await access_store.lock_enrollments(connection, rights) if rights else {}
    await access_store.save_access(connection, news)
    effects: list[AccessEffect] = []
    changes: list[access_store.Change] = []

    def change(right: Right, state: EnrollmentState, effect: AccessEffect, why: Access) -> None:
        id_, _ = enrollments[right]
        enrollments[right] = id_, state
        is_exchanged = effect is AccessEffect.REVOKED and why.has_access
        reason = "another_product" if is_exchanged else why.reason
        changes.append(
            access_store.Change(id_, state, _EVENTS[effect], why.subscription_id, reason)
        )

    for each in news:
        if each.has_access:
            id_, state = enrollments[each.right]
            effects.append(effect_of_grant(state, is_new=id_ in new))
            new.discard(id_)
            if effects[-1] is not AccessEffect.KEPT:
                change(each.right, EnrollmentState.ACTIVE, effects[-1], each)
        if (right := left[each]) is not None:
            id_, state = enrollments[right]
            is_held = await enrollment_store.is_held(connection, id_, until_taken=True)
            effects.append(effect_of_end(state, is_held=is_held))
            if effects[-1] is AccessEffect.REVOKED:
                change(right, EnrollmentState.REVOKED, effects[-1], each)
        elif not each.has_access:
            effects.append(AccessEffect.NOT_NEEDED)
    if changes:
        await access_store.change_enrollments(connection, changes)
    return effects
