"""What customers do: authenticate, fail to, come back with another card; and what time does."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.simulator import fates
from services.simulator.gateway import LAPSED_MAX
from services.simulator.stripe import charging, object_store, refunds, store
from services.simulator.stripe.domain import Intent, IntentStatus, PaymentMethod
from services.simulator.stripe.runtime import Runtime, new_id
from services.simulator.stripe.scenarios import (
    DECLINE_OF,
    EXPIRED,
    FAILED,
    LATE_FAILURE,
    NAME,
    NEVER_CONFIRMS,
    PAID,
)
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError

_ENDED: Final = frozenset(
    {IntentStatus.SUCCEEDED, IntentStatus.CANCELED, IntentStatus.REQUIRES_CAPTURE}
)

#: Wishes that end a payment which is processing without taking money.
_FAILURES: Final = frozenset({FAILED, LATE_FAILURE})

#: What a customer who comes back after a decline gives.
_NEW_CARD: Final = "pm_card_visa"


async def act(runtime: Runtime, intent_id: str, wish: str) -> Intent:
    """Let the customer act on an intent, on-session and authenticated.

    What a wish to pay leads to, the amount and the recorded fate decide; a customer who was
    declined gives a new card.

    Raises:
        NotFoundError: there is no such intent.
        ConflictError: it has ended.
    """
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        before = await store.lock_intent(connection, intent_id)
        if before is None:
            raise NotFoundError("no such payment intent")
        if before.status in _ENDED:
            raise ConflictError(
                f"the payment intent is {before.status}", details={"state": before.status}
            )
        recorded = await fates.list_fates(connection, NAME, before.reference, 1)
        plan = recorded[0].plan if recorded else None
        if wish == PAID:
            wish = charging.wish_of(before, plan)
        if wish == NEVER_CONFIRMS:
            wish = PAID  # Here somebody does confirm.
        if wish == EXPIRED:
            after = charging.cancel(before, "expired", now)
        elif before.status is IntentStatus.PROCESSING:
            due = IntentStatus.SUCCEEDED
            if wish in _FAILURES or wish in DECLINE_OF:
                due = IntentStatus.REQUIRES_PAYMENT_METHOD
            after = charging.come_due(replace(before, due_status=due), now)
        else:
            ready = await _with_card(runtime, connection, before)
            late = {} if plan is None else {"late_seconds": plan.late_seconds}
            after, _ = charging.charge(ready, wish, now, is_authenticated=True, **late)
        await charging.record(runtime, connection, after, before.status, now)
    runtime.core.wake()
    return after


async def move_on(runtime: Runtime) -> int:
    """Bring intents and refunds whose time has come to where they end; return how many."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        due = await store.claim_due_intents(connection, now, LAPSED_MAX)
        for intent in due:
            after = charging.come_due(intent, now)
            await charging.record(runtime, connection, after, intent.status, now)
    return max(len(due), await refunds.settle_due(runtime))


async def _with_card(runtime: Runtime, connection: Connection, intent: Intent) -> Intent:
    """Return the intent with a card that can pay, unless it needs no more than the customer."""
    error = intent.last_payment_error or {}
    is_declined = intent.card is None or (
        intent.status is IntentStatus.REQUIRES_PAYMENT_METHOD
        and error.get("code") != "authentication_required"
    )
    if not is_declined:
        return replace(intent, is_off_session=False)
    method = PaymentMethod(new_id("pm"), _NEW_CARD, intent.customer, runtime.core.clock())
    await object_store.insert_payment_method(connection, method)
    return replace(
        intent, payment_method=method.id, card_name=method.card_name, is_off_session=False
    )
